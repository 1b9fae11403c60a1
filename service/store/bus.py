"""After a commit: "look again", to loops, waiters and streams. It carries no data, so none is lost in it."""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

EVENTS = "events"
DELIVERIES = "deliveries"


def tasks_of(account: str) -> str:
    """The topic of tasks of this account, named by its key, that are due at once."""
    return f"tasks:{account}"


class Bell:
    """Rings once however often it is struck; waiting takes the ring away. One waits for it at a time."""

    def __init__(self) -> None:
        self._struck = asyncio.Event()
        self._timeout: asyncio.Timeout | None = None

    def strike(self) -> None:
        self._struck.set()

    async def wait(self, timeout_s: float | None) -> None:
        """Until it was struck since the last wait, or the time is over."""
        try:
            async with asyncio.timeout(timeout_s) as self._timeout:
                await self._struck.wait()
        except TimeoutError:
            return
        finally:
            self._timeout = None
        self._struck.clear()

    def wait_at_most(self, timeout_s: float) -> None:
        """Limit the time of all who wait now."""
        timeout, ends_at = self._timeout, asyncio.get_running_loop().time() + timeout_s
        if timeout is not None and not timeout.expired() and (timeout.when() or math.inf) > ends_at:
            timeout.reschedule(ends_at)


class Bus:
    """Waiters of this process, by topic."""

    def __init__(self) -> None:
        self._told: dict[str, set[Callable[[], None]]] = {}

    @contextmanager
    def subscribed(self, *topics: str) -> Iterator[Bell]:
        """Subscribe before reading: what is committed after the read strikes the bell."""
        bell = Bell()
        with self.told(bell.strike, *topics):
            yield bell

    @contextmanager
    def told(self, tell: Callable[[], None], *topics: str) -> Iterator[None]:
        """The same for those who do not wake for each ring."""
        for topic in topics:
            self._told.setdefault(topic, set()).add(tell)
        try:
            yield
        finally:
            for topic in topics:
                self._told[topic].discard(tell)
                if not self._told[topic]:
                    del self._told[topic]

    def ring(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for tell in self._told.get(topic, ()):
                tell()

    def ring_all(self) -> None:
        """When another process committed and nobody says what."""
        self.ring(tuple(self._told))
