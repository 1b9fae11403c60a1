"""The page of a delivery: its body, its attempts, and a manual retry."""

import msgspec

from service.core.problems import NotFound
from service.core.views import DeliveryView, EndpointView
from service.dashboard.visit import Visit
from service.web.calls import Answer

ONE = "/v1/deliveries/{id}"


async def show(visit: Visit) -> Answer:
    delivery_id = visit.path_id("delivery")
    delivery = await visit.ask(f"GET {ONE}", DeliveryView, id=delivery_id)
    body = await visit.ask(f"GET {ONE}/body", msgspec.Raw, id=delivery_id)
    return visit.render("delivery.html", delivery=delivery, body=body, endpoint=await _endpoint(visit, delivery))


async def _endpoint(visit: Visit, delivery: DeliveryView) -> EndpointView | None:
    """None where the task names the URL itself, or where the endpoint is deleted."""
    if delivery.endpoint_id is None:
        return None
    try:
        return await visit.ask("GET /v1/endpoints/{id}", EndpointView, id=delivery.endpoint_id)
    except NotFound:
        return None


async def retry(visit: Visit) -> Answer:
    delivery = await visit.ask(f"POST {ONE}/retry", DeliveryView, id=visit.path_id("delivery"))
    return visit.redirect(f"/deliveries/{delivery.id}", "One more attempt is on its way.")
