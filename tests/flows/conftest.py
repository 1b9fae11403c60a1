"""The real parts of a flow: one set for each module, since a process start costs a second.

With FLOWS_ON=replicas each service is two webs and two workers on one PostgreSQL instead of one process on SQLite.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from service.wiring import Timings
from tests.support.postgres import Server, shared_server
from tests.support.proxy import Proxy
from tests.support.receiver import Receiver
from tests.support.replicas import ON_REPLICAS, Replicas, new_database
from tests.support.service import Service
from tests.support.upstream import FAKES, FakeAcedata, FakeFluxapiAi, FakeFluxapiOrg, FakeFluxContext, FakeProvider


class World:
    """Four providers, a receiver, and the services that were started among them."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.fakes: dict[str, FakeProvider] = {fake.provider: fake() for fake in FAKES}
        self.receiver = Receiver()
        self.services: list[Any] = []
        self._directory = directory
        self._stack = stack

    async def open(self) -> None:
        for fake in self.fakes.values():
            await self._stack.enter_async_context(fake)
        await self._stack.enter_async_context(self.receiver)

    @property
    def flux_context(self) -> FakeFluxContext:
        return self._fake(FakeFluxContext)

    @property
    def fluxapi_ai(self) -> FakeFluxapiAi:
        return self._fake(FakeFluxapiAi)

    @property
    def acedata(self) -> FakeAcedata:
        return self._fake(FakeAcedata)

    @property
    def fluxapi_org(self) -> FakeFluxapiOrg:
        return self._fake(FakeFluxapiOrg)

    def _fake(self, kind: type[Any]) -> Any:
        return self.fakes[kind.provider]

    def service(self, env: dict[str, str] | None = None, *, beside: Service | None = None, **rest: Any) -> Service:
        """A service that is not started yet, on a database of its own or on the one of `beside`."""
        directory = beside.directory if beside else self._directory / f"service-{len(self.services)}"
        directory.mkdir(exist_ok=True)
        if beside:
            env = {"TASKHOOK_DATABASE_URL": beside.env["TASKHOOK_DATABASE_URL"], **(env or {})}
        if ON_REPLICAS and beside is None and not rest.keys() - {"timings"}:
            return cast(Service, self.replicas(env, directory=directory, **rest))
        made = Service(directory, self.fakes.values(), env, **rest)
        self._stack.push_async_callback(made.close)
        self.services.append(made)
        return made

    def replicas(
        self,
        env: dict[str, str] | None = None,
        *,
        server: Server | None = None,
        through: Proxy | None = None,
        timings: Timings | None = None,
        directory: Path | None = None,
    ) -> Replicas:
        """Two webs and two workers that are not started yet; `through` stands between them and their database."""
        url, create = new_database(server or shared_server(), through)
        if directory is None:
            directory = self._directory / f"replicas-{len(self.services)}"
            directory.mkdir()
        made = Replicas(directory, url, self.fakes.values(), env, timings=timings, before_launch=create)
        self._stack.push_async_callback(made.close)
        self.services.append(made)
        return made

    async def start(self, env: dict[str, str] | None = None, **rest: Any) -> Service:
        return await self.service(env, **rest).start()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(tmp_path_factory.mktemp("world"), stack)
        await made.open()
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the services said last."""
    report: Any = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and world is not None:
        for service in world.services:
            report.sections.append((f"log of {service.log_path.name}", service.log(tail=30)))
    return report
