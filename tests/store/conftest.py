"""A real database with everything that writes to it and reads from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from service.core.times import to_ms
from service.store.bus import Bus
from service.store.driver import Driver
from service.store.migrate import migrate
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver
from service.store.writer import Writer
from tests.support.env import FakeEnv


class Store(msgspec.Struct, frozen=True, kw_only=True):
    driver: Driver
    writer: Writer
    reads: Reads
    bus: Bus
    env: FakeEnv


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    env, bus = FakeEnv(), Bus()
    driver = SqliteDriver(str(tmp_path / "taskhook.db"))
    await driver.open()
    await migrate(driver, to_ms(env.now()))
    writer = Writer(driver, bus, env)
    writer.start()
    yield Store(driver=driver, writer=writer, reads=Reads(driver), bus=bus, env=env)
    await writer.stop()
    await driver.close()
