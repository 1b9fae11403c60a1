"""API keys: who has which rights, a new one, and the end of one."""

from typing import Any

from service.core.keys import SCOPES
from service.core.problems import InvalidRequest
from service.dashboard.forms import Entered, checked, errors_by_field
from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.keys import KeyList, KeyView

PAGE = 100
MEANINGS = {
    "tasks:write": "create, cancel and erase tasks",
    "tasks:read": "see tasks, their events, and the providers",
    "endpoints": "see and change endpoints and deliveries",
    "admin": "everything, keys too",
}


async def show(visit: Visit) -> Answer:
    return await _render(visit, {}, {})


async def create(visit: Visit) -> Answer:
    """The key is in the answer to the form itself: no address leads back to it."""
    body = {"name": visit.form.get("name", "").strip(), "scopes": checked(visit.form, "scopes")}
    try:
        made = await visit.ask("POST /v1/keys", KeyView, body=body)
    except InvalidRequest as problem:
        return await _render(visit, visit.form, errors_by_field(problem), 422)
    return visit.render("key_made.html", 201, key=made)


async def revoke(visit: Visit) -> Answer:
    await visit.ask("DELETE /v1/keys/{id}", type(None), id=visit.path_id("key"))
    return visit.redirect("/keys", "The key is revoked. It stops working everywhere within seconds.")


async def _render(visit: Visit, entered: Entered, errors: dict[str, str], status: int = 200) -> Answer:
    query = {"limit": PAGE, "cursor": visit.query.get("cursor")}
    page = await visit.ask("GET /v1/keys", KeyList, query=query)
    values: dict[str, Any] = {"keys": page.data, "next_cursor": page.next_cursor, "entered": entered, "errors": errors}
    meanings = {scope: MEANINGS[scope] for scope in SCOPES}
    return visit.render("keys.html", status, meanings=meanings, own_key=visit.caller.key_id, **values)
