"""Bodies that never end hold no place: not those of strangers, and not those of callers who are known."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from service.core.tokens import CallbackTokens
from tests.flows.conftest import World
from tests.security.raw import send
from tests.support.api import new_prompt
from tests.support.service import API_KEY, SECRET_KEY, Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("slow bodies")]

PLACES = 4
MANY = 150
FORM = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_MAX_REQUESTS": str(PLACES)})


@contextlib.asynccontextmanager
async def held(port: int, head: str, length: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that send a head and one byte of their body."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MANY)]
    for _, writer in opened:
        writer.write(f"{head}Host: x\r\nContent-Length: {length}\r\n\r\na".encode())
    await asyncio.gather(*(writer.drain() for _, writer in opened))
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def task_with_callback(service: Service) -> str:
    """The path where the callback of a running task is expected."""
    task = await service.api.submit("acedata/flux-dev", new_prompt())
    await service.api.accepted(task["id"])
    provider = "acedata"
    return f"/callbacks/{provider}/{CallbackTokens([SECRET_KEY], [provider]).sign(provider, task['id'])}"


async def work(service: Service) -> None:
    """A task, its callback, and somebody who signs in."""
    path = await task_with_callback(service)
    assert (await service.client.post(path, content=b"{}")).status_code == 400  # read, and not this provider's shape
    form = {"key": API_KEY}
    reply = await service.client.post("/sign-in", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert reply.status_code == 303


async def test_slow_forms_of_the_sign_in_keep_nobody_out(service: Service) -> None:
    async with held(service.port, f"POST /sign-in HTTP/1.1\r\n{FORM}", 4_000) as readers:
        await work(service)
        cut = [await readers[0].read(12) for _ in range(1)]
        assert cut == [b"HTTP/1.1 503"], "the oldest are cut first"


async def test_slow_bodies_of_callers_keep_nobody_out(service: Service) -> None:
    head = f"POST /v1/tasks HTTP/1.1\r\nAuthorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n"
    async with held(service.port, head, 1_000):
        await work(service)


async def test_slow_bodies_of_callbacks_keep_nobody_out(service: Service) -> None:
    path = await task_with_callback(service)
    async with held(service.port, f"POST {path} HTTP/1.1\r\n", 1_000):
        await work(service)


async def test_a_form_of_the_sign_in_has_a_short_time(service: Service) -> None:
    head = f"POST /sign-in HTTP/1.1\r\nHost: x\r\n{FORM}Content-Length: 1000\r\n\r\n"
    heard = await send(service.port, head.encode(), quiet_s=60)
    assert heard.statuses == [408]
    assert heard.closed


async def test_a_refusal_before_the_body_reaches_a_client_that_still_sends(service: Service) -> None:
    """A megabyte on its way when the answer comes: closing at once would reset the connection and lose the answer."""
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000\r\n\r\n"
    heard = await send(service.port, head + b"a" * 1_000_000, b"a" * 1_000_000, quiet_s=60, pause_s=0.1)
    assert heard.statuses == [401]
    assert b"\r\nconnection: close\r\n" in heard.data
    assert heard.closed


async def test_a_small_body_that_nobody_reads_costs_no_connection(service: Service) -> None:
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
    heard = await send(service.port, head, b'{"a":', head, b'{"a":', pause_s=0.2, answers=2)
    assert heard.statuses == [401, 401]


async def test_a_client_that_was_told_to_wait_and_is_refused_ends_its_connection(service: Service) -> None:
    """It may send the body all the same, or its next request: nobody could tell them apart."""
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    heard = await send(service.port, head, quiet_s=60)
    assert heard.statuses == [401]
    assert heard.closed


async def test_pipelined_requests_behind_one_that_waits_are_few(service: Service) -> None:
    task = await service.api.submit("acedata/flux-dev", new_prompt())
    wait = f"GET /v1/tasks/{task['id']}?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(wait.encode() + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 500_000)
    try:
        assert (await service.client.get("/healthz")).status_code == 200
        assert writer.transport.get_write_buffer_size() > 0, "the service stopped reading"
    finally:
        writer.transport.abort()
    await until(lambda: service.client.get("/healthz"))
