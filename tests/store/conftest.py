"""A real database with everything that writes to it and reads from it, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from service.core.times import to_ms
from service.store.bus import Bus
from service.store.driver import Driver
from service.store.migrate import migrate
from service.store.postgres import PostgresDriver, PostgresTimes
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver, SqliteTimes
from service.store.writer import Writer
from tests.support.env import FakeEnv
from tests.support.postgres import database, shared_server


class Store(msgspec.Struct, frozen=True, kw_only=True):
    driver: Driver
    writer: Writer
    reads: Reads
    bus: Bus
    env: FakeEnv


class _NumberedEnv(FakeEnv):
    """Each process makes ids of its own."""

    def __init__(self, process: int) -> None:
        super().__init__()
        self._count = process * 1_000_000


def build_driver(address: str, times: SqliteTimes | PostgresTimes | None = None) -> Driver:
    if address.startswith("postgresql:"):
        return PostgresDriver(address, times if isinstance(times, PostgresTimes) else PostgresTimes())
    return SqliteDriver(address, times if isinstance(times, SqliteTimes) else SqliteTimes())


@asynccontextmanager
async def open_store(
    address: str, process: int = 0, times: SqliteTimes | PostgresTimes | None = None
) -> AsyncIterator[Store]:
    """As one process does it."""
    env, bus, driver = _NumberedEnv(process), Bus(), build_driver(address, times)
    await driver.open()
    await migrate(driver, to_ms(env.now()))
    writer = Writer(driver, bus, env)
    writer.start()
    try:
        yield Store(driver=driver, writer=writer, reads=Reads(driver), bus=bus, env=env)
    finally:
        await writer.stop()
        await driver.close()


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A database on PostgreSQL, up to date and empty."""
    async with database(shared_server()) as found:
        yield found


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "sqlite":
        async with open_store(str(tmp_path / "taskhook.db")) as found:
            yield found
    else:
        async with database(shared_server()) as url, open_store(url) as found:
            yield found
