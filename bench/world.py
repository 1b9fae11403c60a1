"""The provider and the subscriber of the benchmarks, in one process cheap enough never to be the bottleneck.

    python -m bench.world PORT

It speaks fluxapi.ai's wire format. A submit is answered and its callback sent over one of a few kept connections; a
post to /hook is answered 204. `POST /callbacks?rate=N` sends the callbacks of tasks that were submitted before: a line
of URL and task id for each, N a second or, with 0, as fast as the connections allow. `GET /figures` returns what was
seen and starts again: submits, callbacks and their statuses, hooks with the times of the first and the last, and for
each hook the milliseconds since its task's callback was sent.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter, deque
from urllib.parse import urlsplit

import uvloop

from bench.messages import first_message, status_of

CALLERS = 64
CALLBACK_URL = re.compile(rb'"callBackUrl":\s*"([^"]+)"')
TASK_ID = re.compile(rb'"provider_task_id":\s*"([^"]+)"')
CALLBACK = (
    b'{"code":200,"msg":"BFL image generated successfully.","data":{"taskId":"%s","info":'
    b'{"originImageUrl":"https://example.com/original/%s.jpg","resultImageUrl":"https://example.com/result/%s.jpg"}}}'
)
RECEIVED = b"HTTP/1.1 204 No Content\r\n\r\n"


class World:
    def __init__(self) -> None:
        self.waiting: deque[tuple[bytes, bytes]] = deque()
        self.idle: list[Caller] = []
        self.open = 0
        self.last = 0
        self.sent_at: dict[bytes, float] = {}
        self.begin()

    def begin(self) -> None:
        self.submits = self.hooks = 0
        self.statuses: Counter[int] = Counter()
        self.ms: list[float] = []
        self.first_at = self.last_at = 0.0

    def figures(self) -> bytes:
        counts = {"submits": self.submits, "hooks": self.hooks, "statuses": self.statuses}
        told = json.dumps({**counts, "ms": self.ms, "first_at": self.first_at, "last_at": self.last_at}).encode()
        self.begin()
        return told

    def submit(self, body: bytes) -> bytes:
        self.submits += 1
        self.last += 1
        task_id = b"p%d" % self.last
        if found := CALLBACK_URL.search(body):
            self.waiting.append((found[1], task_id))
            asyncio.get_running_loop().call_soon(self.call_back)
        return b'{"code":200,"msg":"success","data":{"taskId":"%s"}}' % task_id

    def call_back(self) -> None:
        while self.waiting and self.idle:
            self.idle.pop().send(*self.waiting.popleft())
        if self.waiting and self.open < CALLERS:
            self.open += 1
            parts = urlsplit(self.waiting[0][0].decode())
            asyncio.get_running_loop().create_task(self._connect(parts.hostname or "", parts.port or 80))

    async def send_callbacks(self, lines: list[bytes], rate: float) -> None:
        """Queue the callbacks, spread evenly if a rate is given."""
        began = time.perf_counter()
        for number, line in enumerate(lines):
            if rate and (early_s := began + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            url, _, task_id = line.partition(b" ")
            self.waiting.append((url, task_id))
            self.call_back()

    async def _connect(self, host: str, port: int) -> None:
        await asyncio.get_running_loop().create_connection(lambda: Caller(self), host, port)

    def hear(self, body: bytes) -> None:
        self.hooks += 1
        self.last_at = time.time()
        self.first_at = self.first_at or self.last_at
        found = TASK_ID.search(body)
        if found and (sent_at := self.sent_at.pop(found[1], None)):
            self.ms.append((time.perf_counter() - sent_at) * 1000)


class Caller(asyncio.Protocol):
    """A connection that sends callbacks to the service, one after the other.

    A service ends connections that rest for long, now and then as the next callback leaves: that one is sent again.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer = b""
        self._unanswered: tuple[bytes, bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._rest()

    def _rest(self) -> None:
        self._world.idle.append(self)
        self._world.call_back()

    def send(self, url: bytes, task_id: bytes) -> None:
        host, _, path = url.partition(b"//")[2].partition(b"/")
        body = CALLBACK % (task_id, task_id, task_id)
        head = b"POST /%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._unanswered = (url, task_id)
        self._world.sent_at[task_id] = time.perf_counter()
        self._transport.write(head % (path, host, len(body)) + body)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if (answer := first_message(self._buffer)) is None:
            return
        head, _, self._buffer = answer
        self._world.statuses[status_of(head)] += 1
        self._unanswered = None
        self._rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._world.open -= 1
        if self in self._world.idle:
            self._world.idle.remove(self)
        if self._unanswered:
            self._world.waiting.append(self._unanswered)
            self._world.call_back()


class Server(asyncio.Protocol):
    def __init__(self, world: World) -> None:
        self._world = world
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := first_message(self._buffer)) is not None:
            head, body, self._buffer = request
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/hook":
            self._world.hear(body)
            self._transport.write(RECEIVED)
            return
        if path == b"/figures":
            told = self._world.figures()
        elif path.startswith(b"/callbacks?rate="):
            self._sending = asyncio.get_running_loop().create_task(
                self._world.send_callbacks(body.splitlines(), float(path.partition(b"=")[2]))
            )
            told = b"{}"
        else:
            told = self._world.submit(body)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(told) + told
        )


async def serve(port: int) -> None:
    world = World()
    server = await asyncio.get_running_loop().create_server(lambda: Server(world), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
