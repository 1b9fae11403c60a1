"""The newest events, read from the store once for all the clients of the event stream."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from service.core.problems import Unavailable
from service.store.bus import EVENTS, Bus
from service.store.reads import Reads, StoredEvent

log = structlog.get_logger()
PAGE = 20
LOOK_AGAIN_S = 15.0
TAIL_BYTES = 8 << 20


class Tail:
    """Reads new events in one asyncio task for all clients, as long as there is one.

    Every event after the place `floor` up to the place `last` is here; what lies before is in the store alone.
    """

    def __init__(self, reads: Reads, bus: Bus) -> None:
        self._reads = reads
        self._bus = bus
        self._events: list[StoredEvent] = []
        self._size = 0
        self._grown = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self.clients = 0
        self.floor = 0
        self.last = 0

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        self.clients += 1
        try:
            async with self._starting:
                if self._reader is None:
                    await self._start()
            yield
        finally:
            self.clients -= 1
            if self.clients == 0 and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    def after(self, place: int) -> StoredEvent | None:
        """The first event after a place that does not lie before the floor."""
        index = bisect_right(self._events, place, key=_place)
        return self._events[index] if index < len(self._events) else None

    async def grown(self, timeout_s: float) -> None:
        """Until there is more, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._grown.wait()

    async def _start(self) -> None:
        self._events, self._size = [], 0
        self.floor = self.last = await self._reads.last_position()
        self._reader = asyncio.create_task(self._read(), name="stream")

    async def _read(self) -> None:
        with self._bus.subscribed(EVENTS) as bell:
            while True:
                await self._read_all()
                await bell.wait(LOOK_AGAIN_S)

    async def _read_all(self) -> None:
        try:
            while await self._read_page():
                pass
        except Unavailable as problem:
            log.warning("stream.stalled", reason=problem.detail, cause=problem.cause)
        except Exception:
            log.exception("stream.failed")

    async def _read_page(self) -> bool:
        """Whether the page was full, so that there may be more."""
        found = await self._reads.events_after(self.last, PAGE)
        if found:
            self._events += found
            self._size += sum(len(event.body) for event in found)
            self.last = found[-1].seq
            self._forget()
            self._grown.set()
            self._grown = asyncio.Event()
        return found.has_more

    def _forget(self) -> None:
        """The older half, when it is too much."""
        if self._size > TAIL_BYTES:
            half = len(self._events) // 2 + 1
            self._size -= sum(len(event.body) for event in self._events[:half])
            self.floor = self._events[half - 1].seq
            del self._events[:half]


def _place(event: StoredEvent) -> int:
    return event.seq
