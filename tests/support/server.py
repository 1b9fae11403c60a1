"""A small HTTP/1.1 server on a real socket, whose answers may be as bad as any network's."""

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

_REASONS = {200: "OK", 202: "Accepted", 204: "No Content", 302: "Found", 307: "Temporary Redirect", 410: "Gone"}


@dataclass(frozen=True)
class Request:
    """A request as it arrived; header names are in lower case, `at` is a monotonic time."""

    method: str
    target: str
    headers: dict[str, str]
    raw_body: bytes
    at: float

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def json(self) -> Any:
        return json.loads(self.raw_body)


class Connection:
    """The server's end of one connection: what an answer can do to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def client_gone(self) -> None:
        while await self.reader.read(65536):
            pass

    def close(self) -> None:
        """A polite end: FIN."""
        self._writer.close()

    def reset(self) -> None:
        """A rude end: RST."""
        sock: socket.socket | None = self._writer.get_extra_info("socket")
        if sock is not None and sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Answer(Protocol):
    async def play(self, connection: Connection) -> bool:
        """Acts on the connection; True keeps it open for the next request."""


@dataclass(frozen=True)
class Reply:
    """A whole answer, after `delay` seconds."""

    status: int = 200
    body: bytes | str | dict[str, Any] | list[Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0

    @property
    def raw_body(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()

    def head(self, length: int | None) -> bytes:
        headers = {"Content-Type": "application/json" if isinstance(self.body, dict | list) else "text/plain"}
        headers |= self.headers
        if length is not None and self.status != 204:
            headers["Content-Length"] = str(length)
        lines = [f"HTTP/1.1 {self.status} {_REASONS.get(self.status, 'Answer')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def play(self, connection: Connection) -> bool:
        await asyncio.sleep(self.delay)
        await connection.send(self.head(len(self.raw_body)) + self.raw_body)
        return True


@dataclass(frozen=True)
class Raw:
    """Any bytes at all, then FIN."""

    data: bytes

    async def play(self, connection: Connection) -> bool:
        await connection.send(self.data)
        connection.close()
        return False


@dataclass(frozen=True)
class Cut:
    """The first `sent` bytes of an answer, then RST."""

    reply: Reply
    sent: int

    async def play(self, connection: Connection) -> bool:
        whole = self.reply.head(len(self.reply.raw_body)) + self.reply.raw_body
        await connection.send(whole[: self.sent])
        connection.reset()
        return False


@dataclass(frozen=True)
class Drip:
    """A whole answer, one byte of its body each `pause` seconds."""

    reply: Reply
    pause: float

    async def play(self, connection: Connection) -> bool:
        await connection.send(self.reply.head(len(self.reply.raw_body)))
        for byte in self.reply.raw_body:
            await asyncio.sleep(self.pause)
            await connection.send(bytes([byte]))
        return True


@dataclass(frozen=True)
class Endless:
    """A head, and a body without end."""

    status: int = 200
    chunk: bytes = b"x" * 4096

    async def play(self, connection: Connection) -> bool:
        await connection.send(Reply(self.status).head(None))
        while True:
            await connection.send(self.chunk)
            await asyncio.sleep(0.001)


@dataclass(frozen=True)
class Hang:
    """No answer, until the client gives up."""

    async def play(self, connection: Connection) -> bool:
        await connection.client_gone()
        connection.close()
        return False


@dataclass(frozen=True)
class Reset:
    """The request was read; the connection ends without an answer (RST, or FIN)."""

    rst: bool = True

    async def play(self, connection: Connection) -> bool:
        if self.rst:
            connection.reset()
        else:
            connection.close()
        return False


class ScriptedServer:
    """Records every request, and answers with what `answer` returns for it."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self.reset_unread = 0
        """So many of the next requests are reset before they are read."""
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[Any], Connection] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        """Starts, or starts again on the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 20, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nobody listens any more, and what is open is reset: a new connection is refused."""
        if self._server is None:
            return
        self._server.close()
        tasks = list(self._open)
        for task, connection in list(self._open.items()):
            connection.reset()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(reader, writer)
        self._open[task] = connection
        self.connections += 1
        try:
            while await self._one(connection):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _one(self, connection: Connection) -> bool:
        first = await connection.reader.readexactly(1)
        if self.reset_unread:
            self.reset_unread -= 1
            connection.reset()
            return False
        request = await _read(connection, first)
        self.requests.append(request)
        answer = await self._answer(request)
        keep = await answer.play(connection)
        return keep and request.headers.get("connection", "").lower() != "close"


async def _read(connection: Connection, first: bytes) -> Request:
    reader = connection.reader
    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _ = start.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = await _read_chunks(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, target, headers, body, time.monotonic())


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body
