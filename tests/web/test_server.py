"""A server that stops answers whoever was let in: waiting in the queue, connected and silent, or kept open."""

import asyncio
import socket

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from service.telemetry import Metrics
from service.web.edge import Limits, edge
from service.web.server import Server
from tests.support.env import FakeEnv
from tests.support.wait import soon, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def started() -> tuple[Server, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=edge(Limits(connections=50), Metrics(), FakeEnv()),
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=8,
    )
    server = Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    await until(lambda: server.started)
    return server, listener


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(GET)
    return await reader.readuntil(b"ok")


async def connect(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*address)


async def stop_with_clients() -> None:
    server, listener = await started()
    address = listener.getsockname()
    silent, kept = await connect(address), await connect(address)
    assert b"connection: close" not in await ask(*kept)
    queued = [socket.create_connection(address) for _ in range(5)]  # the loop has no turn to accept them
    stopping = asyncio.create_task(server.shutdown([listener]))
    await asyncio.sleep(0.15)  # until it has told its connections
    waited = [await asyncio.open_connection(sock=one) for one in queued]
    answers = await asyncio.gather(*(ask(*one) for one in (silent, kept, *waited)))
    assert all(b"200 OK" in answer and b"connection: close" in answer for answer in answers), answers
    await soon(stopping)
    with pytest.raises(ConnectionRefusedError):
        await connect(address)
    for _, writer in (silent, kept, *waited):
        writer.close()


async def test_whoever_was_let_in_is_answered() -> None:
    await stop_with_clients()


def test_whoever_was_let_in_is_answered_on_the_loop_that_serves_in_earnest() -> None:
    uvloop.run(stop_with_clients())


async def test_who_says_nothing_holds_up_no_stop() -> None:
    server, listener = await started()
    reader, writer = await connect(listener.getsockname())
    server.config.timeout_graceful_shutdown = None  # so a stop that waits for the client never ends
    await soon(server.shutdown([listener]))
    assert await reader.read() == b""
    writer.close()
