"""Listings of large things: every page is bounded in bytes, none is lost or doubled, and the process stays small."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from service.core import lifecycle
from service.core.task import TaskInput
from service.store.queries import PAGE_BYTES
from tests.flows.conftest import World
from tests.store.conftest import Store, open_store
from tests.store.test_claims import put
from tests.support.factory import make_task
from tests.support.service import API_KEY, Service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("pages")]

TASKS = 100
MIB = 1 << 20
ADDS_MAX = 32 * MIB
"""What one listing may add to the process."""
UNREAD_MAX = 96 * MIB
"""What eight clients that do not read may add together."""
LISTINGS = [
    "/v1/tasks?limit=200",
    "/v1/tasks?limit=200&status=canceled",
    "/v1/events?limit=200",
    "/v1/events?limit=200&type=task.canceled",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    """With a hundred tasks that have 1 MiB of options each, and an event with the same."""
    made = world.service({"TASKHOOK_RETENTION_DAYS": "3650"})
    made.anew = True
    async with open_store(str(made.directory / "taskhook.db")) as store:
        for number in range(TASKS):
            await put(store, lifecycle.cancel(large_task(store, number), store.env))
    await made.start()
    yield made


def large_task(store: Store, number: int) -> Any:
    options = {"padding": f"{number:04d}" * (MIB // 4)}
    return make_task(store.env, input=TaskInput(prompt="a lamp", options=options))


def memory_of(service: Service, field: str) -> int:
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    found = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def forget_peak(service: Service) -> None:
    assert service.process is not None
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")


async def read_pages(service: Service, listing: str) -> list[str]:
    """The ids of all pages, each of them a bounded number of bytes."""
    ids: list[str] = []
    cursor = ""
    while True:
        reply = await service.client.get(f"{listing}{cursor}")
        assert reply.status_code == 200 and len(reply.content) < PAGE_BYTES + 3 * MIB, len(reply.content)
        page = msgspec.json.decode(reply.content)
        assert page["data"]
        ids += [item["id"] for item in page["data"]]
        if page["next_cursor"] is None:
            return ids
        cursor = f"&cursor={page['next_cursor']}"


@pytest.mark.parametrize("listing", LISTINGS)
async def test_a_listing_of_large_things_has_bounded_pages_and_adds_little_to_the_process(
    service: Service, listing: str
) -> None:
    await service.client.get("/v1/tasks?limit=1")
    forget_peak(service)
    before = memory_of(service, "VmRSS")
    ids = await read_pages(service, listing)
    added = memory_of(service, "VmHWM") - before
    print(f"{listing} adds {added / MIB:.0f} MiB")
    assert len(ids) == len(set(ids)) == TASKS
    assert ids == sorted(ids, reverse="tasks" in listing)
    assert added < ADDS_MAX


async def test_eight_clients_that_do_not_read_are_bounded_together(service: Service) -> None:
    before = memory_of(service, "VmRSS")
    forget_peak(service)
    request = f"GET /v1/tasks?limit=200 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()
    writers = []
    for _ in range(8):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port, limit=1024)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request * 4)
        writers.append(writer)
    try:
        await read_often(service, 20)
    finally:
        for writer in writers:
            writer.transport.abort()
    added = memory_of(service, "VmHWM") - before
    print(f"eight clients that do not read add {added / MIB:.0f} MiB")
    assert added < UNREAD_MAX


async def read_often(service: Service, times: int) -> None:
    """Read a page until that has worked `times` times. A busy machine may answer 503 in between."""
    answers: list[int] = []
    while answers.count(200) < times:
        answers.append((await service.client.get("/v1/tasks?limit=1")).status_code)
        assert answers[-1] in (200, 503)
        await asyncio.sleep(0.02)
