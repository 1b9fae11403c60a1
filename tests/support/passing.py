"""Let the time of a service pass that a task needs, and no more: from one due time to the next."""

import time
from typing import Any

from tests.support.api import FINAL
from tests.support.service import Service
from tests.support.tables import statement
from tests.support.wait import until

REST_S = 1.0
"""Passes at each look while the task is due and its account rests."""


async def ended(service: Service, task_id: str) -> dict[str, Any]:
    """The task once it is final."""

    async def final() -> dict[str, Any] | None:
        task = await service.api.task(task_id)
        if task["status"] in FINAL:
            return task
        service.pass_time(await _next_s(service, task_id))
        return None

    found: dict[str, Any] = await until(final, what=f"{task_id} final")
    return found


async def _next_s(service: Service, task_id: str) -> float:
    """Until the task is due; a little when it is due already, so that a slow machine can keep up."""
    assert service.clock is not None
    ((due_ms,),) = await statement(service, "select due_ms from tasks where id = ?", task_id)
    wait_s = (due_ms or 0) / 1000 - time.time() - service.clock.ahead_s
    return max(wait_s, REST_S)
