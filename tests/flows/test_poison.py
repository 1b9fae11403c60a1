"""A row that work fails on, in a running service: put aside, shown, and taken up again; all others go on."""

from typing import Any

import pytest

from tests.flows.conftest import World
from tests.support.api import new_prompt, ok
from tests.support.service import MOVABLE, Service
from tests.support.tables import statement
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("poison")]

MODEL = "fluxapi-ai/flux-kontext-pro"


async def faults(service: Service) -> dict[str, dict[str, Any]]:
    return {fault["id"]: fault for fault in ok(await service.client.get("/v1/faults"))["data"]}


async def test_broken_rows_are_parked_shown_and_retried_while_others_are_worked_on(world: World) -> None:
    fake = world.fluxapi_ai
    fake.script_rest(callback="success")
    service = await world.start({"TASKHOOK_FLUXAPI_AI_BASE_URL": fake.server.url}, timings=MOVABLE)
    subscriber = world.receiver.subscriber("whole")
    broken = await service.api.endpoint(world.receiver.subscriber("broken").url)
    await service.api.endpoint(subscriber.url)
    await service.kill()
    endpoint_doc = (await statement(service, "select doc from endpoints where id = ?", broken["id"]))[0][0]
    await statement(service, "update endpoints set doc = '{' where id = ?", broken["id"])
    await service.restart()
    stopped = await _queued(service, world)
    task_doc = (await statement(service, "select doc from tasks where id = ?", stopped))[0][0]
    await statement(service, "update tasks set doc = 'no document', due_ms = 0 where id = ?", stopped)
    await fake.server.listen()
    good = [(await service.api.submit(MODEL, new_prompt()))["id"] for _ in range(5)]
    for task_id in good:
        assert (await service.api.finished(task_id))["status"] == "succeeded"
    await until(lambda: {one.task_id for one in subscriber.received} >= set(good))

    async def parked() -> bool:
        service.pass_time(1)
        found = await faults(service)
        return all(found.get(row_id, {}).get("parked_at") for row_id in (stopped, broken["id"]))

    await until(parked, what="both parked")
    ready = await service.client.get("/readyz")
    assert ready.status_code == 200 and "Parked" in ready.json()["checks"]["faults"]["note"]
    assert "taskhook_parked_rows 2.0" in (await service.client.get("/metrics")).text
    assert max(log.count("fault.noted") for log in service.logs()) <= 8
    await statement(service, "update tasks set doc = ? where id = ?", task_doc, stopped)
    await statement(service, "update endpoints set doc = ? where id = ?", endpoint_doc, broken["id"])
    for row_id in (stopped, broken["id"]):
        assert (await service.client.post(f"/v1/faults/{row_id}/retry")).status_code == 202
    assert (await service.api.finished(stopped))["status"] == "succeeded"
    assert await faults(service) == {}
    assert (await service.client.post(f"/v1/faults/{stopped}/retry")).status_code == 404
    await service.close()


async def _queued(service: Service, world: World) -> str:
    """A task that waits for its provider to come back."""
    await world.fluxapi_ai.server.close()
    task = await service.api.submit(MODEL, new_prompt(), timeout_s=7200)
    await service.api.not_sent(task["id"])
    return str(task["id"])
