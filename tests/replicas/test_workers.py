"""Two workers: one dies, stands still longer than its lease, or loses the database; and limits hold over both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from service.core.breaker import REST_FIRST_S
from tests.flows.conftest import World
from tests.replicas.load import check_ends
from tests.support.api import new_prompt
from tests.support.postgres import shared_server
from tests.support.proxy import Proxy
from tests.support.receiver import status
from tests.support.replicas import Replicas
from tests.support.server import Hang, Reply
from tests.support.service import MOVABLE, Service
from tests.support.upstream import accept, answer, hang
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("replicas workers")]

MODEL = "fluxapi-ai/flux-kontext-pro"
LEASES_S = 150
"""Longer than any lease."""
LIMIT = 10
"""Submits a second of one account."""
FLYING = 4
"""Tasks in flight of another."""
ENV = {
    "TASKHOOK_CALLBACK_GRACE_S": "600",
    "TASKHOOK_ACEDATA_SUBMITS_PER_S": str(LIMIT),
    "TASKHOOK_FLUX_CONTEXT_MAX_IN_FLIGHT": str(FLYING),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cables() -> AsyncIterator[list[Proxy]]:
    """Between each worker and the database."""
    port = shared_server().port
    async with Proxy([port]) as one, Proxy([port]) as other:
        yield [one, other]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(world: World, cables: list[Proxy]) -> AsyncIterator[Replicas]:
    made = world.replicas(ENV, timings=MOVABLE)
    url = made.env["TASKHOOK_DATABASE_URL"]
    for worker, cable in zip(made.workers, cables, strict=True):
        worker.env["TASKHOOK_DATABASE_URL"] = url.replace(f":{cable.ports[0]}/", f":{cable.port}/")
    yield await made.start()


@asynccontextmanager
async def alone(replicas: Replicas) -> AsyncIterator[Service]:
    """The first worker, while the second stands still and takes nothing."""
    first, second = replicas.workers
    second.freeze()
    try:
        yield first
    finally:
        second.thaw()


async def has_line(replicas: Replicas, task_id: str, kind: str) -> None:
    async def there() -> bool:
        return any(line["type"] == kind for line in await replicas.api.timeline(task_id))

    await until(there, what=f"{kind} in the timeline of {task_id}")


async def test_what_a_killed_worker_held_is_taken_over_by_the_other(world: World, replicas: Replicas) -> None:
    fake, api = world.fluxapi_ai, replicas.api
    subscriber = world.receiver.subscriber("held", [Hang()])
    endpoint = await api.endpoint(subscriber.url)
    sending = fake.script(new_prompt(), submit=[hang(accepted=True)])
    delivered = fake.script(new_prompt(), callback="success")
    async with alone(replicas) as first:
        unanswered = await api.submit(MODEL, sending.prompt)
        done = await api.submit(MODEL, delivered.prompt)
        await until(lambda: sending.jobs and subscriber.in_flight == 1)
        await first.kill()
        untouched = [(await api.submit(MODEL, new_prompt()))["id"] for _ in range(3)]
    await asyncio.gather(*(api.accepted(task_id) for task_id in untouched))
    assert len(subscriber.of(done["id"])) == 1, "sent again before its lease expired"
    replicas.pass_time(LEASES_S)
    await until(lambda: len(subscriber.of(done["id"])) == 2, what="the event a second time")
    await has_line(replicas, unanswered["id"], "submit.unconfirmed")
    assert (await fake.callback(sending.job)).status == 200
    assert len({one.id for one in subscriber.of(done["id"])}) == 1
    await check_ends(replicas, {unanswered["id"], done["id"]}, "succeeded")
    assert (len(sending.submits), len(delivered.submits)) == (1, 1)
    await replicas.client.delete(f"/v1/endpoints/{endpoint['id']}")
    await first.start()


async def test_a_worker_that_stood_still_adds_the_acceptance_it_heard_too_late(
    world: World, replicas: Replicas
) -> None:
    plan = world.fluxapi_ai.script(new_prompt(), submit=[accept(0.5)])
    async with alone(replicas) as first:
        task = await replicas.api.submit(MODEL, plan.prompt)
        await until(lambda: plan.submits)
        first.freeze()
    replicas.pass_time(LEASES_S)
    try:
        await has_line(replicas, task["id"], "submit.unconfirmed")
    finally:
        first.thaw()
    accepted = await replicas.api.accepted(task["id"])
    assert (accepted["status"], accepted["provider_task_id"]) == ("running", plan.job.id)
    assert len(plan.submits) == 1


async def test_a_worker_that_stood_still_takes_back_nothing_of_what_the_other_did(
    world: World, replicas: Replicas
) -> None:
    """Its submit was refused for a moment, which it reads only after the other has sent the task again."""
    refused = answer(Reply(429, {"code": 429, "msg": "Too many requests", "data": None}, delay=0.5))
    plan = world.fluxapi_ai.script(new_prompt(), submit=[refused, accept(1.0)])
    async with alone(replicas) as first:
        task = await replicas.api.submit(MODEL, plan.prompt, on_unconfirmed="resubmit")
        await until(lambda: plan.submits)
        first.freeze()
    replicas.pass_time(LEASES_S)
    try:
        await has_line(replicas, task["id"], "submit.unconfirmed")
        replicas.pass_time(LEASES_S)
        await until(lambda: len(plan.submits) == 2, what="sent again by the other")
    finally:
        first.thaw()
    await has_line(replicas, task["id"], "submit.overtaken")
    await replicas.api.accepted(task["id"])
    assert (await world.fluxapi_ai.callback(plan.job)).status == 200
    await check_ends(replicas, {task["id"]}, "succeeded")
    assert len(plan.submits) == 2


async def test_a_worker_that_stood_still_over_a_delivery_overwrites_no_success(
    world: World, replicas: Replicas
) -> None:
    fake, api = world.fluxapi_ai, replicas.api
    subscriber = world.receiver.subscriber("slow", [status(500, delay=0.5)])
    endpoint = await api.endpoint(subscriber.url)
    plan = fake.script(new_prompt(), callback="success")
    async with alone(replicas) as first:
        task = await api.submit(MODEL, plan.prompt)
        await until(lambda: subscriber.in_flight == 1)
        first.freeze()
    replicas.pass_time(LEASES_S)
    try:
        await until(lambda: len(subscriber.received) == 2, what="sent again by the other")
        (delivery,) = await until(lambda: api.deliveries(task_id=task["id"], status="succeeded"))
    finally:
        first.thaw()

    async def both_told() -> bool:
        return len((await api.delivery(delivery["id"]))["attempts"]) == 2

    await until(both_told, what="the late attempt written down")
    assert (await api.delivery(delivery["id"]))["status"] == "succeeded"
    assert len(subscriber.received) == 2
    await api.client.delete(f"/v1/endpoints/{endpoint['id']}")


async def test_the_limit_of_submits_holds_over_both_workers(world: World, replicas: Replicas) -> None:
    fake, count = world.acedata, 4 * LIMIT
    plans = [fake.script(new_prompt(), callback="success", callback_tries=10) for _ in range(count)]
    made = await asyncio.gather(*(replicas.api.submit("acedata/flux-dev", plan.prompt) for plan in plans))
    await until(lambda: all(plan.submits for plan in plans), what="every task submitted")
    times = sorted(plan.submits[0].at for plan in plans)
    assert {len(plan.submits) for plan in plans} == {1}
    print(f"{count} submits at {LIMIT} a second took {times[-1] - times[0]:.1f} s")
    assert times[-1] - times[0] > (count / LIMIT - 1) * 0.75, "more than the account allows"  # both: a third of it
    await asyncio.gather(*(replicas.api.finished(task["id"]) for task in made))


async def test_the_limit_of_tasks_in_flight_holds_over_both_workers(world: World, replicas: Replicas) -> None:
    fake, count = world.flux_context, 3 * FLYING
    model = "flux-context/flux-kontext-pro"
    plans = [fake.script(new_prompt(), poll=["running"]) for _ in range(count)]
    made = await asyncio.gather(*(replicas.api.submit(model, plan.prompt) for plan in plans))
    most = 0
    for done in range(count):
        await until(lambda done=done: sum(len(plan.jobs) for plan in plans) > done, what="a next submit")
        most = max(most, sum(len(plan.jobs) for plan in plans) - done)
        running = next(plan for plan in plans if plan.jobs and plan.polls[0] == "running")
        running.polls[0] = "success"
        (task,) = [one for one, plan in zip(made, plans, strict=True) if plan is running]
        await replicas.api.finished(task["id"])
    print(f"at most {most} of {FLYING} in flight")
    assert most == FLYING
    assert {len(plan.submits) for plan in plans} == {1}


async def test_a_circuit_that_one_worker_opened_holds_the_other_back(world: World, replicas: Replicas) -> None:
    fake, model = world.fluxapi_org, "fluxapi-org/flux-dev"
    fake.down = Reply(503, "<html>down</html>")
    asked = [replicas.api.submit(model, new_prompt(), timeout_s=3600) for _ in range(20)]
    ids = [task["id"] for task in await asyncio.gather(*asked)]

    async def opened() -> bool:
        found = (await replicas.client.get("/v1/providers")).json()["data"]
        return next(one for one in found if one["id"] == "fluxapi-org")["circuit"]["state"] == "open"

    await until(opened, what="the circuit open")
    before = len(fake.server.requests)
    replicas.pass_time(2 * REST_FIRST_S)
    await until(lambda: len(fake.server.requests) > before, what="a probe")
    await asyncio.sleep(5 * MOVABLE.look_again_s)  # in which the other would try it, too
    assert len(fake.server.requests) - before == 1
    fake.down = None
    await asyncio.gather(*(replicas.client.post(f"/v1/tasks/{task_id}/cancel") for task_id in ids))


async def test_a_worker_that_is_cut_off_from_the_database_sends_nothing_twice(
    world: World, replicas: Replicas, cables: list[Proxy]
) -> None:
    """It holds a submit whose answer it can't store; the other takes the task over, and it tells it when it can."""
    fake, api = world.fluxapi_ai, replicas.api
    plan, later = fake.script(new_prompt(), submit=[accept(1.0)]), fake.script(new_prompt(), callback="success")
    cable, database = cables[0], cables[0].ports
    async with alone(replicas):
        task = await api.submit(MODEL, plan.prompt)
        await until(lambda: plan.submits)
        cable.point_to()
    try:
        other = await api.submit(MODEL, later.prompt)
        assert (await api.finished(other["id"]))["status"] == "succeeded"
        replicas.pass_time(LEASES_S)
        await has_line(replicas, task["id"], "submit.unconfirmed")
    finally:
        cable.point_to(*database)
    accepted = await api.accepted(task["id"])
    assert accepted["provider_task_id"] == plan.job.id
    assert (len(plan.submits), len(later.submits)) == (1, 1)
