"""An address of the tests' own before others: a round-robin balancer, a cable that can be pulled, a swapped server."""

import asyncio
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

CHUNK = 65_536


class Proxy:
    """TCP alone: bytes, ends and resets go through as they come. A target that refuses is passed over for the next."""

    def __init__(self, ports: Iterable[int] = ()) -> None:
        self.ports = list(ports)
        """Where connections go in turn; may be changed at any time."""
        self.moves = asyncio.Event()
        """While it is cleared, connections and bytes are taken and not passed on: a network that drops every packet."""
        self.moves.set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._turn = 0

    async def start(self) -> Self:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=self._socket)
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def cut(self) -> None:
        """Every open connection is reset, on both sides."""
        for writer in list(self._open):
            writer.transport.abort()

    def point_to(self, *ports: int) -> None:
        """From now on; what is open is reset."""
        self.ports = list(ports)
        self.cut()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        found = None
        try:
            found = await self._connect()
            if found is not None:
                self._open.add(found[1])
                await self._relay((reader, writer), found)
        finally:
            for one in (writer, *(found[1:] if found else ())):
                one.transport.abort()
                self._open.discard(one)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        first = self._turn % (len(self.ports) or 1)
        for port in self.ports[first:] + self.ports[:first]:
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _relay(self, *ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        (near, near_out), (far, far_out) = ends
        there = asyncio.create_task(self._pump(near, far_out))
        back = asyncio.create_task(self._pump(far, near_out))
        try:
            with suppress(OSError):
                await back  # the side that answers decides when it is over
                await _flushed(near_out)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(CHUNK):
            await self.moves.wait()
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def _flushed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
