"""Two hundred webhook_urls that never answer hold a part of the places, and an endpoint gets its events meanwhile."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

import pytest

from service.store.lanes import ORIGIN_PART, URL_PART
from service.worker.deliveries import AT_ONCE
from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("shares")]

MODEL = "flux-context/flux-kontext-pro"
DEAD, URLS = 200, 400
PLACES = AT_ONCE // URL_PART


class Dead:
    """Receivers that take requests and never answer, each at an address of its own."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.most = 0
        self.most_of_one = 0
        self._server: asyncio.Server | None = None

    async def listen(self) -> list[str]:
        hosts = [f"127.0.1.{number + 1}" for number in range(DEAD)]
        self._server = await asyncio.start_server(self._serve, hosts[0], 0)
        port = self._server.sockets[0].getsockname()[1]
        await self.close()
        self._server = await asyncio.start_server(self._serve, hosts, port)
        return [f"http://{host}:{port}" for host in hosts]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = writer.get_extra_info("sockname")[0]
        self.open[host] += 1
        self.most = max(self.most, self.open.total())
        self.most_of_one = max(self.most_of_one, self.open[host])
        while await reader.read(65_536):
            pass
        self.open[host] -= 1
        writer.close()


async def end_task(service: Service, **rest: str) -> str:
    """A task that is canceled at once, which is one event."""
    task = await service.api.submit(MODEL, new_prompt(), **rest)
    await service.client.post(f"/v1/tasks/{task['id']}/cancel")
    return str(task["id"])


async def wait_s(service: Service, endpoint_id: str) -> list[float]:
    """From each event to its first attempt."""

    async def recorded() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = await service.api.deliveries(endpoint_id=endpoint_id)
        return found if all(one["attempts"] for one in found) else None

    def at(text: str) -> datetime:
        return datetime.fromisoformat(text)

    found = await until(recorded)
    return [(at(one["attempts"][0]["at"]) - at(one["created_at"])).total_seconds() for one in found]


async def test_webhook_urls_that_never_answer_hold_their_part_and_an_endpoint_is_served(world: World) -> None:
    dead = Dead()
    origins = await dead.listen()
    service = await world.start()
    urls = [f"{origins[number % DEAD]}/{number}" for number in range(URLS)] + [f"{origins[0]}/{n}" for n in range(100)]
    for start in range(0, len(urls), 20):
        await asyncio.gather(*(end_task(service, webhook_url=url) for url in urls[start : start + 20]))
    await until(lambda: dead.most >= min(PLACES, DEAD))
    subscriber = world.receiver.subscriber("healthy")
    endpoint = await service.api.endpoint(subscriber.url)
    await asyncio.gather(*(end_task(service) for _ in range(30)))
    await until(lambda: len(subscriber.received) == 30)
    waits = sorted(await wait_s(service, endpoint["id"]))
    print(f"held at most {dead.most}, by one origin {dead.most_of_one}; events waited {waits[15]} to {waits[-1]} s")
    assert dead.most <= PLACES
    assert dead.most_of_one <= PLACES // ORIGIN_PART
    await dead.close()
