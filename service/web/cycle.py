"""A request and its answer on a connection, stricter than uvicorn's own class."""

import asyncio
import math
from collections.abc import Iterable, Sized

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

UNREAD_MAX = 64 * 1024
"""A request body up to this length is read to its end though nobody wants it, to keep the connection."""


class Cycle(RequestResponseCycle):
    """`lingers` says that the answer came before the request's end, so that the connection must end after it."""

    lingers = False
    _is_unframed = False

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            if self.more_body and self._leaves_too_much():
                self.lingers = True
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            if self.scope["http_version"] == "1.0":
                self._unframe(message.get("headers", ()))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            if self._is_unframed:
                self.expected_content_length = len(message.get("body", b""))
            if self.lingers:
                self.keep_alive = True  # uvicorn would close at once: a client that still sends would lose the answer
        await super().send(message)

    def _unframe(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Without a length the end of the connection is the end of the body: HTTP/1.0 has no chunks (RFC 9112 6.1)."""
        if not any(name == b"content-length" for name, _ in headers):
            self._is_unframed = True
            self.chunked_encoding = False
            self.expected_content_length = math.inf  # type: ignore[assignment]

    def _leaves_too_much(self) -> bool:
        """Return whether what the client may still send is more than is worth reading for the connection's sake."""
        length = next((value for name, value in self.scope["headers"] if name == b"content-length"), b"")
        return self.waiting_for_100_continue or not length or int(length) > UNREAD_MAX


class Flow(FlowControl):
    """Reads nothing as long as a request waits for the answer to the one before it: each read may bring a hundred."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()
