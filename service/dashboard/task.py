"""The page of a task: state and reason, timeline, result, and actions."""

from functools import partial
from typing import Any

import msgspec

from service.core.delivery import Endpoint
from service.core.problems import Conflict
from service.core.views import DeliveryView, TaskView, view_task
from service.core.why import FAILURES, Why
from service.dashboard.pages import between
from service.dashboard.story import draw, tell
from service.dashboard.visit import Visit
from service.large_bodies import read_apart
from service.web.calls import Answer
from service.web.deliveries import DeliveryList
from service.web.events import EventList
from service.web.tasks import Timeline

ONE = "/v1/tasks/{id}"
LISTED_MAX = 50


async def show(visit: Visit) -> Answer:
    task_id = visit.path_id("task")
    task = await visit.ask(f"GET {ONE}", TaskView, id=task_id)
    items = (await visit.ask(f"GET {ONE}/timeline", Timeline, id=task_id)).data
    events = await visit.ask("GET /v1/events", EventList, query={"task_id": task_id, "limit": LISTED_MAX})
    is_final = task.finished_at is not None
    size = len(msgspec.json.encode(task.input)) + sum(len(bytes(event.data)) for event in events.data)
    render = partial(
        visit.render,
        "task.html",
        task=task,
        why=await visit.ask(f"GET {ONE}/why", Why, id=task_id),
        story=tell(items),
        picture=draw(items, visit.now, is_final=is_final) if items else None,
        events=events.data,
        deliveries=await _deliveries(visit, task_id),
        endpoints=await _endpoints(visit),
        is_final=is_final,
        explained=FAILURES[task.error.code] if task.error else None,
        took=between(task.created_at, task.finished_at) if task.finished_at else None,
        can_poll=task.status == "running" and _polls(visit, task),
        once=visit.site.new_secret(),
    )
    return await read_apart(size, render)


async def _deliveries(visit: Visit, task_id: str) -> list[DeliveryView]:
    if not visit.may("endpoints"):
        return []
    return (await visit.ask("GET /v1/deliveries", DeliveryList, query={"task_id": task_id, "limit": LISTED_MAX})).data


async def _endpoints(visit: Visit) -> dict[str, Endpoint]:
    """By id, for those who may see them."""
    if not visit.may("endpoints"):
        return {}
    return {endpoint.id: endpoint for endpoint in await visit.web.store.reads.list_endpoints()}


def _polls(visit: Visit, task: TaskView) -> bool:
    access = visit.web.providers.get(task.provider)
    return access is not None and task.account in access.accounts and access.policy.polling


async def cancel(visit: Visit) -> Answer:
    task = await visit.ask(f"POST {ONE}/cancel", TaskView, id=visit.path_id("task"))
    return visit.redirect(f"/tasks/{task.id}", "The task is canceled.")


async def poll(visit: Visit) -> Answer:
    task = await visit.ask(f"POST {ONE}/poll", TaskView, id=visit.path_id("task"))
    return visit.redirect(f"/tasks/{task.id}", "The provider is asked now.")


async def erase(visit: Visit) -> Answer:
    task_id = visit.path_id("task")
    await visit.ask(f"DELETE {ONE}", type(None), id=task_id)
    return visit.redirect(f"/tasks/{task_id}", "The prompt, the result and all payloads are erased.")


async def submit_again(visit: Visit) -> Answer:
    """A new task with the same input. The form's own key makes it one, however often it is sent."""
    old = view_task(await visit.web.store.reads.get_task(visit.path_id("task")))
    if old.erased_at:
        raise Conflict("The task is erased, so its input is not known any more.")
    key = visit.form.get("once", "") or visit.site.new_secret()
    headers = ((b"idempotency-key", f"dashboard-{key}".encode("ascii", "replace")[:255]),)
    new = await visit.ask("POST /v1/tasks", TaskView, body=_again(old), headers=headers)
    return visit.redirect(f"/tasks/{new.id}", "A new task with the same input is on its way.")


def _again(old: TaskView) -> dict[str, Any]:
    return {
        "model": f"{old.provider}/{old.model}",
        "input": old.input,
        "metadata": old.metadata,
        "timeout_s": max(1.0, between(old.created_at, old.deadline_at)),
    }


async def retry_delivery(visit: Visit) -> Answer:
    task_id = visit.path_id("task")
    await visit.ask("POST /v1/deliveries/{id}/retry", DeliveryView, id=visit.form.get("delivery", ""))
    return visit.redirect(f"/tasks/{task_id}", "The delivery is tried now.")
