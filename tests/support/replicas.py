"""The real service as users run several of it: two webs and two workers on one PostgreSQL, behind one address."""

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from service.wiring import Timings
from tests.support.api import Api
from tests.support.postgres import Server, command
from tests.support.proxy import Proxy
from tests.support.service import API_KEY, Service, Stopped
from tests.support.upstream import FakeProvider
from tests.support.wait import PATIENCE_S

ON_REPLICAS = os.environ.get("FLOWS_ON") == "replicas"
"""Set by `make flows-on-replicas`: each service of a flow is then these four processes."""
_numbers = itertools.count(1)


def of_one_process(reason: str) -> pytest.MarkDecorator:
    """A test about one process or one SQLite file, which says nothing about replicas."""
    return pytest.mark.skipif(ON_REPLICAS, reason=reason)


def new_database(server: Server, through: Proxy | None) -> tuple[str, Callable[[], Coroutine[Any, Any, None]]]:
    """The URL of a database that is not there yet, and what makes it."""
    name = f"replicas_{os.getpid()}_{next(_numbers)}"
    url = server.url(name)
    if through is not None:
        url = url.replace(f":{server.port}/", f":{through.port}/")
    return url, lambda: command(server, f"create database {name}")


class Replicas:
    """To a flow it is like one `Service`; a request is a connection, and each goes to the next web."""

    def __init__(
        self,
        directory: Path,
        database_url: str,
        fakes: Iterable[FakeProvider] = (),
        env: dict[str, str] | None = None,
        *,
        timings: Timings | None = None,
        before_launch: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.directory = directory
        self.balancer = Proxy()
        self.port = self.balancer.port
        self.url = f"http://127.0.0.1:{self.port}"
        self._before_launch = before_launch
        shared = {"TASKHOOK_DATABASE_URL": database_url, "TASKHOOK_PUBLIC_URL": self.url}
        fakes = list(fakes)

        def made(kind: str) -> Service:
            return Service(directory, fakes, {**shared, **(env or {})}, command=kind, timings=timings)

        self.webs = [made("web") for _ in range(2)]
        self.workers = [made("worker") for _ in range(2)]
        for worker in self.workers:  # the simulator of the providers is in the memory of one web
            worker.env["TASKHOOK_PORT"] = self.webs[0].env["TASKHOOK_PORT"]
        self.balancer.ports = [web.port for web in self.webs]
        self.client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=200, max_keepalive_connections=0),
        )
        self.api = Api(self.client)

    @property
    def all(self) -> list[Service]:
        return [*self.webs, *self.workers]

    @property
    def env(self) -> dict[str, str]:
        return self.webs[0].env

    @property
    def log_path(self) -> Path:
        return self.directory / "replicas.log"

    def pass_time(self, seconds: float) -> None:
        """Move the clock of all of them."""
        self.webs[0].pass_time(seconds)

    async def start(self) -> Self:
        await self.launch()
        await self.ready()
        return self

    async def launch(self) -> None:
        await self.balancer.start()
        if self._before_launch is not None:
            await self._before_launch()
            self._before_launch = None
        await asyncio.gather(*(one.launch() for one in self.all))

    async def ready(self) -> None:
        await asyncio.gather(*(one.ready() for one in self.all))

    async def kill(self) -> None:
        await asyncio.gather(*(one.kill() for one in self.all))

    async def terminate(self, at_most_s: float = PATIENCE_S) -> Stopped:
        begun = time.monotonic()
        ended = await asyncio.gather(*(one.terminate(at_most_s) for one in self.all))
        return Stopped(max(one.code for one in ended), time.monotonic() - begun)

    async def restart(self, env: dict[str, str] | None = None) -> None:
        await self.kill()
        for one in self.all:
            one.env |= env or {}
        await self.start()

    async def close(self) -> None:
        await self.client.aclose()
        await asyncio.gather(*(one.close() for one in self.all))
        await self.balancer.stop()

    async def metrics(self) -> list[str]:
        return [text for web in self.webs for text in await web.metrics()]

    def logs(self) -> list[str]:
        return [one.log() for one in self.all]

    def log(self, tail: int | None = None) -> str:
        """Return the logs of all, one after the other."""
        return "\n".join(one.log(tail) for one in self.all)
