"""Subscribers: all of them with their health, and a new one."""

from typing import Any

from service.core.problems import InvalidRequest
from service.core.views import EndpointView
from service.dashboard.endpoint_form import FORMATS, NEW, PATTERNS, find_errors, read_settings
from service.dashboard.forms import Entered
from service.dashboard.health import healths
from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.endpoints import EndpointList

PAGE = 25


async def show(visit: Visit) -> Answer:
    query = {"limit": PAGE, "cursor": visit.query.get("cursor")}
    page = await visit.ask("GET /v1/endpoints", EndpointList, query=query)
    shown = {endpoint.id for endpoint in page.data}
    known = [endpoint for endpoint in await visit.web.store.reads.list_endpoints() if endpoint.id in shown]
    health = await healths(visit.web, known)
    return visit.render("endpoints.html", endpoints=page.data, health=health, next_cursor=page.next_cursor)


async def show_new(visit: Visit) -> Answer:
    return _render_form(visit, NEW, {})


async def create(visit: Visit) -> Answer:
    """The secret is on this one page and nowhere else, so it is the answer to the form itself."""
    try:
        made = await visit.ask("POST /v1/endpoints", EndpointView, body=read_settings(visit.form))
    except InvalidRequest as problem:
        return _render_form(visit, visit.form, find_errors(problem), 422)
    return visit.render("endpoint_secret.html", 201, endpoint=made, is_new=True)


def _render_form(visit: Visit, entered: Entered, errors: dict[str, str], status: int = 200) -> Answer:
    values: dict[str, Any] = {"patterns": PATTERNS, "formats": FORMATS, "entered": entered, "errors": errors}
    return visit.render("endpoint_form.html", status, endpoint=None, **values)
