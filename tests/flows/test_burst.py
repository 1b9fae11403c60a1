"""Many tasks at once: all of them end, and every event arrives."""

import asyncio
from collections import Counter

import pytest

from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("burst")]

MODELS = ["flux-context/flux-kontext-pro", "fluxapi-ai/flux-kontext-pro", "acedata/flux-dev", "fluxapi-org/flux-dev"]
TASKS = 400
SETTINGS = ["FLUX_CONTEXT", "FLUXAPI_AI", "ACEDATA", "FLUXAPI_ORG"]


async def test_hundreds_of_tasks_at_once_end_in_the_sandbox_and_their_events_arrive(world: World) -> None:
    limits = {f"TASKHOOK_{name}_SUBMITS_PER_S": "500" for name in SETTINGS}
    limits |= {f"TASKHOOK_{name}_MAX_IN_FLIGHT": "1000" for name in SETTINGS}
    service = world.service({"TASKHOOK_SANDBOX": "true", "TASKHOOK_CALLBACK_GRACE_S": "5", **limits})
    try:
        await service.start()
        subscriber = world.receiver.subscriber("hundreds")
        endpoint = await service.api.endpoint(subscriber.url, max_in_flight=50)
        gate = asyncio.Semaphore(100)

        async def submit(number: int) -> str:
            async with gate:
                return (await service.api.submit(MODELS[number % 4], new_prompt("one of hundreds")))["id"]

        ids = set(await asyncio.gather(*(submit(number) for number in range(TASKS))))
        assert len(ids) == TASKS
        await until(lambda: len({one.task_id for one in subscriber.received}) == TASKS, 240, "an event for each task")
        tasks = await service.api.pages("/v1/tasks", limit=100)
        assert {task["id"] for task in tasks} == ids
        states = Counter(task["status"] for task in tasks)
        assert set(states) <= FINAL
        assert states["succeeded"] == TASKS, (states, [task["error"] for task in tasks if task["error"]][:3])
        stored = await service.api.finals()
        assert Counter(event["data"]["id"] for event in stored) == Counter(ids)
        assert {one.id for one in subscriber.received} == {event["id"] for event in stored}
        for one in subscriber.received[::50]:
            one.verify(endpoint["secret"])
        assert (await service.client.get("/readyz")).status_code == 200
    finally:
        await service.close()


async def test_a_burst_is_spread_over_the_accounts_limits_and_none_of_it_fails(world: World) -> None:
    """This provider names five submits a second; the setting says twenty."""
    fake = world.acedata
    service = await world.start({"TASKHOOK_ACEDATA_SUBMITS_PER_S": "20"})
    fake.script_rest(callback="success", callback_delay=0.1)
    tasks = await asyncio.gather(*(service.api.submit("acedata/flux-dev", new_prompt()) for _ in range(80)))
    ended = await asyncio.gather(*(service.api.finished(task["id"], wait=5) for task in tasks))
    assert {task["status"] for task in ended} == {"succeeded"}
    times = sorted(request.at for request in fake.submits)
    assert len(times) == 80
    assert 2.5 < times[-1] - times[0] < 15, "80 submits at 20 a second"
    # A machine that stalls for a moment brings the arrivals of two windows together; without a limit all 80 are.
    assert max(sum(1 for at in times if start <= at < start + 1) for start in times) <= 2 * 20


async def test_no_more_tasks_are_in_flight_than_the_account_allows(world: World) -> None:
    fake = world.fluxapi_ai
    service = await world.start({"TASKHOOK_FLUXAPI_AI_MAX_IN_FLIGHT": "4", "TASKHOOK_CALLBACK_GRACE_S": "30"})
    model = "fluxapi-ai/flux-kontext-pro"
    tasks = await asyncio.gather(*(service.api.submit(model, new_prompt()) for _ in range(12)))
    for ended in range(12):
        await until(lambda done=ended: len(fake.jobs) > done, what="a next submit")
        assert len(fake.jobs) - ended <= 4
        assert (await fake.callback(list(fake.jobs.values())[ended])).status == 200
    states = {(await service.api.finished(task["id"]))["status"] for task in tasks}
    assert states == {"succeeded"}
    assert len(fake.submits) == 12
