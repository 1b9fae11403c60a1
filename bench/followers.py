"""Clients that wait: of the event stream, and long polls. One process that opens them all, and sends the callbacks.

    python -m bench.followers stream|polls PORT CLIENTS BURST KEY < requests

Each request is a callback. On the stream every client must get every event: first one callback at a time, then the
rest in one burst. Each poll waits for the task of its own callback.
"""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 60.0
BURST = 64
"""So many callbacks are under way at the same time."""


class Client(asyncio.Protocol):
    """Counts what it is told to look for in what comes."""

    def __init__(self, request: bytes, sign: bytes, on_found: Callable[[int], None]) -> None:
        self._request = request
        self._sign = sign
        self._on_found = on_found
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """A sign may be cut in two by the network."""
        data = self._rest + data
        count = data.count(self._sign)
        self._rest = data[-len(self._sign) + 1 :] if not data.endswith(self._sign) else b""
        if count:
            self._on_found(count)


class Arrivals:
    """How many came, and the moment of the last."""

    def __init__(self) -> None:
        self.count = 0
        self.last_at = 0.0

    def __call__(self, count: int) -> None:
        self.count += count
        self.last_at = time.perf_counter()

    async def reach(self, count: int) -> float:
        """When the last of so many came."""
        async with asyncio.timeout(PATIENCE_S):
            while self.count < count:
                await asyncio.sleep(0.001)
        return self.last_at
