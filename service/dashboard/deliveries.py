"""Deliveries: found by how they stand and where they go."""

from typing import get_args

from service.core.delivery import DeliveryStatus
from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.deliveries import DeliveryList

PAGE = 50
STATUSES: tuple[str, ...] = get_args(DeliveryStatus)
FILTERS = ("status", "endpoint_id", "task_id")


async def show(visit: Visit) -> Answer:
    wanted = {name: visit.query.get(name, "").strip() for name in FILTERS}
    query = {**wanted, "limit": PAGE, "cursor": visit.query.get("cursor")}
    page = await visit.ask("GET /v1/deliveries", DeliveryList, query=query)
    return visit.render(
        "deliveries.html",
        deliveries=page.data,
        next_cursor=page.next_cursor,
        endpoints={endpoint.id: endpoint for endpoint in await visit.web.store.reads.list_endpoints()},
        statuses=STATUSES,
        wanted=wanted,
        is_first=not visit.query.get("cursor"),
    )
