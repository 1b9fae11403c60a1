"""Deliveries with their attempts, and one more attempt by hand."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import msgspec
import structlog
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from service.core import delivering
from service.core.change import Change
from service.core.delivery import Delivery, DeliveryStatus, render_for
from service.core.event import EventType
from service.core.problems import Conflict
from service.core.views import DeliveryView, view_delivery
from service.store.batch import Batch, Keys
from service.store.queries import DeliveryFilter
from service.store.vault import Unopened
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.queries import Cursor, Limit, encode_cursor, read_id_cursor, read_time

log = structlog.get_logger()


RETRY_MAX = 1_000
"""Deliveries that one request queues: what is left over is queued by the next one."""
STEP = 100


class ListDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    status: DeliveryStatus | UnsetType = UNSET
    endpoint_id: str | None = None
    task_id: str | None = None
    event_id: str | None = None
    event_type: EventType | UnsetType = UNSET
    created_after: str | None = None
    created_before: str | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of deliveries, newest first."""

    data: list[DeliveryView]
    next_cursor: str | None


class RetryDeliveries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries to attempt now: all that the given fields select. With `dry_run` they are counted alone.

    Without `status` it is those that were given up (`failed`).
    """

    example: ClassVar[dict[str, Any]] = {"event_type": "task.succeeded", "dry_run": True}
    status: Literal["failed", "held", "pending", "succeeded"] = "failed"
    endpoint_id: str | None = None
    task_id: str | None = None
    event_id: str | None = None
    event_type: EventType | None = None
    created_after: str | None = None
    created_before: str | None = None
    dry_run: bool = False


class Retried(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries were queued, or would be. `has_more`: over 1,000 match; repeat the request for the rest."""

    deliveries: int
    has_more: bool


async def list_deliveries(web: Web, call: Call[ListDeliveries, None]) -> Answer:
    query, reads = call.query, web.store.reads
    before = read_id_cursor(query.cursor, "delivery")
    page = await reads.list_deliveries(_filter_of(query, query.status or None, "query"), query.limit, before)
    attempts = await reads.attempts_of([delivery.id for delivery in page.items])
    views = [view_delivery(_opened(web, delivery), attempts[delivery.id]) for delivery in page.items]
    return json_answer(DeliveryList(data=views, next_cursor=encode_cursor(page.last)))


def _filter_of(given: ListDeliveries | RetryDeliveries, status: str | None, place: str) -> DeliveryFilter:
    return DeliveryFilter(
        status=status,
        endpoint_id=given.endpoint_id,
        task_id=given.task_id,
        event_id=given.event_id,
        event_type=given.event_type or None,
        created_after=read_time(given.created_after, place, "created_after"),
        created_before=read_time(given.created_before, place, "created_before"),
    )


async def retry_deliveries(web: Web, call: Call[None, RetryDeliveries]) -> Answer:
    """Queue one attempt now for each delivery that matches, newest first. Deleted endpoints get none."""
    wanted = _filter_of(call.body, call.body.status, "body")
    count, before = 0, None
    while count < RETRY_MAX:
        page = await web.store.reads.list_deliveries(wanted, min(STEP, RETRY_MAX - count), before)
        count += await _retry_page(web, page.items, dry_run=call.body.dry_run)
        before = page.last
        if before is None:
            break
    log.info("deliveries.retried", count=count, dry_run=call.body.dry_run, caller=call.caller.name)
    return json_answer(Retried(deliveries=count, has_more=before is not None), 200 if call.body.dry_run else 202)


async def _retry_page(web: Web, page: Sequence[Delivery], *, dry_run: bool) -> int:
    """Return how many of these are queued by this, or would be."""
    ids = tuple(delivery.id for delivery in page)
    endpoints = tuple(sorted({delivery.endpoint_id for delivery in page if delivery.endpoint_id}))
    counted = 0

    def decide(batch: Batch) -> Change:
        nonlocal counted
        deleted = {id for id in endpoints if (one := batch.find_endpoint(id)) is None or one.deleted_at is not None}
        kept = [one for one in map(batch.delivery, ids) if one.endpoint_id not in deleted]
        changes = [delivering.retry(one, web.env) for one in kept]
        queued = tuple(one for change in changes if change.outcome == "moved" for one in change.deliveries)
        counted = len(queued)
        return Change(outcome="noted") if dry_run else Change(deliveries=queued)

    if ids:
        await web.store.writer.change(Keys(deliveries=ids, endpoints=endpoints), decide)
    return counted


async def get_delivery(web: Web, call: Call[None, None]) -> Answer:
    return json_answer(await _view(web, call.path_id("delivery")))


async def get_delivery_body(web: Web, call: Call[None, None]) -> Answer:
    """Byte for byte what each attempt sends, in the endpoint's present format."""
    delivery, form, body = await web.store.reads.get_delivery_body(call.path_id("delivery"))
    return Answer(200, render_for(form, body, web.running.source, delivery.task_id))


async def retry_delivery(web: Web, call: Call[None, None]) -> Answer:
    delivery_id = call.path_id("delivery")
    endpoint_id = (await web.store.reads.get_delivery(delivery_id)).endpoint_id

    def decide(batch: Batch) -> Change:
        endpoint = batch.find_endpoint(endpoint_id)
        if endpoint is not None and endpoint.deleted_at is not None:
            raise Conflict("The endpoint of this delivery is deleted.")
        return delivering.retry(batch.delivery(delivery_id), web.env)

    keys = Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,) if endpoint_id else ())
    await web.store.writer.change(keys, decide)
    log.info("delivery.retried", delivery_id=delivery_id, endpoint_id=endpoint_id, caller=call.caller.name)
    return json_answer(await _view(web, delivery_id), 202)


async def _view(web: Web, delivery_id: str) -> DeliveryView:
    delivery = await web.store.reads.get_delivery(delivery_id)
    attempts = (await web.store.reads.attempts_of([delivery_id]))[delivery_id]
    return view_delivery(_opened(web, delivery), attempts)


def _opened(web: Web, delivery: Delivery) -> Delivery:
    """With its own URL readable, or with why it is not."""
    if delivery.url is None:
        return delivery
    try:
        url = web.trust.vault.open_url(delivery.url)
    except Unopened as problem:
        url = f"({problem})"
    return replace(delivery, url=url)
