"""A sandbox on a real server, a client of it, and a real server that takes its callbacks."""

import asyncio
import json
import logging
import math
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from service.sandbox.app import Sandbox
from tests.support.server import Reply, Request, ScriptedServer
from tests.support.wait import PATIENCE_S, until

JOB_SECONDS = 0.02


class Pace:
    """The time of the jobs: each waits as long as it should, and longer while a test holds it."""

    def __init__(self) -> None:
        self._held_from_s = math.inf
        self._go_on = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if seconds >= self._held_from_s:
            await self._go_on.wait()

    def hold(self, at_least_s: float = 0.0) -> None:
        """From now on every wait of at least so many seconds lasts until `go_on`."""
        self._held_from_s = at_least_s

    def go_on(self) -> None:
        self._held_from_s = math.inf
        self._go_on.set()


class Inbox:
    """Takes callbacks; answers the first ones with `statuses`, all others with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._server = ScriptedServer(self._answer)

    async def _answer(self, request: Request) -> Reply:
        return Reply(self.statuses.pop(0) if self.statuses else 200)

    async def __aenter__(self) -> "Inbox":
        await self._server.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return f"{self._server.url}/callbacks/token"

    @property
    def requests(self) -> list[Request]:
        return self._server.requests

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [request.json for request in self.requests]

    async def expect(self, count: int) -> list[dict[str, Any]]:
        await until(lambda: len(self.requests) >= count)
        return self.bodies


@dataclass(frozen=True)
class Answered:
    """An HTTP answer in the plain words of the tests."""

    status: int
    body: dict[str, Any]
    headers: httpx.Headers = field(default_factory=httpx.Headers)


@dataclass(frozen=True)
class World:
    """`provider` calls take the provider's own fields; `prompt` is filled in when missing."""

    base_url: str
    client: httpx.AsyncClient
    inbox: Inbox
    sandbox: Sandbox
    pace: Pace

    async def post(self, path: str, body: object, **extras: Any) -> Answered:
        return _answered(await self.client.post(self.base_url + path, json=body, **extras))

    async def get(self, path: str, **extras: Any) -> Answered:
        return _answered(await self.client.get(self.base_url + path, **extras))

    async def flux_context(self, prompt: str = "a cat", **fields: object) -> Answered:
        body = {"prompt": prompt, "model": "flux-kontext-pro"} | fields
        return await self.post("/flux-context/v1/images/generations", body)

    async def fluxapi_ai(self, prompt: str = "a cat", **fields: object) -> Answered:
        body = {"prompt": prompt, "callBackUrl": self.inbox.url} | fields
        return await self.post("/fluxapi-ai/api/v1/flux/kontext/generate", body)

    async def acedata(self, prompt: str = "a cat", **fields: object) -> Answered:
        body = {"action": "generate", "prompt": prompt, "callback_url": self.inbox.url} | fields
        return await self.post("/acedata/flux/images", body)

    async def fluxapi_org(self, prompt: str = "a cat", **fields: object) -> Answered:
        body = {"prompt": prompt, "model": "flux-dev"} | fields
        return await self.post("/fluxapi-org/v1/images/generations", body)

    async def submit(self, provider: str, prompt: str) -> Answered:
        return await getattr(self, provider.replace("-", "_"))(prompt)

    async def poll(self, provider: str, task_id: str) -> Answered:
        if provider == "flux-context":
            return await self.get(f"/flux-context/v1/images/generations/{task_id}")
        if provider == "fluxapi-ai":
            return await self.get("/fluxapi-ai/api/v1/flux/kontext/record-info", params={"taskId": task_id})
        return await self.post("/acedata/flux/tasks", {"id": task_id})

    async def final(self, provider: str, task_id: str) -> dict[str, Any]:
        """The body of the first poll that says the task has ended."""

        async def ended() -> dict[str, Any] | None:
            answered = await self.poll(provider, task_id)
            return answered.body if state_of(provider, answered) in {"succeeded", "failed"} else None

        return await until(ended)


def id_of(provider: str, body: dict[str, Any]) -> str:
    if provider == "flux-context":
        return body["taskId"]
    return body["data"]["taskId"] if provider == "fluxapi-ai" else body["task_id"]


def state_of(provider: str, answered: Answered) -> str:
    """Return the state that a poll's answer means."""
    if "html" in answered.headers.get("content-type", ""):
        return f"html {answered.status}"
    if provider == "flux-context":
        return _flux_context_state(answered)
    return _fluxapi_ai_state(answered.body) if provider == "fluxapi-ai" else _acedata_state(answered.body)


def _flux_context_state(answered: Answered) -> str:
    if answered.status == 404:
        return "not found"
    names = {"processing": "running", "completed": "succeeded", "failed": "failed"}
    return names.get(answered.body["status"], "unknown")


def _fluxapi_ai_state(body: dict[str, Any]) -> str:
    if body["code"] == 422:
        return "not found"
    names = {0: "running", 1: "succeeded", 2: "failed", 3: "failed"}
    return names.get(body["data"]["successFlag"], "unknown")


def _acedata_state(body: dict[str, Any]) -> str:
    if not body:
        return "not found"
    response = body.get("response")
    if response is None:
        return "running"
    return {True: "succeeded", False: "failed"}.get(response.get("success"), "unknown")


def _answered(response: httpx.Response) -> Answered:
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return Answered(response.status_code, json.loads(response.content) if is_json else {}, response.headers)


@asynccontextmanager
async def open_world(**settings: Any) -> AsyncIterator[World]:
    # Naming the protocol is what makes asyncio send without delay; else each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/sandbox"
    pace = Pace()
    sandbox = Sandbox(base_url, **{"job_seconds": JOB_SECONDS, "sleep": pace.sleep} | settings)
    app = Starlette(routes=[Mount("/sandbox", sandbox.app)])
    client = httpx.AsyncClient(headers={"Authorization": "Bearer any"}, verify=False, timeout=PATIENCE_S)
    async with Inbox() as inbox, _serve(app, listener), client:
        try:
            yield World(base_url, client, inbox, sandbox, pace)
        finally:
            await sandbox.close()


@asynccontextmanager
async def _serve(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """A server without its main loop and its orderly shutdown, which sleep a tenth of a second each."""
    config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    try:
        yield
    finally:
        await until(lambda: not server.server_state.connections)
        for each in server.servers:
            each.close()
            await each.wait_closed()


@pytest.fixture
async def world(caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    """A sandbox that, whatever a test does to it, must not log an error."""
    async with open_world() as opened:
        yield opened
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
