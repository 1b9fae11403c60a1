"""The real parts of a flow: one set for each module, since a process start costs a second."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.receiver import Receiver
from tests.support.service import Service
from tests.support.upstream import FAKES, FakeAcedata, FakeFluxapiAi, FakeFluxapiOrg, FakeFluxContext, FakeProvider


class World:
    """Four providers, a receiver, and the services that were started among them."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.fakes: dict[str, FakeProvider] = {fake.provider: fake() for fake in FAKES}
        self.receiver = Receiver()
        self.services: list[Service] = []
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
        made = Service(directory, self.fakes.values(), env, **rest)
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
