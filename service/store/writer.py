"""Group commit: many changes, one transaction, and an answer to each caller only after it is durable.

There is no timer: what arrives while one transaction runs is the next one. When the queue is full or the database is
away, callers hear it at once: nobody waits for what may not come.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from service.core.change import Change
from service.core.env import Env
from service.core.fault import Fault
from service.core.problems import Problem, Unavailable
from service.core.task import Task
from service.core.times import to_ms
from service.store.batch import Batch, Keys, Subscribers
from service.store.bus import Bus
from service.store.driver import Contended, Driver, Session

T = TypeVar("T")
BATCH_MAX = 128
QUEUE_MAX = 4_096
CHECK_S = 2.0
CHECK_PATIENCE_S = 2.0
_CHECK = "insert into checks (name, at_ms) values ('write', ?) on conflict (name) do update set at_ms = excluded.at_ms"
TRIES = 4
"""Of a transaction that others were in the way of. The later ones lock early, so one of those that meet gets on."""


class _Ask(Generic[T]):
    """A pending write and the future its caller waits on."""

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


class Along(Protocol):
    """Claims work in the transaction that makes it due, which saves a transaction."""

    topic: str

    def reserve(self) -> int:
        """Return how much it can take; called before the transaction."""
        ...

    async def claim(self, batch: Batch, free: int) -> Any: ...

    def settle(self, free: int, claimed: Any) -> None:
        """After the commit, with what it claimed; with None when it did not, or when all was taken back."""
        ...


class _Seat:
    """A participant of a transaction, with its reservation."""

    def __init__(self, one: Along) -> None:
        self.one = one
        self.free = one.reserve()
        self.claimed: Any = None


class Writer:
    """The only way to write. Values it gives back are durable; `on_finished` hears of each task that ended, once."""

    def __init__(
        self,
        driver: Driver,
        bus: Bus,
        env: Env,
        on_finished: Callable[[Task], None] = lambda task: None,
        on_fault: Callable[[Fault], None] = lambda fault: None,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._driver = driver
        self._bus = bus
        self._env = env
        self._on_finished = on_finished
        self._on_fault = on_fault
        self._along: list[Along] = []
        self._subscribers = Subscribers()
        self._queue: asyncio.Queue[_Ask[Any] | None] = asyncio.Queue(queue_max)
        self._loop: asyncio.Task[None] | None = None
        self._checking = asyncio.Lock()
        self._checked_at = self._wrote_at = float("-inf")
        self._failure: Unavailable | None = None

    def start(self) -> None:
        self._loop = asyncio.create_task(self._run(), name="writer")

    async def stop(self) -> None:
        """Writes what waits, then ends; who asks from now on is refused, since nobody would come to it."""
        loop, self._loop = self._loop, None
        if loop is not None:
            await self._queue.put(None)
            await loop

    def take_along(self, one: Along) -> None:
        self._along.append(one)

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
            self._queue.put_nowait(ask)
        except asyncio.QueueFull:
            raise Unavailable("Too much is waiting to be written.", retry_after_s=1, cause="queue full") from None
        return await ask.done

    async def scrub(self) -> None:
        """Remove erased text from the database's files."""
        await self._driver.scrub()

    async def check(self) -> None:
        """Raises Unavailable when nothing can be written now; tries it when nothing was written lately."""
        async with self._checking:
            now = self._env.monotonic()
            if now - self._wrote_at < CHECK_S:
                return
            if now - self._checked_at >= CHECK_S:
                self._failure = await self._try_to_write()
                self._checked_at = self._env.monotonic()
            if self._failure is not None:
                raise self._failure

    async def _try_to_write(self) -> Unavailable | None:
        async def work(batch: Batch) -> int:
            return await batch.session.execute(_CHECK, (to_ms(self._env.now()),))

        try:
            async with asyncio.timeout(CHECK_PATIENCE_S):
                await self.run(work)
        except TimeoutError:
            return Unavailable("The database does not answer in time.", cause="slow")
        except Unavailable as problem:
            return problem
        return None

    async def _run(self) -> None:
        while (first := await self._queue.get()) is not None:
            batch, ended = self._gather(first)
            await self._commit_all(batch, self._along)
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

    async def _commit_all(self, asks: list[_Ask[Any]], along: Sequence[Along]) -> None:
        """Together; when that fails for another reason than the machine's, with nobody along, and then each alone."""
        try:
            await self._commit_again(asks, along)
        except Exception as problem:
            if isinstance(problem, Unavailable) and not isinstance(problem, Contended):
                self._failure, self._checked_at, self._wrote_at = problem, self._env.monotonic(), float("-inf")
                _resolve(asks + self._take_waiting(), problem)
                return
            if along:
                await self._commit_all(asks, ())
            elif len(asks) == 1:
                _resolve(asks, problem)
            else:
                for ask in asks:
                    await self._commit_all([ask], ())

    def _take_waiting(self) -> list[_Ask[Any]]:
        """Return all waiting writes, which would fail in the same way, one slow transaction after the other."""
        asks: list[_Ask[Any]] = []
        while not self._queue.empty():
            ask = self._queue.get_nowait()
            if ask is None:
                self._queue.put_nowait(None)
                break
            asks.append(ask)
        return asks

    async def _commit_again(self, asks: list[_Ask[Any]], along: Sequence[Along]) -> None:
        """Nothing was written when others were in the way, so what is decided next time counts alone."""
        for left in reversed(range(TRIES)):
            try:
                return await self._commit(asks, [_Seat(one) for one in along], patient=left < TRIES - 1)
            except Contended:
                if not left:
                    raise

    async def _commit(self, asks: list[_Ask[Any]], seats: list[_Seat], *, patient: bool) -> None:
        for ask in asks:
            ask.problem = None

        async def work(session: Session) -> Batch:
            batch = Batch(session, self._driver, self._env, self._subscribers, patient=patient)
            await _work(asks, batch)
            await _take_along(seats, batch)
            await self._driver.notify(session, batch.topics)
            return batch

        try:
            batch = await self._driver.write(work)
        except BaseException:
            self._subscribers.version = -1  # it may have read what was just taken back
            for seat in seats:
                seat.one.settle(seat.free, None)
            raise
        self._wrote_at = self._env.monotonic()
        _resolve(asks)
        for seat in seats:
            seat.one.settle(seat.free, seat.claimed)
        self._bus.ring(batch.topics)
        with suppress(Exception):  # it is committed: nothing that is only told may have it done again
            self._tell(batch)

    def _tell(self, batch: Batch) -> None:
        for task in batch.finished:
            self._on_finished(task)
        for fault in batch.faults:
            self._on_fault(fault)


async def _work(asks: list[_Ask[Any]], batch: Batch) -> None:
    """Run row locks first, then claims of free rows, then events, which every transaction needs."""
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


async def _take_along(seats: list[_Seat], batch: Batch) -> None:
    """Let participants claim what became due; claimed work needs no notification."""
    taking = [seat for seat in seats if seat.free and seat.one.topic in batch.topics]
    for seat in taking:
        seat.claimed = await seat.one.claim(batch, seat.free)
        batch.topics.discard(seat.one.topic)
    if taking:
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
