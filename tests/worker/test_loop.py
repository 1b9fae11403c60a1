"""A lane: claims, runs within its limit, sleeps until due or rung, takes along what others make due, drains."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from service.core.problems import Unavailable
from service.core.times import after
from service.store.batch import Batch
from service.store.bus import Bus
from service.store.driver import Session
from service.store.writer import Writer
from service.telemetry import Metrics
from service.worker import loop
from service.worker.loop import Claimed, Lane
from tests.support.env import FakeEnv
from tests.support.wait import PATIENCE_S, soon, until

TOPIC = "test"


class NoStore:
    """A database for work that keeps its own accounts: it has no rows, and its transactions can be held up."""

    for_update = ""

    def __init__(self) -> None:
        self.transactions = 0
        self.commits = asyncio.Event()
        self.commits.set()

    async def write(self, work: Callable[[Session], Coroutine[Any, Any, Any]]) -> Any:
        self.transactions += 1
        answer = await work(None)  # type: ignore[arg-type]
        await self.commits.wait()
        return answer

    async def notify(self, session: Session, topics: object) -> None:
        pass


class FakeWork:
    """Hands out what was put into it; holds what runs until it is let go."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.begun: list[int] = []
        self.most_at_once = 0
        self.let_go = asyncio.Event()
        self.failures: list[Exception] = []
        self.next_due_at: datetime | None = None
        self.looks = self.claims = 0
        self._now = 0

    async def find_next_due(self) -> datetime | None:
        self.looks += 1
        if self.failures:
            raise self.failures.pop()
        return FakeEnv().now() if self.waiting else self.next_due_at

    async def claim(self, batch: Batch, free: int) -> Claimed[int]:
        self.claims += 1
        taken, self.waiting = self.waiting[:free], self.waiting[free:]
        return Claimed(items=taken, next_due_at=self.next_due_at, is_short=bool(self.waiting))

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


class Turning:
    """A lane that turns, and everything around it."""

    def __init__(self, work: FakeWork, limit: int) -> None:
        self.bus, env, self.store = Bus(), FakeEnv(), NoStore()
        self.writer = Writer(self.store, self.bus, env)  # type: ignore[arg-type]
        self.lane: Lane[int] = Lane(
            "test", work, limit=limit, topic=TOPIC, writer=self.writer, bus=self.bus, env=env, metrics=Metrics()
        )

    async def make_due(self, work: FakeWork, *items: int) -> None:
        """As a transaction of somebody else does."""

        async def ask(batch: Batch) -> None:
            work.waiting += items
            batch.topics.add(TOPIC)

        await self.writer.run(ask)


@asynccontextmanager
async def turning(work: FakeWork, limit: int = 10, *, along: bool = False) -> AsyncIterator[Turning]:
    made = Turning(work, limit)
    if along:
        made.writer.take_along(made.lane)
    made.writer.start()
    task = asyncio.create_task(made.lane.run())
    await until(lambda: work.looks)
    yield made
    await made.lane.stop(1)
    await task
    await made.writer.stop()


async def test_the_bell_makes_it_look_again() -> None:
    work = FakeWork()
    work.let_go.set()
    async with turning(work) as made:
        work.waiting = [1, 2]
        made.bus.ring([TOPIC])
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
    async with turning(work) as made:
        await until(lambda: len(work.begun) == 2)
        work.waiting = [2]
        made.bus.ring([TOPIC])
        await until(lambda: 2 in work.begun)


async def test_a_look_that_fails_is_tried_again() -> None:
    work = FakeWork()
    work.let_go.set()
    work.failures = [Unavailable("away"), ZeroDivisionError()]
    work.waiting = [1]
    async with turning(work):
        await until(lambda: work.begun == [1])


async def test_stopping_waits_for_what_runs_and_claims_no_more() -> None:
    work = FakeWork()
    work.waiting = [1]
    async with turning(work) as made:
        await until(lambda: work.begun == [1])
        stopping = asyncio.create_task(made.lane.stop(PATIENCE_S))
        work.waiting = [2]
        made.bus.ring([TOPIC])
        work.let_go.set()
        assert await stopping == 0
    assert work.begun == [1]


@pytest.fixture(params=["by itself", "along"])
def along(request: pytest.FixtureRequest) -> Iterator[bool]:
    yield request.param == "along"


async def test_what_a_claim_took_while_stopping_is_still_done(along: bool) -> None:
    work = FakeWork()
    work.let_go.set()
    async with turning(work, along=along) as made:
        made.store.commits.clear()
        making = asyncio.create_task(made.make_due(work, 1))
        if not along:
            made.store.commits.set()
            await making
            made.store.commits.clear()
        await until(lambda: work.claims == 1)
        stopping = asyncio.create_task(made.lane.stop(PATIENCE_S))
        await asyncio.sleep(0)
        assert not stopping.done()
        made.store.commits.set()
        assert await stopping == 0
        assert work.begun == [1]
        await making


async def test_a_claim_that_never_answers_holds_no_stop_up() -> None:
    work = FakeWork()
    async with turning(work) as made:
        made.store.commits.clear()
        work.waiting = [1]
        made.bus.ring([TOPIC])
        await until(lambda: work.claims == 1)
        assert await made.lane.stop(0.01) == 0
        made.store.commits.set()


async def test_what_takes_longer_than_the_grace_is_cut_off() -> None:
    work = FakeWork()
    work.waiting = [1]
    async with turning(work) as made:
        await until(lambda: work.begun == [1])
        assert await made.lane.stop(0.01) == 1


async def test_what_can_not_be_handed_back_is_left_to_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "HAND_BACK_S", 0.05)
    work, tries = FakeWork(), 0

    async def run(item: int) -> None:
        nonlocal tries
        work.begun.append(item)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            while True:
                tries += 1
                await asyncio.sleep(0.01)

    work.run = run  # type: ignore[method-assign]
    work.waiting = [1]
    async with turning(work) as made:
        await until(lambda: work.begun == [1])
        assert await soon(made.lane.stop(0.01)) == 1
    assert tries > 1


async def test_it_sleeps_until_the_next_is_due() -> None:
    work = FakeWork()
    work.let_go.set()
    work.next_due_at = after(FakeEnv().now(), 0.05)
    async with turning(work):
        await until(lambda: work.looks >= 3)


async def test_what_a_transaction_makes_due_is_taken_in_it_without_a_look_or_a_transaction_more() -> None:
    work = FakeWork()
    work.let_go.set()
    async with turning(work, along=True) as made:
        await made.make_due(work, 1, 2)
        await until(lambda: work.begun == [1, 2])
        assert (work.looks, work.claims, made.store.transactions) == (1, 1, 1)


async def test_what_was_taken_back_with_its_transaction_is_not_begun() -> None:
    work = FakeWork()
    work.let_go.set()
    async with turning(work, along=True) as made:

        async def fail(session: Session, topics: object) -> None:
            raise Unavailable("The disk is full.")

        made.store.notify, notify = fail, made.store.notify  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await made.make_due(work, 1)
        assert work.claims == 1
        made.store.notify = notify  # type: ignore[method-assign]
        await made.make_due(work, 2)
        await until(lambda: work.begun == [2])


async def test_a_claim_along_that_fails_leaves_the_others_their_transaction() -> None:
    work = FakeWork()
    work.let_go.set()
    claim = work.claim

    async def fail(batch: Batch, free: int) -> Claimed[int]:
        work.claim = claim  # type: ignore[method-assign]
        raise ZeroDivisionError

    async with turning(work, along=True) as made:
        work.claim = fail  # type: ignore[method-assign]
        await made.make_due(work, 1)
        await until(lambda: 1 in work.begun)


async def test_while_one_transaction_follows_another_it_still_looks_for_what_is_due_by_itself() -> None:
    work = FakeWork()
    async with turning(work, limit=2, along=True) as made:
        made.store.commits.clear()
        making = asyncio.create_task(made.make_due(work))
        await until(lambda: made.store.transactions == 1)
        made.bus.ring([TOPIC])
        await until(lambda: work.looks == 2)
        made.store.commits.set()
        await making


async def test_no_more_are_taken_along_than_its_limit() -> None:
    work = FakeWork()
    async with turning(work, limit=3, along=True) as made:
        await made.make_due(work, *range(10))
        await until(lambda: len(work.begun) == 3)
        await made.make_due(work, *range(10, 20))
        work.let_go.set()
        await until(lambda: len(work.begun) == 20)
    assert work.most_at_once == 3
