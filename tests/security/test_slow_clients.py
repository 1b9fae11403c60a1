"""Clients that hold connections: each has its time, all have their number, and the others are answered meanwhile."""

import asyncio
import contextlib
import shlex
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from service.telemetry import Metrics
from service.web.bodies import read_body
from service.web.edge import Limits, edge
from service.web.errors import ClientGone
from service.web.shares import Shares
from tests.security.raw import hear, send
from tests.support.env import FakeEnv
from tests.support.service import Service, free_port
from tests.support.wait import PATIENCE_S, until

LIMITS = Limits(connections=50, head_s=0.3, body_s=0.5, write_s=0.5, linger_s=0.2)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


class App:
    """Reads the whole body, then answers: `/large` with more than any buffer holds, `/late` and `/held` later."""

    def __init__(self) -> None:
        self.gone = 0
        self.slow = Shares(1 << 20)
        self.started = 0
        self.release = asyncio.Event()
        self.headers: list[bytes] = []
        """Names of the last request, as they are once its body is read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await read_body(scope, receive, self.slow, "a caller")
        except ClientGone:
            self.gone += 1
            return
        self.headers = [name for name, _ in scope["headers"]]
        if scope["path"] == "/late":
            await asyncio.sleep(LIMITS.body_s + 0.2)
        self.started += 1
        if scope["path"] == "/held":
            await self.release.wait()
        body = b"x" * (64 << 20 if scope["path"] == "/large" else 2)
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Site:
    def __init__(self, limits: Limits, keepalive_s: int = 30) -> None:
        self.app, self.metrics, self.port = App(), Metrics(), free_port()
        config = uvicorn.Config(
            self.app,  # type: ignore[arg-type]
            port=self.port,
            http=edge(limits, self.metrics, FakeEnv()),
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=keepalive_s,
        )
        self.server = uvicorn.Server(config)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator["Site"]:
        serving = asyncio.create_task(self.server._serve())
        await until(lambda: self.server.started)
        try:
            yield self
        finally:
            self.server.should_exit = self.server.force_exit = True
            await serving

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with Site(LIMITS).serve() as served:
        yield served


async def drip(port: int, beginning: bytes, byte: bytes, pause_s: float = 0.05) -> tuple[list[int], float]:
    """Sends the beginning, then one byte after the other for ever; the statuses heard, and after how long it ended."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drop() -> None:
        writer.write(beginning)
        while True:
            await asyncio.sleep(pause_s)
            writer.write(byte)

    dropping = asyncio.create_task(drop())
    try:
        heard = await hear(reader, PATIENCE_S)
    finally:
        dropping.cancel()
        writer.transport.abort()
        await asyncio.gather(dropping, return_exceptions=True)
    assert heard.closed
    return heard.statuses, time.monotonic() - begun


SLOW = {
    "a header": (GET + b"X-A: ", b"a", [408]),
    "headers": (GET, b"X: a\r\n", [408]),
    "a target": (b"GET /", b"a", [408]),
    "line ends before a request": (b"\r\n", b"\r\n", [408]),
    "a body": (POST, b"a", [408]),
    "chunks": (POST.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked"), b"1\r\na\r\n", [408]),
    "a second head": (GET + b"\r\n" + GET + b"X-A: ", b"a", [200, 408]),
}


@pytest.mark.parametrize("what", SLOW)
async def test_what_comes_a_byte_at_a_time_has_a_whole_time_to_arrive(site: Site, what: str) -> None:
    beginning, byte, statuses = SLOW[what]
    heard, seconds = await drip(site.port, beginning, byte)
    assert heard == statuses
    assert seconds > 0.25
    await until(lambda: site.connections == 0)


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    async with Site(LIMITS, keepalive_s=1).serve() as site:
        heard = await send(site.port, quiet_s=PATIENCE_S)
        assert (heard.data, heard.closed) == (b"", True)


async def test_a_connection_opened_ahead_of_its_use_is_kept_as_long_as_one_between_two_requests(site: Site) -> None:
    heard = await send(site.port, b"", GET + b"\r\n", pause_s=3 * LIMITS.head_s, answers=1)
    assert heard.statuses == [200]


async def test_a_body_that_stops_ends_the_request_that_waits_for_it(site: Site) -> None:
    heard = await send(site.port, POST + b"abc", quiet_s=PATIENCE_S)
    assert heard.statuses == [408]
    assert site.app.gone == 1


async def test_what_stands_behind_a_body_is_no_header() -> None:
    """A signature or a key that is judged after the body was read can't come in a trailer."""
    parts = (
        POST.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked"),
        b"1\r\na\r\n",
        b"0\r\nX-Signature: forged\r\n\r\n",
    )
    async with Site(Limits(connections=50, head_s=PATIENCE_S, body_s=PATIENCE_S)).serve() as site:
        heard = await send(site.port, *parts, pause_s=0.05, answers=1)
    assert heard.statuses == [200]
    assert site.app.headers == [b"host", b"transfer-encoding"]


async def test_a_slow_answer_of_ours_is_no_slow_client(site: Site) -> None:
    late = b"GET /late HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert (await send(site.port, late, quiet_s=PATIENCE_S)).statuses == [200]


async def test_a_client_that_does_not_read_its_answer_is_cut_off(site: Site) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=1)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: site.connections == 1)
    await until(lambda: site.connections == 0)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await reader.read()


async def test_beyond_the_limit_a_connection_is_told_at_once_to_come_again(site: Site) -> None:
    """Where each of the others waits for its answer."""
    held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(LIMITS.connections)]
    for _, writer in held:
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: site.app.started == LIMITS.connections)
    heard = await send(site.port, GET + b"\r\n", quiet_s=PATIENCE_S)
    assert heard.statuses == [503]
    assert b"\r\nretry-after: 1\r\n" in heard.data
    site.app.release.set()
    for reader, writer in held:
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
    await until(lambda: site.connections == 0)
    assert (await send(site.port, GET + b"\r\n", answers=1)).statuses == [200]


@pytest.mark.parametrize("beginning", [b"", GET, GET + b"\r\n"], ids=["silent", "in a head", "kept open"])
async def test_connections_that_wait_for_a_request_keep_no_newcomer_out(beginning: bytes) -> None:
    async with Site(Limits(connections=20, head_s=60)).serve() as site:
        held = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(20)]
        for reader, writer in held:
            writer.write(beginning)
            if beginning.endswith(b"\r\n\r\n"):
                await reader.readuntil(b"xx")
        await until(lambda: site.connections == 20)
        assert (await send(site.port, GET + b"\r\n", answers=1)).statuses == [200]
        assert (await hear(held[0][0], PATIENCE_S)).closed, "the oldest has made room"
        assert not (await hear(held[-1][0], 0.2)).closed
        for _, writer in held:
            writer.transport.abort()


async def test_hundreds_of_slow_clients_hold_up_nobody() -> None:
    """Under the limit: the service answers others as if they were not there."""
    async with Site(Limits(connections=600, head_s=2 * PATIENCE_S)).serve() as site:
        dripping = [asyncio.create_task(drip(site.port, GET, b"X: a\r\n")) for _ in range(400)]
        await until(lambda: site.connections == 400)
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            for _ in range(20):
                assert (await client.get(f"http://127.0.0.1:{site.port}/")).status_code == 200
        assert site.connections >= 400
        for one in dripping:
            one.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)


async def test_the_service_never_runs_out_of_files(tmp_path: Path) -> None:
    """With few of them it takes fewer connections, and still finishes its work."""
    service = Service(tmp_path, env={"TASKHOOK_SANDBOX": "true"})
    await service.launch_by("sh", "-c", f"ulimit -n 1300; exec {shlex.quote(sys.executable)} -m service serve")
    held = []
    try:
        await service.ready()
        for _ in range(400):
            held.append(await asyncio.open_connection("127.0.0.1", service.port))
        heard = await send(service.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", answers=1)
        assert heard.statuses == [200], "the oldest of those that say nothing have made room"
        for _, writer in held:
            writer.transport.abort()
        await until(lambda: _answers(service))
        task = await service.api.submit("fluxapi-ai/flux-kontext-pro", "a lighthouse")
        assert (await service.api.finished(task["id"]))["status"] == "succeeded"
        assert "Too many open files" not in service.log()
    finally:
        await service.close()


async def _answers(service: Service) -> bool:
    try:
        return (await service.client.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False
