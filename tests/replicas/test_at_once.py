"""The same asked of both webs at once, taken by both workers at once, and a web that dies while clients hang on it."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.replicas.load import TIMES, check_ends, check_told, followed, running
from tests.support.api import FINAL, Api, new_prompt
from tests.support.replicas import Replicas
from tests.support.upstream import FakeProvider, Plan
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("replicas at once")]

MODEL = "fluxapi-ai/flux-kontext-pro"
ENV = {"TASKHOOK_CALLBACK_GRACE_S": "600"}
EARLY_S = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0, -0.01)
"""Before the deadline."""
AHEAD_S = 0.01
"""Of the cancels, or of the callbacks."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(world: World) -> AsyncIterator[Replicas]:
    yield await world.replicas(ENV).start()


async def test_fifty_equal_callbacks_over_both_webs_are_all_answered_and_are_one_event(
    world: World, replicas: Replicas
) -> None:
    task_id, plan = await running(replicas, world.fluxapi_ai)
    before = [web.log().count("callback.accepted") for web in replicas.webs]
    answers = await asyncio.gather(*(world.fluxapi_ai.callback(plan.job) for _ in range(50)))
    assert [answer.status for answer in answers] == [200] * 50
    await check_ends(replicas, {task_id}, "succeeded")
    assert (await replicas.api.task(task_id))["tracking"]["callbacks"] == 50
    shares = [web.log().count("callback.accepted") - was for web, was in zip(replicas.webs, before, strict=True)]
    assert sum(shares) == 50 and min(shares) > 10, shares


async def test_a_hundred_posts_with_one_key_over_both_webs_are_one_task_and_one_submit(
    world: World, replicas: Replicas
) -> None:
    plan = world.fluxapi_ai.script(new_prompt())
    replies = await asyncio.gather(*(replicas.api.post_task(MODEL, plan.prompt, key="hundred") for _ in range(100)))
    assert sorted(reply.status_code for reply in replies) == [200] * 99 + [202]
    (task_id,) = {reply.json()["id"] for reply in replies}
    await replicas.api.accepted(task_id)
    assert len(plan.submits) == 1
    assert all("replayed" in web.log() for web in replicas.webs)


async def test_two_workers_that_claim_at_once_submit_and_deliver_each_task_once(
    world: World, replicas: Replicas
) -> None:
    fake, count = world.fluxapi_ai, 130 * TIMES  # more than one takes at a time
    before = [log.count("task.submitted") for log in replicas.logs()[2:]]
    subscriber = world.receiver.subscriber("each")
    endpoint = await replicas.api.endpoint(subscriber.url, max_in_flight=50)
    plans = [fake.script(new_prompt(), callback="success", callback_tries=10) for _ in range(count)]
    for worker in replicas.workers:
        worker.freeze()
    try:
        made = await asyncio.gather(*(replicas.api.submit(MODEL, plan.prompt) for plan in plans))
    finally:
        for worker in replicas.workers:
            worker.thaw()
    await until(lambda: len(subscriber.received) >= count, what="every event")
    await check_ends(replicas, {task["id"] for task in made}, "succeeded")
    assert {len(plan.submits) for plan in plans} == {1}
    assert len({one.id for one in subscriber.received}) == len(subscriber.received) == count
    shares = [log.count("task.submitted") - was for log, was in zip(replicas.logs()[2:], before, strict=True)]
    print(f"submitted by each worker: {shares}")
    assert min(shares) > 0, "one did it all, so nothing was tested"
    await replicas.client.delete(f"/v1/endpoints/{endpoint['id']}")


async def test_callback_poll_deadline_and_cancel_at_the_same_instant_leave_one_end_and_one_event(
    world: World, replicas: Replicas
) -> None:
    """The last poll is made at the deadline; callbacks and cancels over both webs come around the same moment."""
    fake = world.acedata
    found = await asyncio.gather(*(running(replicas, fake, timeout_s=4) for _ in range(24 * TIMES)))
    for _, plan in found[::3]:  # their last poll says nothing, so that it is the deadline that ends them
        plan.polls[0] = "running"

    async def race(number: int, task_id: str, plan: Plan) -> None:
        ends_at = datetime.fromisoformat((await replicas.api.task(task_id))["deadline_at"])
        early_s = EARLY_S[number // 2 % len(EARLY_S)]
        await asyncio.sleep((ends_at - datetime.now(UTC)).total_seconds() - early_s)
        cancels = [web.client.post(f"/v1/tasks/{task_id}/cancel") for web in replicas.webs]
        callbacks = [fake.callback(plan.job, outcome) for outcome in ("success", "failed")]
        first, then = (callbacks, cancels) if number % 2 else (cancels, callbacks)
        begun = [asyncio.ensure_future(one) for one in first]
        await asyncio.sleep(AHEAD_S)
        answers: list[Any] = await asyncio.gather(*begun, *then)
        assert Counter(getattr(one, "status", None) or one.status_code for one in answers).keys() <= {200, 409}
        assert [one.status for one in answers if hasattr(one, "status")] == [200, 200]

    await asyncio.gather(*(race(number, *one) for number, one in enumerate(found)))
    finals = await check_ends(replicas, {task_id for task_id, _ in found})
    winners = Counter(event["data"]["tracking"]["via"] for event in finals)
    print(f"ended by: {dict(winners)}")
    assert len(winners) > 1, "one always won, so nothing was tested"
    for task_id, _ in found:
        lines = Counter(line["type"] for line in await replicas.api.timeline(task_id))
        assert sum(lines[f"task.{state}"] for state in FINAL) == 1, lines
        assert sum(count for kind, count in lines.items() if kind.startswith("callback.")) == 2, lines


async def test_streams_and_waits_of_a_killed_web_go_on_at_the_other_without_a_gap_or_a_repeat(
    world: World, replicas: Replicas
) -> None:
    """Events are committed by both webs at once all the time, so that their transactions overtake each other."""
    fake, count = world.fluxapi_ai, 80 * TIMES
    found = await asyncio.gather(*(running(replicas, fake) for _ in range(count)))
    before = len(await replicas.api.events())
    async with followed(replicas, 12) as followers:
        waiting = [asyncio.create_task(waited(replicas, task_id)) for task_id, _ in found[-12:]]
        ending = asyncio.create_task(end_all(replicas, fake, found))
        await until(lambda: any(len(one.ids) > count // 4 for one in followers), what="a part of the events")
        await replicas.webs[0].kill()
        killed_at = time.monotonic()
        await ending
        await replicas.webs[0].start()
        last = await replicas.api.submit(MODEL, new_prompt())
        await replicas.client.post(f"/v1/tasks/{last['id']}/cancel")
        told = [event["id"] for event in await replicas.api.events()][before:]
        assert len(told) == count + 1
        assert {task["status"] for task in await asyncio.gather(*waiting)} <= FINAL
        await check_told(followers, told)
    again = [at - killed_at for one in followers for at in one.opened[1:]]
    print(f"{len(told)} events to 12 clients: no gap, no repeat; {len(again)} reconnected, {max(again):.2f} s at most")
    assert len(again) >= 3, "hardly anybody was on the web that died"


async def waited(replicas: Replicas, task_id: str) -> dict[str, Any]:
    """A long poll, asked again when its web dies over it."""
    while True:
        with suppress(httpx.TransportError):
            reply = await replicas.client.get(f"/v1/tasks/{task_id}", params={"wait": 30})
            if reply.status_code == 200 and reply.json()["status"] in FINAL:
                return dict(reply.json())
        await asyncio.sleep(0.05)


async def end_all(replicas: Replicas, fake: FakeProvider, found: list[tuple[str, Plan]]) -> None:
    """By callbacks and cancels in turn, some at once over both webs, each again until it was answered."""
    api, gate = Api(replicas.client), asyncio.Semaphore(8)

    async def end(number: int, task_id: str, plan: Plan) -> None:
        async with gate:
            while True:
                with suppress(httpx.TransportError):
                    if number % 2:
                        status = (await fake.callback(plan.job)).status
                    else:
                        status = (await api.client.post(f"/v1/tasks/{task_id}/cancel")).status_code
                    if status == 200:
                        return
                await asyncio.sleep(0.05)

    await asyncio.gather(*itertools.starmap(end, ((number, *one) for number, one in enumerate(found))))
