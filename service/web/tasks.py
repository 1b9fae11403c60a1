"""Tasks: create, read, wait, list, cancel, erase, and explain."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from service.core import lifecycle
from service.core.account import ID_SHAPE
from service.core.delivery import Attempt, Delivery
from service.core.problems import Conflict, FieldError, InvalidRequest, Unauthorized
from service.core.task import Label, Metadata, Status, Task, TaskInput
from service.core.times import after, rfc3339
from service.core.views import TaskView, TimelineItem, view_entry, view_task
from service.core.why import CLOSED, Why, explain
from service.providers.base import Access, Model
from service.store import upkeep
from service.store.queries import PAGE_BYTES, DeliveryFilter, TaskFilter
from service.telemetry.tracing import current_span
from service.web.auth import Caller
from service.web.calls import Answer, Call, encode_item, first_of, gone, json_answer, page_answer
from service.web.context import Web
from service.web.creating import check_key, create, find_answered, fingerprint, resolve_model
from service.web.queries import (
    Cursor,
    Limit,
    TimeText,
    encode_cursor,
    read_id_cursor,
    read_model,
    read_number_cursor,
    read_time,
)
from service.web.tickets import CreateTicket, encode_task

log = structlog.get_logger()
DELIVERIES_MAX = 200
TIMELINE_MAX = 1_000

AccountId = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=f"^{ID_SHAPE.pattern}$",
        description="An account of the provider; without one that with the most room is chosen.",
    ),
]
HOLD_MAX_S = 55.0
"""Common proxies cut off an answer after 60 s."""
Wait = Annotated[
    float, Meta(ge=0, le=60, description="Seconds to hold the answer until the task is final; 55 s at most are held.")
]
TicketText = Annotated[
    str, Meta(description="A ticket of this task, instead of an API key; its answer omits `metadata` and `raw`.")
]
MetadataFilter = Annotated[
    dict[Label, str], Meta(description="As `metadata.KEY=VALUE` or `metadata[KEY]=VALUE`, any number of times.")
]
Timeout = Annotated[float, Meta(ge=1, le=86_400, description="Seconds until the task fails with `timeout`.")]


class CreateTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new task. `model` is `provider/model`, or a bare name for the first configured provider that has it.

    `webhook_url` is a subscriber for this task alone. With `on_unconfirmed: resubmit` a submit whose outcome is unknown
    is sent again, which may be charged twice.
    """

    example: ClassVar[dict[str, Any]] = {
        "model": "fluxapi-ai/flux-kontext-pro",
        "input": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
        "webhook_url": "https://example.com/hooks/images",
        "metadata": {"order": "1234"},
    }

    model: Annotated[str, Meta(min_length=1, max_length=128, examples=["fluxapi-ai/flux-kontext-pro"])]
    account: AccountId | None = None
    input: TaskInput
    webhook_url: str | None = None
    metadata: Metadata = {}
    timeout_s: Timeout = 900.0
    on_unconfirmed: Literal["wait", "resubmit"] = "wait"


class GetTask(msgspec.Struct, frozen=True, kw_only=True):
    wait: Wait = 0.0
    ticket: TicketText | None = None


class ListTasks(msgspec.Struct, frozen=True, kw_only=True):
    status: Status | UnsetType = UNSET
    provider: str | None = None
    account: str | None = None
    model: Annotated[str, Meta(description="`provider/model`, or a bare name at any provider.")] | None = None
    provider_task_id: str | None = None
    metadata: MetadataFilter = {}
    created_after: TimeText | None = None
    created_before: TimeText | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class GetTimeline(msgspec.Struct, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=TIMELINE_MAX)] = TIMELINE_MAX
    cursor: Cursor | None = None


class TaskList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of tasks, newest first."""

    data: list[TaskView]
    next_cursor: str | None


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The timeline of a task, oldest first."""

    data: list[TimelineItem]
    next_cursor: str | None


async def create_task(web: Web, call: Call[None, CreateTask]) -> Answer:
    started = web.env.monotonic()
    key, wanted = check_key(call.header(b"idempotency-key")), call.body
    request = "" if key is None else fingerprint(wanted)
    try:
        access, model = await check_task(web, wanted)
    except InvalidRequest:  # what a request is judged by changes, such as names and settings; its answer does not
        answered = await find_answered(web, key, request)
        if answered is None:
            raise
        return _answer_created(web, call.caller, answered, started, is_new=False)
    task = _new_task(web, wanted, access, model)
    stored, is_new = await create(web, task, {} if wanted.account else access.accounts, key, request)
    return _answer_created(web, call.caller, stored, started, is_new=is_new)


def _new_task(web: Web, wanted: CreateTask, access: Access, model: Model) -> Task:
    now = web.env.now()
    return Task(
        id=web.env.new_id("task"),
        provider=access.provider.id,
        account=wanted.account or next(iter(access.accounts)),
        account_named=wanted.account is not None,
        model=model.name,
        input=wanted.input,
        metadata=wanted.metadata,
        webhook_url=None if wanted.webhook_url is None else web.trust.vault.seal_url(wanted.webhook_url),
        on_unconfirmed=wanted.on_unconfirmed,
        created_at=now,
        deadline_at=after(now, wanted.timeout_s),
        trace=current_span().find_context(),
    )


def _answer_created(web: Web, caller: Caller, stored: Task, started: float, *, is_new: bool) -> Answer:
    current_span().record_task(stored)
    _tell_created(web, stored, caller.name, started, is_new=is_new)
    location = (b"location", b"/v1/tasks/" + stored.id.encode())
    if is_new:
        return json_answer(view_task(stored), 202, (location,))
    return json_answer(_view_for(caller, stored), 200, (location, (b"idempotent-replayed", b"true")))


def _view_for(caller: Caller, task: Task) -> TaskView:
    """Return the task; for a key that may not read tasks without what was asked for and what came of it."""
    view = view_task(task)
    if caller.may("tasks:read"):
        return view
    return replace(view, input={}, metadata={}, result=None, error=None, late_result=UNSET)


async def check_task(web: Web, wanted: CreateTask) -> tuple[Access, Model]:
    """Return the provider of the model. Raise InvalidRequest with everything that the model's limits do not allow."""
    access, model = resolve_model(web.providers, wanted.model, wanted.account)
    errors = access.provider.check(model, wanted.input) + await _check_webhook(web, wanted.webhook_url)
    if errors:
        raise InvalidRequest(errors)
    return access, model


async def _check_webhook(web: Web, url: str | None) -> list[FieldError]:
    reason = await web.trust.guard.resolve_public(url) if url is not None else None
    return [FieldError(loc=["body", "webhook_url"], msg=reason)] if reason else []


def _tell_created(web: Web, task: Task, caller: str, started: float, *, is_new: bool) -> None:
    if is_new:
        web.running.metrics.tasks_created.labels(task.provider, task.account).inc()
    log.info(
        "task.created",
        task_id=task.id,
        provider=task.provider,
        account=task.account,
        model=task.model,
        caller=caller,
        outcome="created" if is_new else "replayed",
        duration_ms=round((web.env.monotonic() - started) * 1000, 1),
    )


async def get_task(web: Web, call: Call[GetTask, None]) -> Answer:
    task_id = call.path_id("task")
    if call.query.wait:
        task = await _wait_for_end(web, task_id, call)
    else:
        task = await web.store.reads.get_task(task_id)
    return Answer(200, encode_task(task, call.caller))


async def create_ticket(web: Web, call: Call[None, CreateTicket]) -> Answer:
    task = await web.store.reads.get_task(call.path_id("task"))
    issued = web.tickets.issue(call.caller, task, call.body.ttl_s)
    log.info("ticket.issued", task_id=task.id, caller=call.caller.name, expires_at=issued.expires_at)
    return json_answer(issued, 201)


async def _wait_for_end(web: Web, task_id: str, call: Call[GetTask, None]) -> Task:
    """Listens before it reads, so that no end falls between the two."""
    with _told_of_end(web, task_id) as ended:
        task = await web.store.reads.get_task(task_id)
        if not task.is_final:
            with web.waits, web.requests.lent():  # thousands that wake at once must leave callbacks their place
                await first_of(min(call.query.wait, HOLD_MAX_S), ended, gone(call.receive), web.running.stopping.wait())
                task = await web.store.reads.get_task(task_id)
    if not await web.tickets.holds(call.caller):
        raise Unauthorized("This key was revoked, or its ticket expired.")
    return task


@contextmanager
def _told_of_end(web: Web, task_id: str) -> Iterator[asyncio.Future[str]]:
    """Subscribe to the end of a task; waiters that are notified together share a read."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with web.store.bus.told(partial(web.store.reads.ends.ask, task_id, ended), task_id):
        try:
            yield ended
        finally:
            ended.cancel()


async def list_tasks(web: Web, call: Call[ListTasks, None]) -> Answer:
    query = call.query
    provider, model = read_model(query.model, query.provider, web.providers)
    wanted = TaskFilter(
        status=query.status or None,
        provider=provider,
        account=query.account,
        model=model,
        provider_task_id=query.provider_task_id,
        metadata=query.metadata,
        created_after=read_time(query.created_after, "query", "created_after"),
        created_before=read_time(query.created_before, "query", "created_before"),
    )
    before = read_id_cursor(query.cursor, "task")
    page = await web.store.reads.list_tasks_as(lambda task: encode_item(view_task(task)), wanted, query.limit, before)
    return page_answer(page.items, encode_cursor(page.last))


async def cancel_task(web: Web, call: Call[None, None]) -> Answer:
    change = await web.store.writer.change_task(call.path_id("task"), partial(lifecycle.cancel, env=web.env))
    task = change.tasks[0]
    current_span().record_task(task)
    if change.outcome == "moved":
        log.info("task.canceled", task_id=task.id, provider=task.provider, caller=call.caller.name)
    return json_answer(_view_for(call.caller, task))


async def poll_task(web: Web, call: Call[None, None]) -> Answer:
    task_id = call.path_id("task")
    task = await web.store.reads.get_task(task_id)
    access = web.providers.get(task.provider)
    if access is None or task.account not in access.accounts:
        raise Conflict("The account of this task is not configured any more, so it can't be polled.")
    change = await web.store.writer.change_task(task_id, partial(lifecycle.look_now, env=web.env, policy=access.policy))
    current_span().record_task(change.tasks[0])
    log.info("task.poll_requested", task_id=task_id, provider=access.provider.id, caller=call.caller.name)
    return json_answer(_view_for(call.caller, change.tasks[0]), 202)


async def erase_task(web: Web, call: Call[None, None]) -> Answer:
    task_id = call.path_id("task")
    await upkeep.erase_task(web.store.writer, task_id)
    log.info("task.erased", task_id=task_id, caller=call.caller.name)
    return Answer(204)


async def get_timeline(web: Web, call: Call[GetTimeline, None]) -> Answer:
    task_id, reads = call.path_id("task"), web.store.reads
    await reads.get_task(task_id)
    items = [(entry.at, view_entry(entry)) for entry in await reads.list_entries(task_id)]
    deliveries = (await reads.list_deliveries(DeliveryFilter(task_id=task_id), DELIVERIES_MAX, None)).items
    attempts = await reads.attempts_of([delivery.id for delivery in deliveries])
    for delivery in deliveries:
        items += [_view_attempt(delivery, attempt) for attempt in attempts[delivery.id]]
    ordered = [item for _, item in sorted(items, key=lambda timed: timed[0])]
    start = read_number_cursor(call.query.cursor)
    page = _fit(ordered[start : start + call.query.limit])
    end = start + len(page)
    return page_answer(page, encode_cursor(end) if end < len(ordered) else None)


def _fit(items: Sequence[TimelineItem]) -> list[msgspec.Raw]:
    """Encode as many as fit into a page, and one at least."""
    page: list[msgspec.Raw] = []
    size = 0
    for item in items:
        page.append(encode_item(item))
        size += len(bytes(page[-1]))
        if size >= PAGE_BYTES:
            break
    return page


def _view_attempt(delivery: Delivery, attempt: Attempt) -> tuple[datetime, TimelineItem]:
    detail = {
        "delivery_id": delivery.id,
        "event_type": delivery.event_type,
        "endpoint_id": delivery.endpoint_id,
        "number": attempt.number,
        "status_code": attempt.status_code,
        "error": attempt.error,
        "duration_ms": attempt.duration_ms,
    }
    return attempt.at, TimelineItem(at=rfc3339(attempt.at), type="delivery.attempted", detail=detail)


async def get_why(web: Web, call: Call[None, None]) -> Answer:
    task = await web.store.reads.get_task(call.path_id("task"))
    return json_answer(await _explain(web, task))


async def _explain(web: Web, task: Task) -> Why:
    access = web.providers.get(task.provider)
    policy = access.policy if access and task.account in access.accounts else None
    refusal = (await web.store.reads.refusals()).get(task.account_key)
    paused_ms, breaker = (await web.store.reads.accounts()).get(task.account_key, (0, CLOSED))
    return explain(task, policy, paused_ms, web.env.now(), breaker, refusal)
