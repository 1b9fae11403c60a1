"""The public JSON of every object, and so what stays inside: answers, events and OpenAPI draw on it alone."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.core.account import DEFAULT
from service.core.change import Entry
from service.core.delivery import Attempt, Delivery, DeliveryStatus, Endpoint, EndpointFilter, Format, Held
from service.core.event import EventType
from service.core.task import ProviderCancel, Result, Status, Task, TaskError, Via
from service.core.times import rfc3339

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-01T00:00:00.000Z"])]


def time_or_null(at: datetime | None) -> Time | None:
    return None if at is None else rfc3339(at)


_INPUT_SCHEMA = {"anyOf": [{"$ref": "#/components/schemas/TaskInput"}, {"type": "object", "maxProperties": 0}]}
InputView = Annotated[Any, Meta(description="As given; empty once erased.", extra_json_schema=_INPUT_SCHEMA)]
"""A TaskInput, or what is left of it in an erased task; JSON Schema can say so, msgspec's unions can't."""


class Tracking(msgspec.Struct, frozen=True, kw_only=True):
    """How the task was tracked: `via` is what ended it, null before.

    `progress` runs from 0 to 1, `queue_position` counts the tasks before it; both are null where the provider does not
    say. `provider_cancel` is the cancel at the provider, null unless the task was canceled after its submit.
    """

    via: Via | None
    polls: int
    callbacks: int
    progress: float | None = None
    queue_position: int | None = None
    provider_cancel: ProviderCancel | None = None


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """The task, in every answer and in every event. `late_result` is what came after it had ended otherwise."""

    id: str
    object: Literal["task"] = "task"
    status: Status
    provider: str
    account: str = DEFAULT
    model: str
    provider_task_id: str | None
    input: InputView
    metadata: dict[str, str]
    result: Result | None
    error: TaskError | None
    late_result: Result | UnsetType = UNSET
    tracking: Tracking
    created_at: Time
    submitted_at: Time | None
    finished_at: Time | None
    deadline_at: Time
    erased_at: Time | UnsetType = UNSET


def view_task(task: Task) -> TaskView:
    return TaskView(
        id=task.id,
        status=task.status,
        provider=task.provider,
        account=task.account,
        model=task.model,
        provider_task_id=task.provider_task_id,
        input={} if task.erased_at else task.input,
        metadata=task.metadata,
        result=task.result,
        error=task.error,
        late_result=task.late_result or UNSET,
        tracking=Tracking(
            via=task.via, polls=task.polls, callbacks=task.callbacks, provider_cancel=task.provider_cancel
        ),
        created_at=rfc3339(task.created_at),
        submitted_at=time_or_null(task.submitted_at),
        finished_at=time_or_null(task.finished_at),
        deadline_at=rfc3339(task.deadline_at),
        erased_at=rfc3339(task.erased_at) if task.erased_at else UNSET,
    )


def erase_told(data: bytes, erased: TaskView) -> bytes:
    """Return the data of an event without the content of its task, which was erased later."""
    published: dict[str, Any] = msgspec.json.decode(data)
    published.pop("late_result", None)
    error = erased.error if published.get("error") else None
    left = {"input": erased.input, "metadata": erased.metadata, "result": None, "error": error}
    return msgspec.json.encode(published | left | {"erased_at": erased.erased_at})


class TimelineItem(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the timeline; the fields of `detail` depend on the type."""

    at: Time
    type: str
    detail: dict[str, Any]


def view_entry(entry: Entry) -> TimelineItem:
    return TimelineItem(at=rfc3339(entry.at), type=entry.type, detail=entry.detail)


EndpointType = Literal["webhook"]


class NoAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The endpoint gets no credentials but its own `headers`."""

    type: Literal["none"] = "none"


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber. `secret` is there at creation and rotation alone; `metadata` is its owner's and filters nothing.

    `held` counts what waits for `recover`, which needs no earlier `since` than `held_since`.
    """

    id: str
    object: Literal["endpoint"] = "endpoint"
    type: EndpointType = "webhook"
    url: str
    config: dict[str, Any] = {}
    auth: NoAuth = NoAuth()
    events: tuple[str, ...]
    filter: EndpointFilter
    format: Format
    headers: dict[str, str]
    max_in_flight: int
    rate_per_s: float | None
    timeout_s: float
    retry_schedule_s: tuple[float, ...] | None
    description: str
    metadata: dict[str, str]
    enabled: bool
    failing: bool
    disabled_reason: str | None
    disabled_at: Time | None
    held: int
    held_since: Time | None
    created_at: Time
    secret: str | UnsetType = UNSET


def view_endpoint(endpoint: Endpoint, held: Held, *, secret: str | UnsetType = UNSET) -> EndpointView:
    """Values of headers may be keys of the subscriber, so their names alone are shown."""
    return EndpointView(
        id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        filter=endpoint.filter,
        format=endpoint.format,
        headers=dict.fromkeys(endpoint.headers, "(hidden)"),
        max_in_flight=endpoint.max_in_flight,
        rate_per_s=endpoint.rate_per_s,
        timeout_s=endpoint.timeout_s,
        retry_schedule_s=endpoint.retry_schedule_s,
        description=endpoint.description,
        metadata=endpoint.metadata,
        enabled=endpoint.enabled,
        failing=endpoint.failing,
        disabled_reason=endpoint.disabled_reason,
        disabled_at=time_or_null(endpoint.disabled_at),
        held=held.count,
        held_since=time_or_null(held.since),
        created_at=rfc3339(endpoint.created_at),
        secret=secret,
    )


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The data of an `endpoint.*` event."""

    id: str
    object: Literal["endpoint"] = "endpoint"
    url: str
    enabled: bool
    failures: int
    first_failed_at: Time | None
    disabled_reason: str | None
    last_error: str | None


def view_endpoint_facts(endpoint: Endpoint, last_error: str | None) -> EndpointFacts:
    return EndpointFacts(
        id=endpoint.id,
        url=endpoint.url,
        enabled=endpoint.enabled,
        failures=endpoint.failures,
        first_failed_at=time_or_null(endpoint.first_failed_at),
        disabled_reason=endpoint.disabled_reason,
        last_error=last_error,
    )


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt; `error` says why it does not count as received, `response` is the first KiB of the answer."""

    number: int
    at: Time
    status_code: int | None
    duration_ms: int
    error: str | None
    location: str | None
    response: str


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """An event for one endpoint; `url` is the task's own URL if there is no endpoint."""

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    event_type: EventType
    task_id: str | None
    endpoint_id: str | None
    url: str | None
    status: DeliveryStatus
    next_attempt_at: Time | None
    created_at: Time
    finished_at: Time | None
    attempts: tuple[AttemptView, ...]


def view_delivery(delivery: Delivery, attempts: Sequence[Attempt]) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        task_id=delivery.task_id,
        endpoint_id=delivery.endpoint_id,
        url=delivery.url,
        status=delivery.status,
        next_attempt_at=time_or_null(delivery.due_at if delivery.status == "pending" else None),
        created_at=rfc3339(delivery.created_at),
        finished_at=time_or_null(delivery.finished_at),
        attempts=tuple(
            AttemptView(
                number=attempt.number,
                at=rfc3339(attempt.at),
                status_code=attempt.status_code,
                duration_ms=attempt.duration_ms,
                error=attempt.error,
                location=attempt.location,
                response=attempt.excerpt,
            )
            for attempt in attempts
        ),
    )
