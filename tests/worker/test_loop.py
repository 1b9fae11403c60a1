"""A lane: claims, runs within its limit, sleeps until due or rung, drains."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from service.core.problems import Unavailable
from service.core.times import after
from service.store.bus import Bus
from service.telemetry import Metrics
from service.worker.loop import Lane
from tests.support.env import FakeEnv
from tests.support.wait import until


class FakeWork:
    """Hands out what was put into it; holds what runs until it is let go."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.begun: list[int] = []
        self.most_at_once = 0
        self.let_go = asyncio.Event()
        self.claimed = asyncio.Event()
        self.claimed.set()
        self.failures: list[Exception] = []
        self.next_due_at: datetime | None = None
        self.claims = 0
        self._now = 0

    async def claim(self, free: int) -> tuple[list[int], datetime | None]:
        self.claims += 1
        if self.failures:
            raise self.failures.pop()
        taken, self.waiting = self.waiting[:free], self.waiting[free:]
        await self.claimed.wait()
        return taken, self.next_due_at

    async def run(self, item: int) -> datetime | None:
        self.begun.append(item)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            await self.let_go.wait()
            if item < 0:
                raise ZeroDivisionError
        finally:
            self._now -= 1
        return None


@asynccontextmanager
async def turning(work: FakeWork, limit: int = 10) -> AsyncIterator[tuple[Lane[int], Bus]]:
    bus, env = Bus(), FakeEnv()
    lane: Lane[int] = Lane("test", work, limit=limit, topic="test", bus=bus, env=env, metrics=Metrics())
    task = asyncio.create_task(lane.run())
    yield lane, bus
    await lane.stop(1)
    await task


async def test_the_bell_makes_it_look_again() -> None:
    work = FakeWork()
    work.let_go.set()
    async with turning(work) as (_, bus):
        await until(lambda: work.claims == 1)
        work.waiting = [1, 2]
        bus.ring(["test"])
        await until(lambda: work.begun == [1, 2])


async def test_no_more_run_at_once_than_its_limit() -> None:
    work = FakeWork()
    work.waiting = list(range(20))
    async with turning(work, limit=3):
        await until(lambda: len(work.begun) == 3)
        work.let_go.set()
        await until(lambda: len(work.begun) == 20)
    assert work.most_at_once == 3


async def test_one_that_fails_stops_no_other() -> None:
    work = FakeWork()
    work.let_go.set()
    work.waiting = [-1, 1]
    async with turning(work) as (_, bus):
        await until(lambda: len(work.begun) == 2)
        work.waiting = [2]
        bus.ring(["test"])
        await until(lambda: 2 in work.begun)


async def test_a_claim_that_fails_is_tried_again() -> None:
    work = FakeWork()
    work.let_go.set()
    work.failures = [Unavailable("away"), ZeroDivisionError()]
    work.waiting = [1]
    async with turning(work):
        await until(lambda: work.begun == [1], timeout=5)


async def test_stopping_waits_for_what_runs_and_claims_no_more() -> None:
    work = FakeWork()
    work.waiting = [1]
    async with turning(work) as (lane, bus):
        await until(lambda: work.begun == [1])
        stopping = asyncio.create_task(lane.stop(5))
        work.waiting = [2]
        bus.ring(["test"])
        work.let_go.set()
        assert await stopping == 0
    assert work.begun == [1]


async def test_what_a_claim_took_while_stopping_is_still_done() -> None:
    work = FakeWork()
    work.let_go.set()
    work.waiting = [1]
    work.claimed.clear()
    async with turning(work) as (lane, _):
        await until(lambda: work.claims == 1)
        stopping = asyncio.create_task(lane.stop(5))
        await asyncio.sleep(0)
        assert not stopping.done()
        work.claimed.set()
        assert await stopping == 0
        assert work.begun == [1]


async def test_a_claim_that_never_answers_holds_no_stop_up() -> None:
    work = FakeWork()
    work.claimed.clear()
    async with turning(work) as (lane, _):
        await until(lambda: work.claims == 1)
        assert await lane.stop(0.01) == 0
        work.claimed.set()


async def test_what_takes_longer_than_the_grace_is_cut_off() -> None:
    work = FakeWork()
    work.waiting = [1]
    async with turning(work) as (lane, _):
        await until(lambda: work.begun == [1])
        assert await lane.stop(0.01) == 1


async def test_it_sleeps_until_the_next_is_due() -> None:
    work = FakeWork()
    work.let_go.set()
    work.next_due_at = after(FakeEnv().now(), 0.05)
    async with turning(work):
        await until(lambda: work.claims >= 3)
