"""A server whose answers are scripted by path, names that a test decides, and both event loops."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from service.outbound.client import Poster, ProviderClient
from service.outbound.guard import Guard
from service.providers.base import HttpRequest
from tests.support.server import Answer, Reply, Request, ScriptedServer
from tests.support.wait import PATIENCE_S

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class FakeEnv:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        raise NotImplementedError

    def new_id(self, prefix: str) -> str:
        raise NotImplementedError

    def jitter(self, seconds: float) -> float:
        raise NotImplementedError


class FakeNames(AbstractResolver):
    """Each name has a list of answers; the last one stays. An answer without addresses is a failed look-up."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.names.get(host.removesuffix("."), [[]])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [
            ResolveResult(hostname=host, host=ip, port=port, family=kinds[":" in ip], proto=6, flags=0) for ip in found
        ]

    async def close(self) -> None:
        pass


class Script:
    """The scripted server; a path without a script is answered 200."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.server = ScriptedServer(self._answer)

    async def _answer(self, request: Request) -> Answer:
        return self.answers.get(request.path, Reply(200, "fine"))

    def url(self, answer: Answer | None = None) -> str:
        path = f"/{len(self.answers)}"
        if answer is not None:
            self.answers[path] = answer
        return self.server.url + path


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    await script.server.listen()
    yield script
    await script.server.close()


@pytest.fixture
async def poster() -> AsyncIterator[Poster]:
    poster = Poster(Guard(allow_private=True), timeout_s=PATIENCE_S)
    yield poster
    await poster.close()


@pytest.fixture
async def client() -> AsyncIterator[ProviderClient]:
    client = ProviderClient(FakeEnv())
    yield client
    await client.close()


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def submit(url: str, *, timeout_s: float = PATIENCE_S, headers: dict[str, str] | None = None) -> HttpRequest:
    return HttpRequest(method="POST", url=url, headers=headers or {}, body=b'{"prompt":"x"}', timeout_s=timeout_s)
