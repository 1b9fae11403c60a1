"""The playground: a model's own parameters as a form, the resulting request, and its result when it arrives."""

from typing import Any

import msgspec

from service.core.problems import InvalidRequest, NotFound
from service.core.views import TaskView
from service.core.why import Why
from service.dashboard.forms import Entered, errors_by_field
from service.dashboard.parameters import entered_of, parameters_of, read_request
from service.dashboard.snippets import curl_snippet, python_snippet
from service.dashboard.visit import Visit
from service.providers.base import Model
from service.sandbox.faults import FAULTS
from service.web.bodies import decode_body
from service.web.calls import Answer, find_header
from service.web.creating import resolve_model
from service.web.tasks import CreateTask, check_task

DEPTH = 3
"""Errors are named by places such as `input.options.seed`."""


async def show(visit: Visit) -> Answer:
    """Filled from the task that was made last, so that its address can be kept and shared."""
    task = await _find_task(visit)
    if task is None:
        return await _render(visit, visit.query, {})
    return await _render(visit, entered_of(task), {}, task=task)


async def preview(visit: Visit) -> Answer:
    """The form again for what is entered so far, with what the API would say to it."""
    errors: dict[str, str] = {}
    if visit.form.get("input.prompt", "").strip():
        errors = await _check(visit)
    return await _render(visit, visit.form, errors)


async def submit(visit: Visit) -> Answer:
    try:
        task = await visit.ask("POST /v1/tasks", TaskView, body=_request(visit, visit.form))
    except InvalidRequest as problem:
        return await _render(visit, visit.form, errors_by_field(problem, DEPTH), status=422)
    return visit.redirect(f"/playground?task={task.id}")


async def _check(visit: Visit) -> dict[str, str]:
    body = msgspec.json.encode(_request(visit, visit.form))
    try:
        await check_task(visit.web, decode_body(body, msgspec.json.Decoder(CreateTask)))
    except InvalidRequest as problem:
        return errors_by_field(problem, DEPTH)
    return {}


async def _find_task(visit: Visit) -> TaskView | None:
    """None too when it is gone by now, or may not be seen."""
    task_id = visit.query.get("task", "")
    if not task_id or not visit.may("tasks:read"):
        return None
    try:
        return await visit.ask("GET /v1/tasks/{id}", TaskView, id=task_id)
    except NotFound:
        return None


def _request(visit: Visit, entered: Entered) -> dict[str, Any]:
    name = entered.get("model", "")
    return read_request(_find_model(visit, name), name, entered)


def _find_model(visit: Visit, name: str) -> Model | None:
    try:
        return resolve_model(visit.web.providers, name)[1]
    except InvalidRequest:
        return None


async def _render(
    visit: Visit, entered: Entered, errors: dict[str, str], *, task: TaskView | None = None, status: int = 200
) -> Answer:
    usable = _usable(visit)
    first = next((f"{name}/{models[0].name}" for name, models in usable.items()), "")
    filled = {"model": first, **{name: value for name, value in entered.items() if value}}
    model = _find_model(visit, filled["model"])
    request = _request(visit, filled)
    why = await visit.ask("GET /v1/tasks/{id}/why", Why, id=task.id) if task else None
    return visit.render(
        "playground.html",
        status,
        usable=usable,
        entered=filled,
        errors=errors,
        parameters=parameters_of(model) if model else [],
        task=task,
        why=why,
        curl=curl_snippet(_origin(visit), request),
        python=python_snippet(_origin(visit), request),
        magic=FAULTS if visit.site.sandbox else {},
    )


def _origin(visit: Visit) -> str:
    """Where this service is reached, as far as it knows."""
    host = visit.site.public_host or find_header(visit.scope, b"host") or ""
    return f"{'https' if visit.site.is_secure(visit.scope) else 'http'}://{host}{visit.site.prefix}"


def _usable(visit: Visit) -> dict[str, tuple[Model, ...]]:
    """The models of each provider that is configured."""
    found = visit.web.providers
    return {name: one.provider.capabilities.models for name, one in found.items() if one.is_configured}
