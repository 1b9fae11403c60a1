"""PostgreSQL keeps the plan of a prepared statement; one made on an empty store must stay good when the store fills.

Nothing replans a cached statement until autovacuum analyzes its tables, a minute or more after they grew.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio

from bench.fill import LARGE, created_at_ms, fill, shape_of
from service.core.account import Limits
from service.core.ids import prefixed_uuid7
from service.core.problems import NotFound
from service.store import claims
from service.store.batch import Batch, Keys, Subscribers
from service.store.driver import ReadSession, Session
from service.store.migrate import migrate
from service.store.postgres import PostgresDriver
from service.store.queries import TaskFilter
from service.store.reads import Reads
from tests.support.env import FakeEnv
from tests.support.factory import CALLS_BACK
from tests.support.plans import NOW
from tests.support.postgres import database, shared_server

TASKS = 20_000
SHAPE = shape_of(TASKS, 0.1, 0.1, NOW)
PAGE = 10
ROUNDS = 12
"""More than the five executions after which PostgreSQL may keep a generic plan, on each of four readers."""
ROWS_MAX = 1_000
"""Rows that all statements of one flow may read together; a scan of one table reads 20,000."""
ROWS_READ = """
select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_xact_user_tables
where relname in ('tasks', 'labels', 'timeline', 'events', 'deliveries', 'attempts', 'idempotency_keys')
"""


def _id(kind: str, number: int) -> str:
    prefix = prefixed_uuid7(kind, 0, 0).partition("_")[0]
    return f"{prefix}_{created_at_ms(SHAPE, number):012x}70008000{number:012x}"


async def _claim_tasks(batch: Batch) -> None:
    limits = Limits(submits=1_000, window_s=1, max_in_flight=100)
    await claims.claim_due_tasks(batch, "fluxapi-ai", CALLS_BACK, limits, PAGE)


async def _claim_deliveries(batch: Batch) -> None:
    await claims.claim_due_deliveries(batch, PAGE, 40, 1_000)


async def _load_named_rows(batch: Batch) -> None:
    tasks, deliveries = (tuple(_id(kind, n) for n in range(5, 8)) for kind in ("task", "delivery"))
    await batch.load([Keys(tasks=tasks, deliveries=deliveries, idempotency=("order-x",))])


async def _list_tasks(reads: Reads) -> None:
    await reads.list_tasks(TaskFilter(), PAGE, None)


async def _list_tasks_of_an_order(reads: Reads) -> None:
    await reads.list_tasks(TaskFilter(metadata={"order": "77"}), PAGE, None)


async def _list_failed_tasks(reads: Reads) -> None:
    await reads.list_tasks(TaskFilter(status="failed"), PAGE, _id("task", TASKS // 2))


async def _look_at_a_task(reads: Reads) -> None:
    with suppress(NotFound):  # the store is empty when the statement is prepared
        await reads.get_task(_id("task", 100))
    await reads.list_entries(_id("task", 100))


class _OnOneConnection:
    """The driver, except that all reads go to one session."""

    def __init__(self, driver: PostgresDriver, session: ReadSession) -> None:
        self._driver, self._session = driver, session

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[ReadSession]:
        yield self._session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)


class _TakenBack(Exception):
    pass


async def _rows_written_by(driver: PostgresDriver, work: Callable[[Batch], Awaitable[None]]) -> int:
    """Rows read by one transaction, which is rolled back."""
    read = 0

    async def transaction(session: Session) -> None:
        nonlocal read
        batch = Batch(session, driver, FakeEnv(NOW), Subscribers())
        await work(batch)
        read = int((await session.fetch(ROWS_READ))[0][0])
        raise _TakenBack

    with pytest.raises(_TakenBack):
        await driver.write(transaction)
    return read


async def _rows_read_by(driver: PostgresDriver, look: Callable[[Reads], Awaitable[None]]) -> int:
    async with driver.reading() as session:
        await session.fetch("begin")
        await look(Reads(_OnOneConnection(driver, session)))  # type: ignore[arg-type]
        read = int((await session.fetch(ROWS_READ))[0][0])
        await session.fetch("rollback")
    return read


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def driver() -> AsyncIterator[PostgresDriver]:
    """A store of 20,000 tasks whose connections prepared their statements while it was empty."""
    async with database(shared_server()) as url:
        driver = PostgresDriver(url)
        await driver.open()
        await migrate(driver, 0)
        async with driver.migrating() as session:
            for table in LARGE:  # now, since altering a table makes PostgreSQL plan its statements again
                await session.execute(f"alter table {table} set (autovacuum_enabled = false)")
            await session.execute("analyze")  # as autovacuum does soon after the first rows
        for _ in range(ROUNDS):
            for work in WRITES:
                await _rows_written_by(driver, work)
            for look in READS:
                await _rows_read_by(driver, look)
        await fill(driver, SHAPE, statistics="none")
        yield driver
        await driver.close()


WRITES = (_claim_tasks, _claim_deliveries, _load_named_rows)
READS = (_list_tasks, _list_tasks_of_an_order, _list_failed_tasks, _look_at_a_task)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("work", WRITES)
async def test_a_claim_prepared_on_an_empty_store_reads_few_rows_of_a_full_one(
    driver: PostgresDriver, work: Callable[[Batch], Awaitable[None]]
) -> None:
    assert 0 < await _rows_written_by(driver, work) < ROWS_MAX


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("look", READS)
async def test_a_listing_prepared_on_an_empty_store_reads_few_rows_of_a_full_one(
    driver: PostgresDriver, look: Callable[[Reads], Awaitable[None]]
) -> None:
    assert 0 < await _rows_read_by(driver, look) < ROWS_MAX
