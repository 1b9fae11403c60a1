"""Clients that wait, of the event stream or of long polls, and the callbacks that end their waiting: one process.

    python -m bench.listeners stream|polls PORT PID CLIENTS < requests

The first so many requests on standard input open the clients, each over a connection of its own. The rest are
callbacks: some one at a time, then all others in one burst. On the stream each client gets every event; a poll is
answered when the callback of its own task came. The figures go to standard output as JSON.
"""

import asyncio
import json
import sys
import time
from collections import deque

import uvloop

from bench.load import Connection, Load, read_requests
from bench.processes import cpu_seconds, may_open_many_files, resident_mib

AT_ONCE = 64
"""So many callbacks are under way at the same time."""
ALONE = 50
PATIENCE_S = 60.0
QUIET_S = 2.0
PORTS = 5_000
"""So many clients share one address of their own: an address has only so many ports."""
SIGNS = {"stream": b"\nevent: task.", "polls": b"HTTP/1.1 200"}
"""What stands once in each answer that was waited for."""


class Arrivals:
    """How many came, and the moment of the last."""

    def __init__(self) -> None:
        self.count = 0
        self.last_at = 0.0
        self.refused = self.lost = 0
        self._wanted = 0
        self._reached = asyncio.Event()

    def note(self, count: int) -> None:
        self.count += count
        self.last_at = time.perf_counter()
        if self.count >= self._wanted:
            self._reached.set()

    async def reach(self, count: int) -> float:
        """The moment when the last of so many came."""
        self._wanted = count
        self._reached.clear()
        if self.count < count:
            async with asyncio.timeout(PATIENCE_S):
                await self._reached.wait()
        return self.last_at


class Client(asyncio.Protocol):
    """Counts what it waits for; a sign may be cut in two by the network."""

    def __init__(self, request: bytes, sign: bytes, arrivals: Arrivals) -> None:
        self._request = request
        self._sign = sign
        self._arrivals = arrivals
        self._rest = b""
        self.is_waiting = True

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if count := data.count(self._sign):
            self._arrivals.note(count)
            data = data.rpartition(self._sign)[2]
        elif data.startswith(b"HTTP/1.1 503"):
            self._arrivals.refused += 1
            self.is_waiting = False
            self.transport.close()  # it would come again later; a place that nobody uses would be missing elsewhere
        self._rest = data[1 - len(self._sign) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_waiting and exc is not None:
            self._arrivals.lost += 1
        self.is_waiting = False


async def open_clients(port: int, requests: list[bytes], sign: bytes, arrivals: Arrivals) -> list[Client]:
    loop, clients = asyncio.get_running_loop(), []
    for number, request in enumerate(requests):
        client = Client(request, sign, arrivals)
        address = (f"127.0.0.{2 + number // PORTS}", 0)
        try:
            await loop.create_connection(lambda made=client: made, "127.0.0.1", port, local_addr=address)
        except OSError:
            arrivals.lost += 1
            client.is_waiting = False
        clients.append(client)
    return clients


class Burst:
    """Callbacks sent to the service."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def send(self, callbacks: list[bytes], connections: int) -> None:
        load, loop = Load(deque(callbacks), 0.0), asyncio.get_running_loop()
        made = [
            await loop.create_connection(lambda: Connection(load), "127.0.0.1", self._port) for _ in range(connections)
        ]
        await asyncio.gather(*(connection.done for _, connection in made))
        assert set(load.statuses) <= {200}, load.statuses


async def one_at_a_time(port: int, callbacks: list[bytes], arrivals: Arrivals, each: int) -> list[float]:
    """Milliseconds from the sending of each callback until the last client heard of it."""
    found, burst = [], Burst(port)
    for callback in callbacks:
        wanted, began = arrivals.count + each, time.perf_counter()
        _, ended_at = await asyncio.gather(burst.send([callback], 1), arrivals.reach(wanted))
        found.append((ended_at - began) * 1000)
    return found


async def run(kind: str, port: int, pid: int, count: int) -> dict[str, object]:
    requests, arrivals = list(read_requests()), Arrivals()
    clients = await open_clients(port, requests[:count], SIGNS[kind], arrivals)
    await asyncio.sleep(QUIET_S)
    waiting = [client.is_waiting for client in clients]
    held = sum(waiting)
    before, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.sleep(QUIET_S)
    idle = (cpu_seconds(pid) - before) / (time.perf_counter() - began)
    full_mib = resident_mib(pid)
    callbacks = requests[count:]
    if kind == "polls":
        callbacks = [callback for callback, is_waiting in zip(callbacks, waiting, strict=True) if is_waiting]
    each = held if kind == "stream" else 1
    alone = await one_at_a_time(port, callbacks[:ALONE], arrivals, each)
    rest, wanted = callbacks[ALONE:], arrivals.count + each * len(callbacks[ALONE:])
    before, began = cpu_seconds(pid), time.perf_counter()
    _, ended_at = await asyncio.gather(Burst(port).send(rest, AT_ONCE), arrivals.reach(wanted))
    cpu_s = cpu_seconds(pid) - before
    return {
        "held": held,
        "refused": arrivals.refused,
        "lost": arrivals.lost,
        "idle": idle,
        "mib": full_mib,
        "ms": alone,
        "per_s": len(rest) * each / (ended_at - began),
        "cpu_us": cpu_s / (len(rest) * each) * 1e6,
    }


if __name__ == "__main__":
    may_open_many_files()
    kind, *numbers = sys.argv[1:]
    sys.stdout.write(json.dumps(uvloop.run(run(kind, *map(int, numbers)))))
