"""Two thousand connections that stop in the middle of a request: callbacks are answered all the same."""

import asyncio
import resource
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.service import API_KEY, Service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("many slow connections")]

CONNECTIONS = 2_000
FILES = CONNECTIONS + 500
CALLBACKS = 50


@pytest.fixture(scope="module", autouse=True)
def enough_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES + 2_000:
        pytest.skip(f"a process may open {hard} files here, {FILES + 2_000} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start()


async def ready_callback(world: World, service: Service) -> tuple[str, dict[str, Any]]:
    """A task that runs at its provider, its callback's path, and the body that says that it succeeded."""
    fake, prompt = world.fluxapi_ai, new_prompt()
    plan = fake.script(prompt)
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", prompt)
    await service.api.accepted(task["id"])
    return str(urlsplit(plan.job.callback_url).path), fake.callback_body(plan.job, "success")


def beginnings(path: str) -> list[bytes]:
    """Return what the connections send before they stop, in turn."""
    caller = (
        f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n"
    )
    return [
        b"",
        b"POST /callbacks/acedata/x HTTP/1.1\r\nHost: x\r\nX-A: ",
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{{".encode(),
        f"{caller}Content-Length: 1000000\r\n\r\n{{".encode(),
    ]


async def open_slow(port: int, beginning: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(beginning)
    return writer


async def test_callbacks_are_answered_beside_2000_slow_connections(world: World, service: Service) -> None:
    path, _ = await ready_callback(world, service)
    sent = beginnings(path)
    writers: list[asyncio.StreamWriter] = []
    try:
        for start in range(0, CONNECTIONS, 100):
            numbers = range(start, start + 100)
            writers += await asyncio.gather(*(open_slow(service.port, sent[number % len(sent)]) for number in numbers))
        assert len(writers) == CONNECTIONS
        assert (await service.client.get("/healthz")).status_code == 200
        for _ in range(CALLBACKS):
            path, body = await ready_callback(world, service)
            reply = await service.client.post(path, json=body)
            assert reply.status_code == 200
    finally:
        for writer in writers:
            writer.transport.abort()
