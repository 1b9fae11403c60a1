"""The page of an endpoint: health, settings and actions."""

from typing import Any

from service.core.problems import InvalidRequest
from service.core.views import DeliveryView, EndpointView
from service.dashboard.endpoint_form import FORMATS, PATTERNS, entered_of, find_errors, read_settings
from service.dashboard.forms import Entered
from service.dashboard.health import healths
from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.deliveries import DeliveryList

DELIVERIES = 10
ONE = "/v1/endpoints/{id}"


async def show(visit: Visit) -> Answer:
    endpoint = await get_endpoint(visit)
    query = {"endpoint_id": endpoint.id, "limit": DELIVERIES}
    recent = await visit.ask("GET /v1/deliveries", DeliveryList, query=query)
    health = await healths(visit.web, [await visit.web.store.reads.get_endpoint(endpoint.id)])
    return visit.render("endpoint.html", endpoint=endpoint, deliveries=recent.data, health=health[endpoint.id])


async def get_endpoint(visit: Visit) -> EndpointView:
    return await visit.ask(f"GET {ONE}", EndpointView, id=visit.path_id("endpoint"))


async def show_settings(visit: Visit) -> Answer:
    endpoint = await get_endpoint(visit)
    return _render_form(visit, endpoint, entered_of(endpoint), {})


async def change(visit: Visit) -> Answer:
    endpoint = await get_endpoint(visit)
    try:
        await visit.ask(f"PATCH {ONE}", EndpointView, id=endpoint.id, body=read_settings(visit.form))
    except InvalidRequest as problem:
        return _render_form(visit, endpoint, visit.form, find_errors(problem), 422)
    return visit.redirect(f"/endpoints/{endpoint.id}", "The settings are saved.")


def _render_form(
    visit: Visit, endpoint: EndpointView, entered: Entered, errors: dict[str, str], status: int = 200
) -> Answer:
    values: dict[str, Any] = {"patterns": PATTERNS, "formats": FORMATS, "entered": entered, "errors": errors}
    return visit.render("endpoint_form.html", status, endpoint=endpoint, **values)


async def enable(visit: Visit) -> Answer:
    changed = await _turn(visit, on=True)
    held = f" {changed.held} events are held: recover them." if changed.held else ""
    return visit.redirect(f"/endpoints/{changed.id}", f"The endpoint is enabled.{held}")


async def disable(visit: Visit) -> Answer:
    changed = await _turn(visit, on=False)
    return visit.redirect(f"/endpoints/{changed.id}", "The endpoint is disabled. Events are held until it is enabled.")


async def _turn(visit: Visit, *, on: bool) -> EndpointView:
    return await visit.ask(f"PATCH {ONE}", EndpointView, id=visit.path_id("endpoint"), body={"enabled": on})


async def rotate(visit: Visit) -> Answer:
    """The new secret is in the answer to the form itself: no address leads back to it."""
    rotated = await visit.ask(f"POST {ONE}/rotate-secret", EndpointView, id=visit.path_id("endpoint"))
    return visit.render("endpoint_secret.html", endpoint=rotated, is_new=False)


async def test(visit: Visit) -> Answer:
    delivery = await visit.ask(f"POST {ONE}/test", DeliveryView, id=visit.path_id("endpoint"))
    return visit.redirect(f"/deliveries/{delivery.id}", "A test event is on its way.")


async def delete(visit: Visit) -> Answer:
    await visit.ask(f"DELETE {ONE}", type(None), id=visit.path_id("endpoint"))
    return visit.redirect("/endpoints", "The endpoint is deleted.")
