"""Recent charges of providers, summed once for all open pages, which refresh every few seconds."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from service.store.figures import Charges
from service.store.reads import Reads

KEPT_S = 30.0


class Spending:
    """Not older than half a minute."""

    def __init__(self, reads: Reads, clock: Callable[[], float]) -> None:
        self._reads = reads
        self._clock = clock
        self._since: datetime | None = None
        self._charges: Charges | None = None
        self._until = 0.0
        self._reading = asyncio.Lock()

    async def since(self, since: datetime) -> Charges:
        async with self._reading:
            now = self._clock()
            if self._charges is None or since != self._since or now >= self._until:
                self._charges = await self._reads.recent_charges(since)
                self._since, self._until = since, now + KEPT_S
            return self._charges
