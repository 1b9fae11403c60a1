"""Reads of single things, together: all that is asked for while one read is under way is the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextvars import Context
from itertools import islice
from typing import Generic, TypeVar

from service.core.problems import Unavailable
from service.store.driver import Contended

V = TypeVar("V")
READ_MAX = 50
"""Keys of one read. After each of them others have their turn, at the database and in this process."""
PATIENCE_S = 5.0


class Gathered(Generic[V]):
    """Few statements, however many ask at once. Each begins after it was asked for, so it sees what was committed."""

    def __init__(
        self, read: Callable[[Collection[str]], Awaitable[Mapping[str, V]]], wait_s: float = PATIENCE_S
    ) -> None:
        self._wait_s = wait_s
        self._read = read
        self._asked: dict[asyncio.Future[V], str] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key: str) -> V:
        """For a read that finds something for every key. Raises Unavailable when it takes too long."""
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self.ask(key, answer)
        try:
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError:
            raise _too_slow() from None

    def ask(self, key: str, answer: asyncio.Future[V]) -> None:
        """Where the read finds nothing, the answer stays open and may be asked for again; twice at once is once."""
        self._asked[answer] = key
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="gathered reads", context=Context())

    async def _read_all(self) -> None:
        while self._asked:
            taken = {answer: self._asked.pop(answer) for answer in list(islice(self._asked, READ_MAX))}
            await self._answer({answer: taken[answer] for answer in _open(taken)})
            await asyncio.sleep(0)  # else this would have the connection again before those who wait for one
        self._reading = None

    async def _answer(self, asked: Mapping[asyncio.Future[V], str]) -> None:
        try:
            async with asyncio.timeout(self._wait_s):  # one that hangs would hold up all who ask after it
                found = await self._find(set(asked.values()))
        except Exception as problem:
            for answer in _open(asked):
                answer.set_exception(_too_slow() if isinstance(problem, TimeoutError) else problem)
        else:
            for answer in _open(asked):
                if asked[answer] in found:
                    answer.set_result(found[asked[answer]])

    async def _find(self, keys: Collection[str]) -> Mapping[str, V]:
        """Once more where the connection broke: all who asked would hear of it."""
        try:
            return await self._read(keys)
        except Contended:
            return await self._read(keys)


def _too_slow() -> Unavailable:
    return Unavailable("Too much is being read.", cause="reads take long")


def _open(asked: Iterable[asyncio.Future[V]]) -> list[asyncio.Future[V]]:
    """Without those of callers that are gone."""
    return [answer for answer in asked if not answer.done()]
