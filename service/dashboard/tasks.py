"""The list of tasks: one box to search, two selects, the newest first."""

import msgspec

from service.core.ids import created_at
from service.core.problems import NotFound
from service.core.task import STATUSES
from service.core.views import TaskView, view_task
from service.dashboard.search import Asked, read_search
from service.dashboard.visit import Visit
from service.store.queries import TaskFilter
from service.web.calls import Answer
from service.web.queries import encode_cursor, read_id_cursor

LIMIT = 25
FILTERS = ("q", "status", "provider")


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the list; `looked` is how many tasks a search in prompts went through, None for any other list."""

    tasks: list[TaskView]
    last: str | None = None
    looked: int | None = None

    @property
    def cursor(self) -> str | None:
        return encode_cursor(self.last)

    @property
    def back_to(self) -> str | None:
        """Return the time from which a search continues."""
        return None if self.last is None else created_at(self.last).isoformat()


async def show(visit: Visit) -> Answer:
    given = {name: visit.query.get(name, "") for name in FILTERS}
    asked = read_search(given["q"], visit.web.providers, given["status"], given["provider"])
    if asked.task_id is not None and asked.task_id in given["q"] and not asked.words:
        found = await _find_one(visit, asked.task_id)
        if found.tasks and given["q"].strip() in (asked.task_id, f"id:{asked.task_id}"):
            return visit.redirect(f"/tasks/{asked.task_id}")
    else:
        found = await _find(visit, asked, read_id_cursor(visit.query.get("cursor"), "task"))
    return visit.render(
        "tasks.html",
        listed=found,
        asked=asked,
        given=given,
        is_first="cursor" not in visit.query,
        is_narrowed=any(given.values()),
        statuses=STATUSES,
    )


async def _find_one(visit: Visit, task_id: str) -> Listed:
    try:
        return Listed(tasks=[view_task(await visit.web.store.reads.get_task(task_id))])
    except NotFound:
        return Listed(tasks=[])


async def _find(visit: Visit, asked: Asked, before: str | None) -> Listed:
    reads = visit.web.store.reads
    if asked.lone_word is not None and before is None:
        page = await reads.list_tasks(TaskFilter(provider_task_id=asked.lone_word), LIMIT, None)
        if page.items:
            return Listed(tasks=[view_task(task) for task in page.items])
    if asked.words:
        search = await reads.search_tasks(asked.filter, asked.words, LIMIT, before)
        return Listed(tasks=[view_task(task) for task in search.items], last=search.last, looked=search.looked)
    page = await reads.list_tasks(asked.filter, LIMIT, before)
    return Listed(tasks=[view_task(task) for task in page.items], last=page.last)
