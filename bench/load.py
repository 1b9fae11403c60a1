"""A load generator cheap enough not to be the bottleneck: prepared requests over keep-alive connections.

    python -m bench.load HOST PORT CONNECTIONS [RATE] < requests

Requests come on standard input, each after its length in four bytes; the figures go to standard output as JSON. With a
rate above 0 so many are begun a second, whether or not the last are answered; else each connection sends its next
request when it has the answer to its last.
"""

import asyncio
import json
import struct
import sys
import time
from collections import Counter, deque

import uvloop

from bench.messages import first_message, status_of


class Load:
    """Requests still to send, and the results of the others."""

    def __init__(self, requests: deque[bytes], rate: float) -> None:
        self.waiting = requests
        self.rate = rate
        self.idle: list[Connection] = []
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []

    def rest(self, connection: "Connection") -> None:
        """Free for the next request."""
        if self.rate and self.waiting:
            self.idle.append(connection)
        elif self.waiting:
            connection.send(self.waiting.popleft())
        else:
            connection.close()

    async def pace(self) -> None:
        began, count = time.perf_counter(), 0
        while self.waiting:
            while self.waiting and self.idle and count <= (time.perf_counter() - began) * self.rate:
                self.idle.pop().send(self.waiting.popleft())
                count += 1
            await asyncio.sleep(0.001)
        for connection in self.idle:
            connection.close()


class Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.rest(self)

    def send(self, request: bytes) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (answer := first_message(self._buffer)) is None:
            return
        head, _, self._buffer = answer
        self._load.statuses[status_of(head)] += 1
        self._load.seconds.append(time.perf_counter() - self._sent_at)
        self._load.rest(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def read_requests() -> deque[bytes]:
    data, found, at = sys.stdin.buffer.read(), deque(), 0
    while at < len(data):
        (length,) = struct.unpack_from("!I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found


async def run(host: str, port: int, connections: int, rate: float) -> dict[str, object]:
    load, loop = Load(read_requests(), rate), asyncio.get_running_loop()
    started = time.perf_counter()
    made = [await loop.create_connection(lambda: Connection(load), host, port) for _ in range(connections)]
    if rate:
        await load.pace()
    await asyncio.gather(*(connection.done for _, connection in made))
    took = time.perf_counter() - started
    ordered = sorted(load.seconds)
    at = {name: round(ordered[int(len(ordered) * share)] * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"seconds": took, "per_s": len(ordered) / took, "statuses": dict(load.statuses), "ms": at}


if __name__ == "__main__":
    host, port, connections, *rate = sys.argv[1:]
    found = uvloop.run(run(host, int(port), int(connections), float(rate[0]) if rate else 0.0))
    sys.stdout.write(json.dumps(found))
