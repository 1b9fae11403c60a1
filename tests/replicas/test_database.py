"""The database restarts, cuts its connections, loses its standby, or is replaced by it, while callbacks come in."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.replicas.load import TIMES, Callbacks, becomes, pids_of, still_the_same
from tests.support.api import new_prompt
from tests.support.postgres import Server, Standby, command, make_synchronous, new_server
from tests.support.proxy import Proxy
from tests.support.replicas import Replicas
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("replicas database")]

ENV = {"TASKHOOK_CALLBACK_GRACE_S": "600"}
AWAY_S = 1.5 if TIMES == 1 else 30.0
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name like 'taskhook%' and pid <> pg_backend_pid()
"""
CUT_WAITING = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = 'taskhook writer' and wait_event = 'SyncRep'
"""


class Pair:
    """A primary with a standby that every commit waits for, both behind the address that the service knows."""

    def __init__(self, primary: Server, standby: Standby, address: Proxy) -> None:
        self.primary = primary
        self.standby = standby
        self.address = address

    async def fail_over(self) -> float:
        """The primary crashes, its standby takes over; how long that took without us."""
        begun = time.monotonic()
        await asyncio.to_thread(self.primary.stop, signal.SIGQUIT)
        await self.standby.promote()
        self.address.point_to(self.standby.port)
        return time.monotonic() - begun

    async def stop_standby(self) -> None:
        await asyncio.to_thread(self.standby.stop, signal.SIGQUIT)

    async def start_standby(self) -> None:
        await asyncio.to_thread(self.standby.start)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    primary = await asyncio.to_thread(new_server)
    await asyncio.to_thread(primary.start)
    standby = await asyncio.to_thread(Standby, primary)
    try:
        await asyncio.to_thread(standby.start)
        await make_synchronous(primary)
        async with Proxy([primary.port]) as address:
            yield Pair(primary, standby, address)
    finally:
        standby.remove()
        primary.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(world: World, pair: Pair) -> AsyncIterator[Replicas]:
    yield await world.replicas(ENV, server=pair.primary, through=pair.address).start()


async def submitted(world: World, replicas: Replicas) -> float:
    """A task is posted until it is taken; how long until its provider has it, which needs a web and a worker."""
    plan, begun = world.fluxapi_ai.script(new_prompt()), time.monotonic()

    async def taken() -> bool:
        reply = await replicas.api.post_task("fluxapi-ai/flux-kontext-pro", plan.prompt, key=plan.prompt)
        return reply.status_code in (200, 202)

    await until(taken, what="a task taken")
    await until(lambda: plan.submits, what="the task at its provider")
    assert len(plan.submits) == 1
    return time.monotonic() - begun


async def test_a_database_that_restarts_is_told_as_503_and_everything_heals_by_itself(
    world: World, replicas: Replicas, pair: Pair
) -> None:
    load, pids = Callbacks(replicas, world.fluxapi_ai), pids_of(replicas)
    await load.prepare(40 * TIMES)
    async with load.sent():
        await load.taken_again()
        await asyncio.to_thread(pair.primary.stop)
        gone_at = time.monotonic()
        await becomes(replicas, 503)
        red_s = time.monotonic() - gone_at
        await until(lambda: time.monotonic() - gone_at > AWAY_S and len(load.refused) > 10, AWAY_S + PATIENCE_S)
        assert (await replicas.client.get("/v1/tasks")).status_code == 503
        await asyncio.to_thread(pair.primary.start)
        back_at = time.monotonic()
        _, task_s = await asyncio.gather(becomes(replicas, 200), submitted(world, replicas))
        await load.taken_again(1)
        taken_s = min(at for at in load.times if at > back_at) - back_at
        await until(lambda: load.taken == load.plans.keys(), what="every callback taken")
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)
    print(f"away {back_at - gone_at:.1f} s, {len(load.refused)} callbacks refused, red after {red_s:.2f} s;")
    print(f"back: the first callback taken after {taken_s:.2f} s, a new task at its provider after {task_s:.2f} s")


async def test_connections_that_are_cut_again_and_again_lose_no_answer(
    world: World, replicas: Replicas, pair: Pair
) -> None:
    """By the server, and in between: there nobody says goodbye."""
    load, pids = Callbacks(replicas, world.acedata), pids_of(replicas)
    await load.prepare(40 * TIMES)
    begun, cuts = time.monotonic(), 6 * TIMES
    async with load.sent():
        for number in range(cuts):
            await load.taken_again(5)
            if number % 2:
                pair.address.cut()
            else:
                await command(pair.primary, CUT)
        await load.taken_again()
        await until(lambda: load.taken == load.plans.keys(), what="every callback taken")
    await becomes(replicas, 200)
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)
    print(f"{cuts} cuts: {len(load.refused)} of {len(load.times)} callbacks refused,")
    print(f"none taken for {load.longest_gap_s(begun):.2f} s at most")


async def test_a_callback_that_no_standby_has_is_not_answered_200(world: World, replicas: Replicas, pair: Pair) -> None:
    """Its commit is on the primary, where a failover would leave it behind."""
    load = Callbacks(replicas, world.fluxapi_ai)
    await load.prepare(1)
    (task_id,) = load.plans
    await pair.stop_standby()
    waiting = asyncio.create_task(load.send(task_id))
    await until(lambda: cut_waiting(pair.primary), what="a commit that waits for the standby, cut off")
    assert (await waiting).status == 503
    assert await has_ended(pair.primary, replicas, task_id)
    await pair.start_standby()
    begun = time.monotonic()
    await until(lambda: taken(load, task_id), what="the callback taken")
    print(f"taken {time.monotonic() - begun:.2f} s after the standby was there again")
    await load.check()


async def taken(load: Callbacks, task_id: str) -> bool:
    return (await load.send(task_id)).status == 200


async def cut_waiting(server: Server) -> int:
    connection = await asyncpg.connect(server.url())
    try:
        return len(await connection.fetch(CUT_WAITING))
    finally:
        await connection.close()


async def has_ended(server: Server, replicas: Replicas, task_id: str) -> bool:
    """Return whether the task has ended according to this server alone."""
    name = replicas.env["TASKHOOK_DATABASE_URL"].rpartition("/")[2]
    connection = await asyncpg.connect(server.url(name))
    try:
        return bool(await connection.fetchval("select step = 'done' from tasks where id = $1", task_id))
    finally:
        await connection.close()


async def test_what_was_answered_before_a_failover_is_there_after_it(
    world: World, replicas: Replicas, pair: Pair
) -> None:
    """The last one here: from now on the standby is the primary."""
    load, pids = Callbacks(replicas, world.fluxapi_ai), pids_of(replicas)
    await load.prepare(50 * TIMES)
    async with load.sent():
        await until(lambda: len(load.taken) > 20, what="some taken before")
        took_s = await pair.fail_over()
        before, at = len(load.taken), time.monotonic()
        task_s = await submitted(world, replicas)
        await load.taken_again(1)
        first_s = min(one for one in load.times if one > at) - at
        await until(lambda: load.taken == load.plans.keys(), what="every callback taken")
    await becomes(replicas, 200)
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)
    print(f"{before} taken before; the failover took {took_s:.2f} s, {len(load.refused)} callbacks refused;")
    print(f"after it the first was taken in {first_s:.2f} s, a new task at its provider in {task_s:.2f} s")
