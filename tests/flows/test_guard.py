"""A subscriber must be a public address: at its registration, and at each connection."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import locations, new_prompt, problem
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("guard")]

PRIVATE = [
    "http://127.0.0.1:9999/",
    "http://127.1:9999/",
    "http://0x7f.1:9999/",
    "http://2130706433:9999/",
    "http://017700000001:9999/",
    "http://0.0.0.0:9999/",
    "http://10.0.0.1/",
    "http://172.16.3.4/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:9999/",
    "http://[::]:9999/",
    "http://[fe80::1]/",
    "http://[fd00::1]/",
    "http://[::ffff:127.0.0.1]:9999/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001:0:0:0:0:0:5601:5601]/",
    "http://localhost:9999/",
    "http://LOCALHOST.:9999/",
    "http://does-not-exist.invalid/",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_ALLOW_PRIVATE_NETWORKS": "false"})


@pytest.mark.parametrize("url", PRIVATE)
async def test_a_private_address_is_refused_in_every_spelling(guarded: Service, url: str) -> None:
    assert "url" in locations(problem(await guarded.client.post("/v1/endpoints", json={"url": url}), 422))
    reply = await guarded.api.post_task("fluxapi-ai/flux-kontext-pro", new_prompt(), webhook_url=url)
    assert "webhook_url" in locations(problem(reply, 422))


async def test_nothing_was_stored_of_the_refused(world: World, guarded: Service) -> None:
    assert await guarded.api.pages("/v1/endpoints") == []
    assert await guarded.api.pages("/v1/tasks") == []
    assert world.fluxapi_ai.server.requests == []


async def test_an_address_that_is_private_at_delivery_is_never_dialled(world: World) -> None:
    ours = await world.start()
    subscriber = world.receiver.subscriber("inside")
    endpoint = await ours.api.endpoint(subscriber.url)
    await ours.restart({"TASKHOOK_ALLOW_PRIVATE_NETWORKS": "false"})
    connections = world.receiver.server.connections
    prompt = new_prompt()
    world.fluxapi_ai.script(prompt, callback="success")
    task = await ours.api.submit("fluxapi-ai/flux-kontext-pro", prompt)
    await ours.api.finished(task["id"])

    async def attempted() -> list[dict[str, object]]:
        deliveries = await ours.api.deliveries(endpoint_id=endpoint["id"])
        return [attempt for delivery in deliveries for attempt in delivery["attempts"]]

    attempts = await until(attempted, what="an attempt that was refused")
    assert attempts[0]["error"]
    assert world.receiver.server.connections == connections
    assert subscriber.received == []
