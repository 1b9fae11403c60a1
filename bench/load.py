"""A load generator cheap enough not to be the bottleneck: prepared requests over keep-alive connections.

    python -m bench.load HOST PORT CONNECTIONS < requests

Requests come on standard input, each after its length in four bytes; the figures go to standard output as JSON.
"""

import asyncio
import json
import struct
import sys
import time
from collections import Counter, deque

import uvloop


class Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last has come; answers have a Content-Length."""

    def __init__(self, waiting: deque[bytes], statuses: Counter[int], seconds: list[float]) -> None:
        self._waiting = waiting
        self._statuses = statuses
        self._seconds = seconds
        self._buffer = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if not self._waiting:
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(self._waiting.popleft())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._buffer = b""
        self._statuses[int(head[9:12])] += 1
        self._seconds.append(time.perf_counter() - self._sent_at)
        self._send()

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


async def run(host: str, port: int, connections: int) -> dict[str, object]:
    waiting, statuses, seconds = read_requests(), Counter[int](), []
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Connection(waiting, statuses, seconds), host, port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    took = time.perf_counter() - started
    ordered = sorted(seconds)
    at = {name: round(ordered[int(len(ordered) * share)] * 1000, 2) for name, share in (("p50", 0.5), ("p99", 0.99))}
    return {"seconds": took, "per_s": len(seconds) / took, "statuses": dict(statuses), "ms": at}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
