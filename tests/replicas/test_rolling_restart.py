"""A new version rolled out: each replica is stopped and started in turn while requests come in."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.flows.conftest import World
from tests.replicas.load import TIMES, check_ends, check_told, followed
from tests.support.api import new_prompt
from tests.support.replicas import Replicas
from tests.support.service import Stopped
from tests.support.wait import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("replicas rolling"),
    pytest.mark.timeout(300),
]

MODELS = ("fluxapi-ai/flux-kontext-pro", "acedata/flux-dev", "flux-context/flux-kontext-pro", "fluxapi-org/flux-dev")
CALLERS = 2


class Callers:
    """They post tasks, one after the other, and never again: whatever is not a 202 is a failure."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self.accepted: list[str] = []
        self.failed: list[object] = []
        self.stopped = False

    async def post(self) -> None:
        while not self.stopped:
            model = MODELS[len(self.accepted) % len(MODELS)]
            try:
                reply = await self._replicas.api.post_task(model, new_prompt())
            except httpx.TransportError as error:
                self.failed.append(error)
                continue
            if reply.status_code == 202:
                self.accepted.append(reply.json()["id"])
            else:
                self.failed.append(reply.text)
            await asyncio.sleep(0.1)


async def all_ended(replicas: Replicas) -> bool:
    return not any([await replicas.api.pages("/v1/tasks", status=state, limit=100) for state in ("queued", "running")])


async def test_a_rolling_restart_under_load_fails_no_request_and_loses_nothing(world: World) -> None:
    replicas = await world.replicas({"TASKHOOK_CALLBACK_GRACE_S": "5"}).start()
    for fake in world.fakes.values():
        fake.script_rest(**({"callback": "success", "callback_delay": 0.2} if fake.has_callbacks else {}))
    world.flux_context.script_rest(poll=["running", "success"])
    subscriber = world.receiver.subscriber("rolling")
    await replicas.api.endpoint(subscriber.url, max_in_flight=50)
    async with followed(replicas, 4) as followers:
        callers, stops = await roll(replicas)
        await until(lambda: all_ended(replicas), what="every task ended")
        await check_ends(replicas, set(callers.accepted), "succeeded")
        await check_told(followers, [event["id"] for event in await replicas.api.events()])
    await until(lambda: {one.task_id for one in subscriber.received} >= set(callers.accepted), what="every event")
    plans = [plan for fake in world.fakes.values() for plan in fake.plans.values()]
    callbacks = Counter(answer.status for plan in plans for answer in plan.callback_answers)
    repeated = len(subscriber.received) - len({one.id for one in subscriber.received})
    slowest = max(stop.seconds for stop in stops)
    print(f"{len(stops)} restarts, {len(callers.accepted)} tasks, callbacks {dict(callbacks)}; failed requests:")
    print(f"{len(callers.failed)}; deliveries made twice: {repeated}; the slowest stop took {slowest:.1f} s")
    assert callers.failed == []
    assert callbacks.keys() == {200}
    assert {len(plan.submits) for plan in plans} == {1}
    assert repeated == 0, "nothing was cut off, so nothing is explained by at-least-once"
    assert {stop.code for stop in stops} == {0}
    assert not any("service.cut_off" in log for log in replicas.logs()), "a stop took too long"


async def roll(replicas: Replicas) -> tuple[Callers, list[Stopped]]:
    """Each replica in turn, while callers go on; what they met, and how each stopped."""
    callers, stops = Callers(replicas), []
    posting = [asyncio.create_task(callers.post()) for _ in range(CALLERS)]
    for one in replicas.all * TIMES:
        seen = len(callers.accepted)
        await until(lambda seen=seen: len(callers.accepted) > seen + 10, what="some requests")
        stops.append(await one.terminate())
        await one.start()
    callers.stopped = True
    await asyncio.gather(*posting)
    return callers, stops
