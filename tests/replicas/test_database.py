"""The database restarts, cuts its connections, or is replaced by its standby, while callbacks come in."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.replicas.load import TIMES, Callbacks, becomes, pids_of, still_the_same
from tests.support.postgres import Server, Standby, command, make_synchronous, shared_server
from tests.support.proxy import Proxy
from tests.support.replicas import Replicas
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("replicas database")]

ENV = {"TASKHOOK_CALLBACK_GRACE_S": "600"}
AWAY_S = 2.0 * TIMES
CUT = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name like 'taskhook%' and pid <> pg_backend_pid()
"""
CUT_WAITING = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name = 'taskhook writer' and wait_event = 'SyncRep'
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(world: World) -> AsyncIterator[Replicas]:
    yield await world.replicas(ENV).start()


async def test_a_database_that_restarts_is_told_as_503_and_everything_heals_by_itself(
    world: World, replicas: Replicas
) -> None:
    server, load, pids = shared_server(), Callbacks(replicas, world.fluxapi_ai), pids_of(replicas)
    await load.prepare(60 * TIMES)
    async with load.sent():
        await load.taken_again()
        await asyncio.to_thread(server.stop)
        gone_at = time.monotonic()
        await becomes(replicas, 503)
        await until(lambda: time.monotonic() - gone_at > AWAY_S and len(load.refused) > 10, AWAY_S + 20)
        assert (await replicas.client.get("/v1/tasks")).status_code == 503
        await asyncio.to_thread(server.start)
        back_at = time.monotonic()
        await load.taken_again(1)
        taken_after_s = time.monotonic() - back_at
        await becomes(replicas, 200)
        healed_after_s = time.monotonic() - back_at
        await until(lambda: load.taken == load.plans.keys(), 60, "every callback taken")
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)
    print(
        f"away {back_at - gone_at:.1f} s, {len(load.refused)} callbacks refused, the first taken {taken_after_s:.2f} s"
    )
    print(f"and both webs ready {healed_after_s:.2f} s after the return")


async def test_connections_that_are_cut_again_and_again_lose_no_answer(world: World, replicas: Replicas) -> None:
    load, pids = Callbacks(replicas, world.acedata), pids_of(replicas)
    await load.prepare(60 * TIMES)
    async with load.sent():
        for _ in range(5 * TIMES):
            await load.taken_again(5)
            await command(shared_server(), CUT)
        await load.taken_again()
        await until(lambda: load.taken == load.plans.keys(), 60, "every callback taken")
    await becomes(replicas, 200)
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)


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


@pytest_asyncio.fixture(loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    primary = Server(shared_server().binaries)
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


async def test_what_was_answered_before_a_failover_is_there_after_it(world: World, pair: Pair) -> None:
    replicas = await world.replicas(ENV, server=pair.primary, through=pair.address).start()
    load, pids = Callbacks(replicas, world.fluxapi_ai), pids_of(replicas)
    await load.prepare(80 * TIMES)
    async with load.sent():
        await until(lambda: len(load.taken) > 30, 30, "some taken before")
        took_s = await pair.fail_over()
        before, at = len(load.taken), time.monotonic()
        await load.taken_again(1)
        first_s = time.monotonic() - at
        await until(lambda: load.taken == load.plans.keys(), 60, "every callback taken")
    await becomes(replicas, 200)
    load.check_refusals()
    await load.check()
    assert still_the_same(replicas, pids)
    print(f"{before} taken before; the failover took {took_s:.2f} s, the next was taken {first_s:.2f} s after it")
    await replicas.close()


async def test_a_callback_that_no_standby_has_is_not_answered_200(world: World, pair: Pair) -> None:
    """Its commit is on the primary, where a failover would leave it behind."""
    replicas = await world.replicas(ENV, server=pair.primary, through=pair.address).start()
    load = Callbacks(replicas, world.fluxapi_ai)
    await load.prepare(2)
    lost, kept = load.plans
    assert (await load.send(kept)).status == 200
    await pair.stop_standby()
    waiting = asyncio.create_task(load.send(lost))
    await until(lambda: cut_waiting(pair.primary), 10, "a commit that waits for the standby, cut off")
    assert (await waiting).status == 503
    await pair.address.stop()
    await asyncio.to_thread(pair.primary.stop, signal.SIGQUIT)
    await pair.start_standby()
    assert await final_in(pair.standby, replicas) == {kept}


async def cut_waiting(server: Server) -> int:
    connection = await asyncpg.connect(server.url())
    try:
        return len(await connection.fetch(CUT_WAITING))
    finally:
        await connection.close()


async def final_in(server: Server, replicas: Replicas) -> set[str]:
    """The tasks that a standby knows to have ended."""
    name = replicas.env["TASKHOOK_DATABASE_URL"].rpartition("/")[2]
    connection = await asyncpg.connect(server.url(name))
    try:
        return {row[0] for row in await connection.fetch("select id from tasks where step = 'done'")}
    finally:
        await connection.close()
