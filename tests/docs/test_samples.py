"""The samples of all pages for a shell, and those of the client, run against a service that `make run` started."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from textwrap import indent
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from taskhook import webhooks

from tests.docs.conftest import Checkout
from tests.docs.samples import QUICKSTART, STEPS, Sample, of_kind
from tests.support.api import Api, ok
from tests.support.server import Reply, Request, ScriptedServer
from tests.support.wait import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHELL = of_kind("shell")


class World:
    """The checkout with its service, a subscriber, and what samples ask for."""

    def __init__(self, checkout: Checkout, client: httpx.AsyncClient, subscriber: ScriptedServer) -> None:
        self.checkout = checkout
        self.client = client
        self.api = Api(client)
        self.subscriber = subscriber
        self.key = client.headers["Authorization"].removeprefix("Bearer ")
        self.at_once = asyncio.Semaphore(4)
        """Most of the time of a sample is waiting."""

    async def furnish(self) -> None:
        self.endpoint = await self.api.endpoint(f"{self.subscriber.url}/hook")
        event, erased = await asyncio.gather(self.task_event(), self.task_event())
        self.event_id, self.task_id, self.erased_id = event["id"], event["data"]["id"], erased["data"]["id"]
        delivery, *_ = await self.api.deliveries(task_id=self.task_id)
        self.delivery_id = delivery["id"]

    async def task_event(self) -> dict[str, Any]:
        """The event of a new task that succeeded."""
        task = await self.api.submit("fluxapi-ai/flux-kontext-pro", "a lighthouse")
        await self.api.finished(task["id"])
        (event,) = await self.api.events(task["id"])
        return event

    async def run(self, sample: Sample) -> str:
        async with self.at_once:
            given = {"TASKHOOK_SANDBOX": "true", "TASKHOOK_URL": self.checkout.url, "TASKHOOK_API_KEY": self.key}
            path = f"{self.checkout.directory}/.venv/bin:{self.checkout.env['PATH']}"
            env = given | {"KEY": self.key, "PATH": path} | await self._ids(sample.text)
            text = self.checkout.adapt(sample.text, self.subscriber.port)
            for shown, real in self._real(env).items():
                text = text.replace(shown, real)
            return await self.checkout.run(text, sample.ready, env)

    def _real(self, env: dict[str, str]) -> dict[str, str]:
        """Return real values for the placeholders of a page."""
        (self.checkout.directory / "backups").mkdir(exist_ok=True)
        return {
            "https://taskhook.example.com": self.checkout.url,
            "/backups/": "backups/",
            "evt_...": self.event_id,
            "task_...": self.task_id,
            "key_...": env.get("KEY_ID", ""),
        }

    async def _ids(self, text: str) -> dict[str, str]:
        """Each sample gets what it can work on: one that ends a thing has one of its own."""
        ids = {"TASK_ID": self.task_id, "ENDPOINT_ID": self.endpoint["id"]}
        ids |= {"EVENT_ID": self.event_id, "DELIVERY_ID": self.delivery_id}
        if "/cancel" in text or "/poll" in text:
            ids["TASK_ID"] = (await self.api.submit("acedata/flux-dev", "a lighthouse sandbox:slow"))["id"]
            await self.api.in_state(ids["TASK_ID"], "running")
        elif "-X DELETE" in text:
            ids["TASK_ID"] = self.erased_id
            ids["ENDPOINT_ID"] = (await self.api.endpoint(f"{self.subscriber.url}/short-lived"))["id"]
        if "KEY_ID" in text or "key_..." in text:
            body = {"name": "short-lived", "scopes": ["tasks:read"]}
            ids["KEY_ID"] = ok(await self.client.post("/v1/keys", json=body), 201)["id"]
        return ids

    async def follow(self, steps: list[Sample]) -> None:
        for step in steps:
            await self.checkout.follow(step)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A service that the first step of the quickstart started."""
    async with AsyncExitStack() as stack:
        checkout = Checkout(tmp_path_factory.mktemp("docs"))
        stack.push_async_callback(checkout.close)
        subscriber = ScriptedServer(_take)
        await subscriber.listen()
        stack.push_async_callback(subscriber.close)
        await checkout.follow(STEPS[0])
        key = json.loads((checkout.directory / "var" / "dev.json").read_text())["api_key"]
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=checkout.url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S, trust_env=False
            )
        )
        yield World(checkout, client, subscriber)


async def _take(request: Request) -> Reply:
    return Reply(204)


Outcomes = dict[Any, asyncio.Task[Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def outcomes(world: World) -> AsyncIterator[Outcomes]:
    """All begun at once, as each waits more than it works; a test awaits its own."""
    begun: Outcomes = {QUICKSTART: asyncio.create_task(world.follow(STEPS[1:]))}
    try:
        await world.furnish()
        begun |= {sample: asyncio.create_task(world.run(sample)) for sample in SHELL}
        yield begun
    finally:
        for task in begun.values():
            task.cancel()
        await asyncio.gather(*begun.values(), return_exceptions=True)


@pytest.mark.parametrize("sample", SHELL, ids=str)
async def test_a_shell_sample_runs(sample: Sample, outcomes: Outcomes) -> None:
    await outcomes[sample]


async def test_the_quickstart_works_as_it_stands(outcomes: Outcomes, world: World) -> None:
    await outcomes[QUICKSTART]
    assert list((world.checkout.directory / "out").iterdir())


AROUND = {
    "from taskhook import Taskhook": "{sample}",
    "task = client.tasks.create(": "{sample}",
    "from taskhook import TaskEvent": """
def receive(body, headers):
{indented}
assert receive(body, headers) is None
assert receive(body + b" ", headers) == 400
""",
    "with client.events.stream(": """
try:
{indented}
except StopAsyncIteration as done:
    assert done.value == next_id
""",
    "client = Taskhook(timeout=10": "{sample}",
}
"""What a page leaves to its reader's program, by the beginning of the sample."""

GIVEN = """
import httpx
saved, next_id, task_id, secret, body, headers = {given}
def save(event_id):
    stopped = StopAsyncIteration()
    stopped.value = event_id
    raise stopped
"""


def program(given: tuple[Any, ...], samples: list[Sample]) -> str:
    parts = [GIVEN.format(given=repr(given))]
    for sample in samples:
        around = next(text for start, text in AROUND.items() if sample.text.startswith(start))
        parts.append(around.format(sample=sample.text, indented=indent(sample.text, "    ")))
    return "\n".join(parts)


async def test_the_samples_of_the_client_run_as_one_program(world: World) -> None:
    first, second, *_ = [await world.task_event() for _ in "12"]
    proxied: list[str] = []

    async def pass_on(request: Request) -> Reply:
        proxied.append(request.target)
        return Reply(200, (await world.client.get(urlsplit(request.target).path)).json())

    body, secret = json.dumps(second).encode(), "whsec_" + base64.b64encode(b"s" * 24).decode()
    headers = webhooks.sign(body, secret, id=second["id"])
    proxy = ScriptedServer(pass_on)
    await proxy.listen()
    try:
        ids = [event["id"] for event in await world.api.events()]  # those of other samples stand between the two
        next_id = ids[ids.index(first["id"]) + 1]
        given = (first["id"], next_id, second["data"]["id"], secret, body, headers)
        text = program(given, of_kind("client")).replace("proxy:3128", f"127.0.0.1:{proxy.port}")
        path = world.checkout.directory / "client.py"
        path.write_text(text)
        env = {"TASKHOOK_URL": world.checkout.url, "TASKHOOK_API_KEY": world.key}
        said = await world.checkout.run(f"{sys.executable} {path}", "", env)
    finally:
        await proxy.close()
    assert proxied == [f"{world.checkout.url}/v1/tasks/{second['data']['id']}"]
    assert said.count(f"{world.checkout.url}/sandbox/") == 2, said
