"""The real application over a database that counts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.core.times import to_ms
from service.store.driver import Driver
from service.store.migrate import migrate
from service.store.postgres import PostgresDriver
from service.store.sqlite import SqliteDriver
from tests.performance.counting import CountingDriver
from tests.support.env import FakeEnv
from tests.support.postgres import database, shared_server
from tests.web.conftest import Site


class CountedSite(Site):
    """`counts` is its driver; PostgreSQL spends one statement more to tell other processes."""

    def __init__(self, counts: CountingDriver, env: FakeEnv) -> None:
        super().__init__(counts, env)  # type: ignore[arg-type]
        self.counts = counts
        self.tells_others = int(counts.name == "postgresql")


@asynccontextmanager
async def _open_site(driver: Driver) -> AsyncIterator[CountedSite]:
    counts, env = CountingDriver(driver), FakeEnv()
    await driver.open()
    try:
        await migrate(driver, to_ms(env.now()))
        site = CountedSite(counts, env)
        site.writer.start()
        yield site
        await site.writer.stop()
    finally:
        await driver.close()


@pytest.fixture(params=["sqlite", "postgres"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[CountedSite]:
    if request.param == "sqlite":
        async with _open_site(SqliteDriver(str(tmp_path / "taskhook.db"))) as found:
            yield found
    else:
        async with database(shared_server()) as url, _open_site(PostgresDriver(url)) as found:
            yield found
