"""Reads from a socket into one buffer of all connections, so that a client decides nothing about our memory.

A transport would read 256 KiB at once for every connection. Here it reads 4 KiB until a request may send more.
"""

import asyncio
from typing import Protocol

SMALL, LARGE = 4 * 1024, 64 * 1024
"""Bytes of a read before a request may send more, and after."""
_buffer = bytearray(LARGE)
_large = memoryview(_buffer)
_small = _large[:SMALL]


class Reader(Protocol):
    """A protocol whose `data_received` keeps nothing of the view it is given."""

    wants_more: bool

    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def data_received(self, data: memoryview) -> None: ...
    def eof_received(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Inlet(asyncio.BufferedProtocol):
    """Passes a connection on to its reader. All of them share the buffer: a loop fills it and hands it over at once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.connection_lost = reader.connection_lost  # type: ignore[method-assign]
        self.eof_received = reader.eof_received  # type: ignore[method-assign]
        self.pause_writing = reader.pause_writing  # type: ignore[method-assign]
        self.resume_writing = reader.resume_writing  # type: ignore[method-assign]
        self.connection_made = reader.connection_made  # type: ignore[method-assign,assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return _large if self._reader.wants_more else _small

    def buffer_updated(self, nbytes: int) -> None:
        self._reader.data_received(_large[:nbytes])
