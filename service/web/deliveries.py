"""Deliveries with their attempts, and one more attempt by hand."""

import msgspec
import structlog
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from service.core import delivering
from service.core.change import Change
from service.core.delivery import Delivery, DeliveryStatus, render_for
from service.core.problems import Conflict
from service.core.views import DeliveryView, view_delivery
from service.store.batch import Batch, Keys
from service.store.vault import Unopened
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.queries import Cursor, Limit, encode_cursor, read_id_cursor

log = structlog.get_logger()


class ListDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    status: DeliveryStatus | UnsetType = UNSET
    endpoint_id: str | None = None
    task_id: str | None = None
    limit: Limit = 50
    cursor: Cursor | None = None


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of deliveries, newest first."""

    data: list[DeliveryView]
    next_cursor: str | None


async def list_deliveries(web: Web, call: Call[ListDeliveries, None]) -> Answer:
    query, reads = call.query, web.store.reads
    before = read_id_cursor(query.cursor, "delivery")
    page = await reads.list_deliveries(query.status or None, query.endpoint_id, query.task_id, query.limit, before)
    attempts = await reads.attempts_of([delivery.id for delivery in page.items])
    views = [view_delivery(_opened(web, delivery), attempts[delivery.id]) for delivery in page.items]
    return json_answer(DeliveryList(data=views, next_cursor=encode_cursor(page.last)))


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
