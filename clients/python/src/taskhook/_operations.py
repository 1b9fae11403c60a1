"""Every operation of the API, once: what it takes, what it asks for, what it makes of the answer."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal

from taskhook._arguments import OMIT, Omit, given, listed, params_of, text_of
from taskhook._decode import M, decode, reader
from taskhook._plan import Listing, Plan, Request, path_of, read_object
from taskhook._stream import Place
from taskhook._waiting import until_final
from taskhook.errors import TaskFailedError
from taskhook.events import Event, decode_event
from taskhook.models import (
    Delivery,
    DeliveryStatus,
    Endpoint,
    EventPattern,
    EventType,
    Fault,
    FilterParams,
    Format,
    Key,
    OnUnconfirmed,
    Provider,
    Recovered,
    Retried,
    Scope,
    Task,
    TaskStatus,
    TimelineItem,
    Why,
)

# --- tasks


def create_task(
    *,
    model: str,
    prompt: str,
    account: str | None = None,
    aspect_ratio: str | None = None,
    size: str | None = None,
    n: int | None = None,
    image_url: str | None = None,
    output_format: str | None = None,
    translate: bool | None = None,
    options: Mapping[str, Any] | None = None,
    webhook_url: str | None = None,
    metadata: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    on_unconfirmed: OnUnconfirmed | None = None,
    idempotency_key: str | None = None,
) -> Plan[Task]:
    """A new task. `model` is `provider/model`, or a bare name for the first configured provider that has it.

    Without an `account` the one with the most room is chosen. `image_url` makes it an edit; `options` go to the
    provider under its own names; `webhook_url` is a subscriber for this task alone; `timeout_s` is when the task fails
    if it is not final. A key is made for each call, so that no retry creates a second task; give an `idempotency_key`
    of your own to be safe across processes, too.
    """
    task_input = given(
        prompt=prompt,
        aspect_ratio=aspect_ratio,
        size=size,
        n=n,
        image_url=image_url,
        output_format=output_format,
        translate=translate,
        options=options,
    )
    body = given(
        model=model,
        account=account,
        input=task_input,
        webhook_url=webhook_url,
        metadata=metadata,
        timeout_s=timeout_s,
        on_unconfirmed=on_unconfirmed,
    )
    headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
    return _object(Task, Request(method="POST", path="/v1/tasks", body=body, headers=headers, repeatable=True))


def retrieve_task(task_id: str, /) -> Plan[Task]:
    """The task as it is now."""
    return _get(Task, path_of("tasks", task_id))


def list_tasks(
    *,
    status: TaskStatus | None = None,
    provider: str | None = None,
    account: str | None = None,
    model: str | None = None,
    provider_task_id: str | None = None,
    metadata: Mapping[str, str] | None = None,
    created_after: datetime | str | None = None,
    created_before: datetime | str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing[Task]:
    """Tasks, newest first; iterate over it to get those of all pages. `limit` is the size of a page."""
    params = params_of(
        status=status,
        provider=provider,
        account=account,
        model=model,
        provider_task_id=provider_task_id,
        created_after=created_after,
        created_before=created_before,
        limit=limit,
        cursor=cursor,
    )
    labels = {f"metadata.{name}": value for name, value in (metadata or {}).items()}
    return Listing(path="/v1/tasks", read=reader(Task), params=params | labels)


def wait_for_task(task_id: str, /, *, timeout: float | None = None) -> Plan[Task]:
    """The task once it is final, however it ended, by as many long polls as it takes; a restart is waited out.

    After `timeout` seconds WaitTimeoutError; without one it takes as long as the task, which has a deadline.
    """
    return until_final(task_id, timeout, time.monotonic)


def create_task_and_wait(
    *,
    model: str,
    prompt: str,
    timeout: float | None = None,
    account: str | None = None,
    aspect_ratio: str | None = None,
    size: str | None = None,
    n: int | None = None,
    image_url: str | None = None,
    output_format: str | None = None,
    translate: bool | None = None,
    options: Mapping[str, Any] | None = None,
    webhook_url: str | None = None,
    metadata: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    on_unconfirmed: OnUnconfirmed | None = None,
    idempotency_key: str | None = None,
) -> Plan[Task]:
    """`create` and `wait` in one: the task that succeeded, or TaskFailedError. `timeout` is that of the wait alone."""
    task = yield from create_task(
        model=model,
        prompt=prompt,
        account=account,
        aspect_ratio=aspect_ratio,
        size=size,
        n=n,
        image_url=image_url,
        output_format=output_format,
        translate=translate,
        options=options,
        webhook_url=webhook_url,
        metadata=metadata,
        timeout_s=timeout_s,
        on_unconfirmed=on_unconfirmed,
        idempotency_key=idempotency_key,
    )
    final = yield from wait_for_task(task.id, timeout=timeout)
    if final.status != "succeeded":
        raise TaskFailedError(final)
    return final


def poll_task(task_id: str, /) -> Plan[Task]:
    """Has the provider asked now instead of when it is due; `wait` for what comes of it."""
    return _object(Task, Request(method="POST", path=path_of("tasks", task_id, "poll"), repeatable=True))


def cancel_task(task_id: str, /) -> Plan[Task]:
    """Stops tracking it; the provider may still finish and charge it."""
    return _object(Task, Request(method="POST", path=path_of("tasks", task_id, "cancel"), repeatable=True))


def erase_task(task_id: str, /) -> Plan[None]:
    """Erases prompt, result and raw payloads of a final task; its ids, states and times stay."""
    return _delete(path_of("tasks", task_id))


def task_timeline(task_id: str, /, *, limit: int | None = None, cursor: str | None = None) -> Listing[TimelineItem]:
    """Everything that happened to a task: submits, polls, callbacks, state changes, deliveries."""
    path = path_of("tasks", task_id, "timeline")
    return Listing(path=path, read=reader(TimelineItem), params=params_of(limit=limit, cursor=cursor))


def task_why(task_id: str, /) -> Plan[Why]:
    """Why it is in this state, what happens next, and what you can do."""
    return _get(Why, path_of("tasks", task_id, "why"))


# --- events


def retrieve_event(event_id: str, /) -> Plan[Event]:
    """A stored event."""
    response = yield Request(method="GET", path=path_of("events", event_id), repeatable=True)
    return decode_event(read_object(response))


def list_events(
    *, task_id: str | None = None, type: EventType | None = None, limit: int | None = None, cursor: str | None = None
) -> Listing[Event]:
    """Stored events, oldest first."""
    params = params_of(task_id=task_id, type=type, limit=limit, cursor=cursor)
    return Listing(path="/v1/events", read=decode_event, params=params)


def stream_events(
    *, task_id: str | None = None, types: Iterable[EventType] | None = None, last_event_id: str | None = None
) -> Place:
    """Events as they happen, without end: a lost connection is made again, and no event is left out or repeated.

    Keep `last_event_id` to go on there in another process; without it the stream starts at its present end.
    """
    params = params_of(task_id=task_id, types=None if types is None else ",".join(types))
    return Place(params, last_event_id)


# --- endpoints and deliveries


def create_endpoint(
    *,
    url: str,
    type: str | None = None,
    config: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    events: Iterable[EventPattern] | None = None,
    filter: FilterParams | None = None,
    format: Format | None = None,
    headers: Mapping[str, str] | None = None,
    max_in_flight: int | None = None,
    rate_per_s: float | None = None,
    timeout_s: float | None = None,
    retry_schedule_s: Iterable[float] | None = None,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
    enabled: bool | None = None,
) -> Plan[Endpoint]:
    """A new subscriber. Its `secret` is in this answer alone: keep it, `webhooks.verify` needs it."""
    body = given(
        url=url,
        type=type,
        config=config,
        auth=auth,
        events=listed(events),
        filter=filter,
        format=format,
        headers=headers,
        max_in_flight=max_in_flight,
        rate_per_s=rate_per_s,
        timeout_s=timeout_s,
        retry_schedule_s=listed(retry_schedule_s),
        description=description,
        metadata=metadata,
        enabled=enabled,
    )
    return _object(Endpoint, Request(method="POST", path="/v1/endpoints", body=body))


def retrieve_endpoint(endpoint_id: str, /) -> Plan[Endpoint]:
    """A subscriber, without its secret."""
    return _get(Endpoint, path_of("endpoints", endpoint_id))


def list_endpoints(*, limit: int | None = None, cursor: str | None = None) -> Listing[Endpoint]:
    """Subscribers, oldest first."""
    return Listing(path="/v1/endpoints", read=reader(Endpoint), params=params_of(limit=limit, cursor=cursor))


def update_endpoint(
    endpoint_id: str,
    /,
    *,
    url: str | None = None,
    type: str | None = None,
    config: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    events: Iterable[EventPattern] | None = None,
    filter: FilterParams | None = None,
    format: Format | None = None,
    headers: Mapping[str, str] | None = None,
    max_in_flight: int | None = None,
    rate_per_s: float | Literal[Omit.OMIT] | None = OMIT,
    timeout_s: float | None = None,
    retry_schedule_s: Iterable[float] | Literal[Omit.OMIT] | None = OMIT,
    description: str | None = None,
    metadata: Mapping[str, str] | None = None,
    enabled: bool | None = None,
) -> Plan[Endpoint]:
    """Change the given settings; omitted ones stay as they are. `enabled=False` holds events.

    `rate_per_s=None` lifts the limit, `retry_schedule_s=None` goes back to the service's schedule. Another `url` drops
    the `headers` that are set, unless they are given again.
    """
    body = given(
        url=url,
        type=type,
        config=config,
        auth=auth,
        events=listed(events),
        filter=filter,
        format=format,
        headers=headers,
        max_in_flight=max_in_flight,
        timeout_s=timeout_s,
        description=description,
        metadata=metadata,
        enabled=enabled,
    )
    if rate_per_s is not OMIT:
        body["rate_per_s"] = rate_per_s
    if retry_schedule_s is not OMIT:
        body["retry_schedule_s"] = listed(retry_schedule_s)
    path = path_of("endpoints", endpoint_id)
    return _object(Endpoint, Request(method="PATCH", path=path, body=body, repeatable=True))


def rotate_secret(endpoint_id: str, /) -> Plan[Endpoint]:
    """A new `secret`, in this answer alone; for 24 hours the old one signs, too."""
    return _object(Endpoint, Request(method="POST", path=path_of("endpoints", endpoint_id, "rotate-secret")))


def test_endpoint(endpoint_id: str, /) -> Plan[Delivery]:
    """Sends a `taskhook.ping` now; ask for the delivery to see how it went."""
    return _object(Delivery, Request(method="POST", path=path_of("endpoints", endpoint_id, "test")))


def recover_endpoint(
    endpoint_id: str, /, *, since: datetime | str, until: datetime | str | None = None, dry_run: bool = False
) -> Plan[Recovered]:
    """Queues again every event of that time that this endpoint has not received; with `dry_run` only counts them."""
    body = given(since=text_of(since), until=None if until is None else text_of(until), dry_run=dry_run)
    path = path_of("endpoints", endpoint_id, "recover")
    return _object(Recovered, Request(method="POST", path=path, body=body, repeatable=dry_run))


def delete_endpoint(endpoint_id: str, /) -> Plan[None]:
    """Removes the subscriber; what was still to be delivered is not."""
    return _delete(path_of("endpoints", endpoint_id))


def retrieve_delivery(delivery_id: str, /) -> Plan[Delivery]:
    """A delivery with its attempts."""
    return _get(Delivery, path_of("deliveries", delivery_id))


def delivery_body(delivery_id: str, /) -> Plan[bytes]:
    """Byte for byte what each attempt sends."""
    response = yield Request(method="GET", path=path_of("deliveries", delivery_id, "body"), repeatable=True)
    return response.content


def list_deliveries(
    *,
    status: DeliveryStatus | None = None,
    endpoint_id: str | None = None,
    task_id: str | None = None,
    event_id: str | None = None,
    event_type: str | None = None,
    created_after: datetime | str | None = None,
    created_before: datetime | str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing[Delivery]:
    """Deliveries with their attempts, newest first."""
    params = params_of(
        status=status,
        endpoint_id=endpoint_id,
        task_id=task_id,
        event_id=event_id,
        event_type=event_type,
        created_after=None if created_after is None else text_of(created_after),
        created_before=None if created_before is None else text_of(created_before),
        limit=limit,
        cursor=cursor,
    )
    return Listing(path="/v1/deliveries", read=reader(Delivery), params=params)


def retry_delivery(delivery_id: str, /) -> Plan[Delivery]:
    """Queue one attempt now, with the endpoint's current URL and secret."""
    return _object(Delivery, Request(method="POST", path=path_of("deliveries", delivery_id, "retry")))


def retry_deliveries(
    *,
    status: DeliveryStatus = "failed",
    endpoint_id: str | None = None,
    task_id: str | None = None,
    event_id: str | None = None,
    event_type: str | None = None,
    created_after: datetime | str | None = None,
    created_before: datetime | str | None = None,
    dry_run: bool = False,
) -> Plan[Retried]:
    """Queue one attempt now for each matching delivery, 1,000 at most; `dry_run` only counts them."""
    body = given(
        status=status,
        endpoint_id=endpoint_id,
        task_id=task_id,
        event_id=event_id,
        event_type=event_type,
        created_after=None if created_after is None else text_of(created_after),
        created_before=None if created_before is None else text_of(created_before),
        dry_run=dry_run,
    )
    return _object(Retried, Request(method="POST", path="/v1/deliveries/retry", body=body, repeatable=dry_run))


# --- what operators need


def list_providers() -> Listing[Provider]:
    """Every provider, its models and limits, and whether it is configured and healthy."""
    return Listing(path="/v1/providers", read=reader(Provider))


def create_key(*, name: str, scopes: Iterable[Scope]) -> Plan[Key]:
    """A new API key; its text is in `key`, in this answer alone."""
    return _object(Key, Request(method="POST", path="/v1/keys", body={"name": name, "scopes": list(scopes)}))


def list_keys(*, limit: int | None = None, cursor: str | None = None) -> Listing[Key]:
    """API keys, oldest first, the revoked ones too."""
    return Listing(path="/v1/keys", read=reader(Key), params=params_of(limit=limit, cursor=cursor))


def revoke_key(key_id: str, /) -> Plan[None]:
    """The key is refused everywhere within seconds."""
    return _delete(path_of("keys", key_id))


def list_faults() -> Listing[Fault]:
    """List the rows that an internal error of the service quarantined."""
    return Listing(path="/v1/faults", read=reader(Fault))


def retry_fault(subject_id: str, /) -> Plan[Fault]:
    """Work on what is parked again."""
    return _object(Fault, Request(method="POST", path=path_of("faults", subject_id, "retry")))


# --- what they share


def _get(model: type[M], path: str) -> Plan[M]:
    return _object(model, Request(method="GET", path=path, repeatable=True))


def _object(model: type[M], request: Request) -> Plan[M]:
    response = yield request
    return decode(model, read_object(response))


def _delete(path: str) -> Plan[None]:
    yield Request(method="DELETE", path=path, repeatable=True)
