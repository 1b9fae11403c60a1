"""Reads of single things, together: who asks while one is under way is answered by the next."""

import asyncio
from collections.abc import Collection, Mapping

import pytest

from service.core.problems import Unavailable
from service.store.driver import Contended
from service.store.gathered import READ_MAX, Gathered
from tests.support.wait import until


class Slow:
    """A read that waits to be let on; it knows keys of lower case, and what each of its statements asked for."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.may_go_on = asyncio.Semaphore(0)
        self.problems: list[Exception] = []

    async def __call__(self, keys: Collection[str]) -> Mapping[str, str]:
        self.asked.append(set(keys))
        await self.may_go_on.acquire()
        if self.problems:
            raise self.problems.pop()
        return {key: key.upper() for key in keys if key.islower()}

    def go_on(self, times: int = 1) -> None:
        for _ in range(times):
            self.may_go_on.release()


@pytest.fixture
def read() -> Slow:
    return Slow()


@pytest.fixture
def reads(read: Slow) -> Gathered[str]:
    return Gathered(read)


async def test_what_is_asked_for_while_a_read_is_under_way_is_the_next_one(read: Slow, reads: Gathered[str]) -> None:
    first = asyncio.create_task(reads.get("a"))
    await until(lambda: read.asked)
    rest = [asyncio.create_task(reads.get(key)) for key in "abcb"]
    await asyncio.sleep(0)
    read.go_on(2)
    assert await asyncio.gather(first, *rest) == ["A", "A", "B", "C", "B"]
    assert read.asked == [{"a"}, {"a", "b", "c"}]


async def test_no_read_asks_for_more_than_others_can_wait_for(read: Slow, reads: Gathered[str]) -> None:
    keys = [f"k{number}" for number in range(2 * READ_MAX + 1)]
    read.go_on(3)
    assert await asyncio.gather(*map(reads.get, keys)) == [key.upper() for key in keys]
    assert [len(asked) for asked in read.asked] == [READ_MAX, READ_MAX, 1]


async def test_what_is_not_found_may_be_asked_for_again(read: Slow, reads: Gathered[str]) -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    for _ in range(3):
        reads.ask("NOT YET", answer)
    read.go_on()
    await until(lambda: len(read.asked) == 1 and reads._reading is None)
    assert not answer.done()
    reads.ask("now", answer)
    read.go_on()
    assert await answer == "NOW"


async def test_a_failure_reaches_those_who_asked_and_nobody_after_them(read: Slow, reads: Gathered[str]) -> None:
    away = Unavailable("The database can't be used right now.")
    read.problems = [away]
    asked = [asyncio.create_task(reads.get(key)) for key in "ab"]
    read.go_on(2)
    assert await asyncio.gather(*asked, return_exceptions=True) == [away] * 2
    assert await reads.get("a") == "A"


async def test_a_connection_that_broke_under_a_read_fails_nobody(read: Slow, reads: Gathered[str]) -> None:
    read.problems = [Contended("The connection to the database was lost.")]
    read.go_on(2)
    assert await asyncio.gather(reads.get("a"), reads.get("b")) == ["A", "B"]
    assert read.asked == [{"a", "b"}] * 2


async def test_who_leaves_takes_nobody_along(read: Slow, reads: Gathered[str]) -> None:
    leaving, staying = (asyncio.create_task(reads.get("a")) for _ in range(2))
    await until(lambda: read.asked)
    leaving.cancel()
    read.go_on()
    assert await staying == "A"
    assert leaving.cancelled()


async def test_a_read_that_hangs_is_broken_off_and_nobody_waits_long_behind_it(
    read: Slow,
) -> None:
    reads = Gathered(read, wait_s=0.02)
    for key in "ab":
        with pytest.raises(Unavailable):
            await reads.get(key)
    read.go_on()
    assert await Gathered(read).get("c") == "C"
