"""Group commit: many changes, one transaction, and an answer to each caller only after it is durable.

There is no timer: what arrives while one transaction runs is the next one. A queue that is full makes callers wait.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from service.core.change import Change
from service.core.env import Env
from service.core.problems import Problem, Unavailable
from service.core.task import Task
from service.store.batch import Batch, Keys, Subscribers
from service.store.bus import Bus
from service.store.driver import Contended, Driver

T = TypeVar("T")
BATCH_MAX = 128
QUEUE_MAX = 4_096
QUEUE_PATIENCE_S = 5.0
TRIES = 4
"""Of a transaction that others were in the way of. The later ones lock early, so one of those that meet gets on."""


class _Ask(Generic[T]):
    """One caller's wish and the future it waits on."""

    def __init__(self, keys: Keys | None, work: Callable[[Batch], T | Awaitable[T]]) -> None:
        self.keys = keys
        self.work = work
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.answer: T | None = None
        self.problem: Exception | None = None

    def resolve(self, problem: Exception | None = None) -> None:
        problem = self.problem or problem
        if self.done.done():
            return
        if problem is not None:
            self.done.set_exception(problem)
        else:
            self.done.set_result(self.answer)  # type: ignore[arg-type]


class Writer:
    """The only way to write. Values it gives back are durable."""

    def __init__(self, driver: Driver, bus: Bus, env: Env) -> None:
        self._driver = driver
        self._bus = bus
        self._env = env
        self._subscribers = Subscribers()
        self._queue: asyncio.Queue[_Ask[Any] | None] = asyncio.Queue(QUEUE_MAX)
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="writer")

    async def stop(self) -> None:
        """Writes what waits, then ends."""
        if self._loop is not None:
            await self._queue.put(None)
            await self._loop
            self._loop = None

    async def change(self, keys: Keys, decide: Callable[[Batch], Change]) -> Change:
        """Decides on the newest values of what the keys name. What `decide` raises reaches this caller alone."""
        return await self._ask(_Ask(keys, lambda batch: batch.apply(decide(batch))))

    async def change_task(self, task_id: str, decide: Callable[[Task], Change]) -> Change:
        return await self.change(Keys(tasks=(task_id,)), lambda batch: decide(batch.task(task_id)))

    async def run(self, work: Callable[[Batch], Awaitable[T]]) -> T:
        """Statements of the caller's own, in the same transaction as everything else that waits."""
        return await self._ask(_Ask(None, work))

    async def _ask(self, ask: _Ask[T]) -> T:
        if self._loop is None:
            raise Unavailable("The service is stopping.")
        try:
            async with asyncio.timeout(QUEUE_PATIENCE_S):
                await self._queue.put(ask)
        except TimeoutError:
            raise Unavailable("Too much is waiting to be written.", cause="queue full") from None
        return await ask.done

    async def _run(self) -> None:
        while (first := await self._queue.get()) is not None:
            batch, ended = self._gather(first)
            await self._commit_all(batch)
            if ended:
                break

    def _gather(self, first: _Ask[Any]) -> tuple[list[_Ask[Any]], bool]:
        asks = [first]
        while len(asks) < BATCH_MAX and not self._queue.empty():
            ask = self._queue.get_nowait()
            if ask is None:
                return asks, True
            asks.append(ask)
        return asks, False

    async def _commit_all(self, asks: list[_Ask[Any]]) -> None:
        """Together; when that fails for another reason than the machine's, each alone: one can't fail the rest."""
        try:
            await self._commit_again(asks)
        except Exception as problem:
            if len(asks) == 1 or (isinstance(problem, Unavailable) and not isinstance(problem, Contended)):
                _resolve(asks, problem)
                return
            for ask in asks:
                await self._commit_all([ask])

    async def _commit_again(self, asks: list[_Ask[Any]]) -> None:
        """Nothing was written when others were in the way, so what is decided next time counts alone."""
        for left in reversed(range(TRIES)):
            try:
                return await self._commit(asks, patient=left < TRIES - 1)
            except Contended:
                if not left:
                    raise

    async def _commit(self, asks: list[_Ask[Any]], *, patient: bool) -> None:
        for ask in asks:
            ask.problem = None
        try:
            async with self._driver.transaction() as session:
                batch = Batch(session, self._driver, self._env, self._subscribers, patient=patient)
                await _work(asks, batch)
                await self._driver.notify(session, batch.topics)
        except BaseException:
            self._subscribers.version = -1  # it may have read what was just taken back
            raise
        _resolve(asks)
        self._bus.ring(batch.topics)


async def _work(asks: list[_Ask[Any]], batch: Batch) -> None:
    """What waits for rows comes before what takes rows nobody has (claims); events, which all want, come last."""
    await batch.load(ask.keys for ask in asks if ask.keys is not None)
    for ask in asks:
        if ask.keys is not None:
            _decide(ask, batch)
    await batch.flush()
    for ask in asks:
        if ask.keys is None:
            ask.answer = await ask.work(batch)
            await batch.flush()
    await batch.publish()


def _decide(ask: _Ask[Any], batch: Batch) -> None:
    """A decision that refuses has changed nothing, so the others go on."""
    try:
        ask.answer = ask.work(batch)
    except Problem as problem:
        ask.problem = problem


def _resolve(asks: list[_Ask[Any]], problem: Exception | None = None) -> None:
    for ask in asks:
        ask.resolve(problem)
