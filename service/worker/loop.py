"""A worker loop: claim due work, run it within a limit, sleep until more is due or a notification arrives."""

import asyncio
from datetime import datetime
from functools import partial
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog

from service.core.env import Env
from service.core.problems import Unavailable
from service.store.batch import Batch
from service.store.bus import Bell, Bus
from service.store.writer import Writer
from service.telemetry import Metrics

T = TypeVar("T")
log = structlog.get_logger()

LOOK_AGAIN_S = 5.0
"""Without a bell: another process may have written, and a clock may have jumped."""
FAILED_FIRST_S = 0.5
FAILED_MAX_S = 30.0
HAND_BACK_S = 2.0


class Claimed(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Claimed work, and when to look again; None if nothing is due later.

    `is_short`: there is more, which can be taken when one of those that run has ended.
    """

    items: list[T]
    next_due_at: datetime | None
    is_short: bool = False


class Work(Protocol[T]):
    """The work of a worker loop."""

    async def find_next_due(self) -> datetime | None:
        """When the earliest is due; writes nothing."""
        ...

    async def claim(self, batch: Batch, free: int) -> Claimed[T]:
        """Takes what is due, at most that many."""
        ...

    async def run(self, item: T) -> datetime | None:
        """Does one; when it is due again."""
        ...


class Lane(Generic[T]):
    """Runs what its work claims, at most `limit` at a time. What fails in one never stops the others.

    It claims when it is rung and when something is due; the writer may also let it claim in the very transaction that
    made something due, see `reserve`.
    """

    def __init__(
        self,
        name: str,
        work: Work[T],
        *,
        limit: int,
        topic: str,
        writer: Writer,
        bus: Bus,
        env: Env,
        metrics: Metrics,
        look_again_s: float = LOOK_AGAIN_S,
        hand_back_s: float = HAND_BACK_S,
    ) -> None:
        self.name = name
        self.topic = topic
        self._work = work
        self._limit = limit
        self._writer = writer
        self._bus = bus
        self._env = env
        self._metrics = metrics
        self._look_again_s = look_again_s
        self._hand_back_s = hand_back_s
        self._running: set[asyncio.Task[None]] = set()
        self._reserved = 0
        self._is_claiming = False
        self._is_full = False
        self._is_short = False
        self._next_due_at: datetime | None = None
        self._stopping = False
        self._turning: asyncio.Task[None] | None = None
        self._bell = Bell()
        self._failures = 0

    async def run(self) -> None:
        """Until `stop`."""
        self._turning = asyncio.current_task()
        with self._bus.told(self._bell.strike, self.topic):
            while not self._stopping:
                await self._round()
                await self._bell.wait(self._pause_s())
            while self._reserved:
                await self._bell.wait(None)

    async def stop(self, grace_s: float) -> int:
        """Claims no more, waits for what runs, cuts off what takes longer; how many were cut off.

        A claim on its way is waited for, too: what it took is stored as begun, and nobody else would do it.
        """
        self._stopping = True
        clock = asyncio.get_running_loop().time
        ends_at = clock() + grace_s
        self._bell.strike()
        if self._turning:
            await asyncio.wait([self._turning], timeout=grace_s)
        if not self._running:
            return 0
        _, late = await asyncio.wait(self._running, timeout=max(0.0, ends_at - clock()))
        await self._cut_off(late)
        return len(late)

    async def _cut_off(self, late: set[asyncio.Task[None]]) -> None:
        """Each hands back what it holds. Where the database takes nothing, that comes back when its lease is over."""
        for patience_s in (self._hand_back_s, None):
            for task in late:
                task.cancel()
            if late:
                _, late = await asyncio.wait(late, timeout=patience_s)

    # --- in the transaction of others ---------------------------------------------------------------------------------

    def reserve(self) -> int:
        """Room for what a transaction that begins now makes due; `settle` follows. None while a claim is on its way.

        Half of what is free: while one transaction follows another, the lane's own claims must find room as well.
        """
        free = 0 if self._stopping or self._is_claiming else max(self._free(), 0) // 2
        self._reserved += free
        return free

    async def claim(self, batch: Batch, free: int) -> Claimed[T]:
        return await self._work.claim(batch, free)

    def settle(self, free: int, claimed: Claimed[T] | None) -> None:
        """After the commit; without a claim when nothing became due, or all was taken back."""
        self._reserved -= free
        if claimed is not None:
            self._begin(claimed)
            self._bell.wait_at_most(self._pause_s())
        if self._stopping or self._is_full:
            self._bell.strike()

    # --- on its own ---------------------------------------------------------------------------------------------------

    async def _round(self) -> None:
        free = self._free()
        self._is_full = free <= 0
        if self._is_full:
            self._next_due_at = None
            return
        try:
            self._next_due_at, self._is_short = await self._work.find_next_due(), False
            if self._next_due_at is not None and self._next_due_at <= self._env.now():
                await self._claim(free)
            self._failures = 0
        except Exception as error:
            self._note_failure(error)

    async def _claim(self, free: int) -> None:
        self._is_claiming = True
        try:
            self._begin(await self._writer.run(partial(self._work.claim, free=free)))
        finally:
            self._is_claiming = False

    def _free(self) -> int:
        return self._limit - len(self._running) - self._reserved

    def _begin(self, claimed: Claimed[T]) -> None:
        self._next_due_at, self._is_short = claimed.next_due_at, claimed.is_short
        for item in claimed.items:
            task = asyncio.create_task(self._run_item(item))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _note_failure(self, error: Exception) -> None:
        """Log one line per round; rounds get rarer, so an unavailable database does not flood the log."""
        self._failures += 1
        self._next_due_at = None
        self._metrics.loop_failures.labels(self.name).inc()
        if isinstance(error, Unavailable):
            log.warning("worker.stalled", lane=self.name, reason=error.detail, cause=error.cause)
        else:
            log.error("worker.failed", lane=self.name, exc_info=error)

    def _pause_s(self) -> float:
        if self._failures:
            return min(FAILED_FIRST_S * 2.0 ** (self._failures - 1), FAILED_MAX_S)
        if self._next_due_at is None:
            return self._look_again_s
        return min(max((self._next_due_at - self._env.now()).total_seconds(), 0.0), self._look_again_s)

    async def _run_item(self, item: T) -> None:
        try:
            self._expect(await self._work.run(item))
        except Exception:
            self._metrics.loop_failures.labels(self.name).inc()
            log.exception("worker.failed", lane=self.name)

    def _expect(self, due_at: datetime | None) -> None:
        """A time that only this process knows of yet; the sleeping loop has to hear of it."""
        if due_at is not None and (self._next_due_at is None or due_at < self._next_due_at):
            self._next_due_at = due_at
            self._bell.wait_at_most(self._pause_s())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._is_short or self._is_full:
            self._bell.strike()
