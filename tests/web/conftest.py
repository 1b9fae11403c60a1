"""The real application over a real database; every answer is held against the OpenAPI document."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
import uvicorn

from service.core import lifecycle
from service.core.account import Account
from service.core.change import Change
from service.core.keys import render_key
from service.core.observation import Accepted, Observation
from service.core.schedule import Policy
from service.core.task import Task, Via
from service.core.times import to_ms
from service.core.tokens import CallbackTokens
from service.outbound.guard import Guard
from service.providers.base import Access
from service.store.bus import Bus
from service.store.ended_sessions import EndedSessions
from service.store.keys import KeyStore
from service.store.migrate import migrate
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver
from service.store.vault import Vault
from service.store.writer import Writer
from service.telemetry import Metrics
from service.web.context import Running, Store, Trust, WebContext
from service.web.edge import Limits, edge
from service.web.openapi import build_document
from service.web.routes import OPERATIONS, build_app
from tests.support.env import FakeEnv
from tests.support.factory import SECRET, picture
from tests.support.registry import PROVIDERS
from tests.support.service import free_port
from tests.support.wait import PATIENCE_S, until

KEY = "the-key-of-these-tests"
MODEL = "fluxapi-ai/flux-kontext-pro"
DOCUMENT: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(build_document(OPERATIONS)))


def make_access(name: str, **changes: Any) -> Access:
    provider = PROVIDERS[name]
    able = provider.capabilities
    account = Account(provider=name, base_url="http://127.0.0.1:9", secrets={"key": "provider-key"}, limits=able.limits)
    policy = Policy(callbacks=able.callbacks, polling=able.polling, blocking=able.blocking)
    access = Access(provider=provider, accounts={account.id: account}, policy=policy)
    return msgspec.structs.replace(access, **changes)


class Site:
    """An application and what is behind it."""

    def __init__(self, driver: SqliteDriver, env: FakeEnv) -> None:
        self.env = env
        self.driver = driver
        self.bus = Bus()
        self.metrics = Metrics()
        self.writer = Writer(driver, self.bus, env, self.metrics.record_finished)
        self.reads = Reads(driver)
        self.stopping = asyncio.Event()
        self.tokens = CallbackTokens(["a secret key"], list(PROVIDERS))
        self.vault = Vault(["a secret key"])
        self.keys = (render_key(number << 150) for number in range(1, 2_000))
        self.secrets = (f"{SECRET[:-2]}{number:02d}" for number in range(100))
        self.context = WebContext(
            env=env,
            store=Store(
                writer=self.writer,
                reads=self.reads,
                keys=KeyStore(driver, self.writer),
                bus=self.bus,
                ended_sessions=EndedSessions(driver, self.writer),
            ),
            providers={name: make_access(name) for name in PROVIDERS},
            trust=Trust(
                api_keys=("another-key", KEY),
                tokens=self.tokens,
                guard=Guard(allow_private=True, own_urls=["http://taskhook.test"]),
                vault=self.vault,
                new_secret=self.secrets.__next__,
                new_key=self.keys.__next__,
                secret_keys=("a secret key",),
            ),
            running=Running(metrics=self.metrics, stopping=self.stopping),
        )
        self.seen: set[tuple[str, str, int]] = set()

    def client(self, **changes: Any) -> httpx.AsyncClient:
        """A caller with a key; `changes` replace parts of the context, by dotted names with two underscores."""
        context = self.context
        for name, value in changes.items():
            group, _, field = name.partition("__")
            changed = msgspec.structs.replace(getattr(context, group), **{field: value}) if field else value
            context = msgspec.structs.replace(context, **{group: changed})
        transport = httpx.ASGITransport(build_app(context))
        return self._caller(transport=transport, base_url="http://taskhook.test")

    def _caller(self, **rest: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {KEY}"}
        hooks: dict[str, list[Callable[..., Any]]] = {"response": [self._check]}
        return httpx.AsyncClient(headers=headers, event_hooks=hooks, timeout=PATIENCE_S, trust_env=False, **rest)

    @contextlib.asynccontextmanager
    async def serve(self, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        """The same behind a real server, where connections and their ends matter."""
        context = self.context
        if changes:
            context = msgspec.structs.replace(context, running=msgspec.structs.replace(context.running, **changes))
        port = free_port()
        http = edge(Limits(connections=1_000), self.metrics, self.env)
        config = uvicorn.Config(build_app(context), port=port, http=http, ws="none", lifespan="off", log_config=None)  # type: ignore[arg-type]
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve())
        await until(lambda: server.started)
        try:
            async with self._caller(base_url=f"http://127.0.0.1:{port}") as client:
                yield client
        finally:
            self.stopping.set()
            server.should_exit = True
            await serving

    async def _check(self, response: httpx.Response) -> None:
        """The status is a documented one, and the body of the documented type."""
        method, path = response.request.method, response.request.url.path
        template = next((one for one in DOCUMENT["paths"] if _pattern(one).fullmatch(path)), None)
        if template is None:
            return
        operation = DOCUMENT["paths"][template].get("get" if method == "HEAD" else method.lower())
        if operation is None:
            answers = (204, 401, 405) if method == "OPTIONS" else (401, 405)
            assert response.status_code in answers, (method, path)
            return
        described = operation["responses"].get(str(response.status_code))
        assert described is not None, (method, template, response.status_code, await response.aread())
        self.seen.add((method, template, response.status_code))
        media_type = response.headers.get("content-type", "").partition(";")[0]
        content = described.get("content", {})
        assert media_type in content or not content, (method, template, media_type)
        with_ticket = "ticket" in response.request.url.params and response.is_success  # its view leaves fields out
        if "json" in media_type and method != "HEAD" and not with_ticket:
            schema = msgspec.json.encode(content[media_type]["schema"])
            _validator(schema).validate(msgspec.json.decode(await response.aread()))

    # --- what a worker and a provider would do ------------------------------------------------------------------------

    async def create(self, client: httpx.AsyncClient, **rest: Any) -> dict[str, Any]:
        body = {"model": MODEL, "input": {"prompt": "a lighthouse"}} | rest
        reply = await client.post("/v1/tasks", json=body)
        assert reply.status_code == 202, reply.text
        task: dict[str, Any] = reply.json()
        return task

    async def learn(self, task_id: str, observation: Observation, via: Via = "submit") -> Task:
        def decide(task: Task) -> Change:
            policy = self.context.providers[task.provider].policy
            if task.step == "submit":
                begun = lifecycle.begin(task, self.env, policy)
                task = begun.tasks[0]
            return lifecycle.advance(task, observation, via, self.env, policy)

        return (await self.writer.change_task(task_id, decide)).tasks[0]

    async def run(self, client: httpx.AsyncClient, provider_task_id: str = "job-1", **rest: Any) -> dict[str, Any]:
        """A task that its provider has accepted."""
        task = await self.create(client, **rest)
        await self.learn(task["id"], Accepted(provider_task_id=provider_task_id))
        return task

    async def succeed(self, client: httpx.AsyncClient, **rest: Any) -> dict[str, Any]:
        task = await self.run(client, **rest)
        await self.learn(task["id"], picture(), "poll")
        return task


@cache
def _validator(schema: bytes) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(msgspec.json.decode(schema) | {"components": DOCUMENT["components"]})


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"{token}", ".*", re.sub(r"{(id|provider|account)}", "[^/]+", template)))


_migrated: list[bytes] = []


async def _new_database(env: FakeEnv) -> bytes:
    """Made once: to migrate costs as much as many a test."""
    if not _migrated:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "taskhook.db"
            driver = SqliteDriver(str(file))
            await driver.open()
            await migrate(driver, to_ms(env.now()))
            await driver.close()
            _migrated.append(file.read_bytes())
    return _migrated[0]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    env = FakeEnv()
    file = tmp_path / "taskhook.db"
    file.write_bytes(await _new_database(env))
    driver = SqliteDriver(str(file))
    await driver.open()
    site = Site(driver, env)
    site.writer.start()
    yield site
    await site.writer.stop()
    await driver.close()


@pytest.fixture
async def client(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        yield client


def errors(reply: httpx.Response, status: int = 422) -> dict[str, str]:
    """The fields that a refusal names, by their dotted places."""
    assert reply.status_code == status, (reply.status_code, reply.text)
    assert reply.headers["content-type"] == "application/problem+json"
    return {".".join(map(str, error["loc"])): error["msg"] for error in reply.json().get("errors", [])}
