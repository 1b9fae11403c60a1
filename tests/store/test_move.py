"""A move takes along all that is stored, in either direction, or leaves both databases as they were."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from service.core import lifecycle
from service.core.change import IdempotencyKey
from service.core.problems import Unavailable
from service.core.times import to_ms
from service.store import claims
from service.store.batch import Batch
from service.store.driver import Driver, Row, Session
from service.store.migrate import migrate
from service.store.move import KEYS, OWN, Progress, move
from tests.store.conftest import Store, build_driver, open_store
from tests.store.test_claims import claim, create, publish, put, subscribe
from tests.support.factory import make_task
from tests.support.postgres import database, shared_server

TABLES = {
    "sqlite": "select name from sqlite_master where type = 'table' and name not like 'sqlite_%'",
    "postgresql": "select tablename::text from pg_tables where schemaname = current_schema()",
}
FORGETFUL = """
create function forget() returns trigger language plpgsql as $$ begin new.status_code := 200; return new; end $$
"""
HOSTILE = "\u202ea 'quoted' \\ \N{SNOWMAN} \U0001f3a8\r\n"


def ignore(progress: Progress) -> None:
    """Nobody watches."""


async def use(store: Store) -> None:
    """A row at least in every table."""
    await subscribe(store)
    await publish(store, 3)
    await create(store, 4, metadata={"shop": HOSTILE})
    created = lifecycle.create(make_task(store.env), store.env)
    key = IdempotencyKey(key="order-1", fingerprint="f", task_id=created.tasks[0].id, created_at=store.env.now())
    await put(store, replace(created, idempotency=(key,)))
    await claim(store, free=2)

    async def work(batch: Batch) -> None:
        await claims.claim_due_deliveries(batch, 1, 40, 100)
        for statement in (
            "insert into attempts select id, 1, 5, 503, 12, 'status', null, 'busy' from deliveries",
            "insert into ended_sessions (id, until_ms) values ('s', 1)",
            "insert into api_keys (id, hint, digest, doc) values ('key_1', 'th_1', 'd', '{}')",
            "insert into faults (id, failures, first_ms, last_ms, reason) values ('task_1', 1, 1, 1 << 53, '')",
        ):
            await batch.session.execute(statement)

    await store.writer.run(work)


async def content(driver: Driver) -> dict[str, list[Row]]:
    await driver.open()
    async with driver.reading() as session:
        found = {}
        for table in KEYS:
            columns = ", ".join(str(name) for (name,) in await session.fetch(driver.columns_of, (table,)))
            found[table] = sorted(await session.fetch(f"select {columns} from {table}"), key=repr)
    await driver.close()
    return found


@pytest.fixture
async def addresses(tmp_path: Path) -> AsyncIterator[list[str]]:
    """A database in use, an empty one of the other kind, and another empty one of the first kind."""
    async with database(shared_server(), migrated=False) as url:
        yield [str(tmp_path / "first.db"), url, str(tmp_path / "third.db")]


async def test_every_table_is_moved_or_each_databases_own(store: Store) -> None:
    async with store.driver.reading() as session:
        stored = {str(name) for (name,) in await session.fetch(TABLES[store.driver.name])}
    assert stored == {*KEYS, *OWN}


async def test_from_sqlite_to_postgresql_and_back_it_is_the_same(addresses: list[str]) -> None:
    async with open_store(addresses[0]) as store:
        await use(store)
        now_ms = to_ms(store.env.now())
    first, second, third = (build_driver(address) for address in addresses)
    there = await move(first, second, now_ms, ignore)
    back = await move(second, third, now_ms, ignore)
    assert there == back and all(table.copied == table.compared == table.total > 0 for table in there)
    before = await content(first)
    assert all(before.values())
    assert await content(second) == before
    assert await content(third) == before


@pytest.mark.parametrize("direction", [1, -1])
async def test_who_moved_goes_on_with_what_was_due(addresses: list[str], direction: int) -> None:
    source, target = addresses[:2][::direction]
    async with open_store(source) as store:
        await create(store, 3)
        before = [task.id for task in (await claim(store, free=1)).tasks]
    await move(build_driver(source), build_driver(target), to_ms(store.env.now()), ignore)
    async with open_store(target, process=1) as store:
        after = [task.id for task in (await claim(store)).tasks]
        assert len(after) == 2 and not set(before) & set(after)
        await create(store, 1)
        numbers = [event.seq for event in await store.reads.events_after(0, 100)]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("direction", [1, -1])
async def test_a_database_that_is_used_is_not_moved(addresses: list[str], direction: int) -> None:
    source, target = addresses[:2][::direction]
    async with open_store(source) as store:
        await create(store, 1)
        with pytest.raises(Unavailable, match="stop it first"):
            await move(build_driver(source), build_driver(target), 1, ignore)
    if direction == 1:
        assert await is_empty(target)


async def test_what_arrives_differently_takes_everything_back(addresses: list[str]) -> None:
    async with open_store(addresses[0]) as store:
        await use(store)
    target = build_driver(addresses[1])
    await target.open()
    await migrate(target, 1)

    async def spoil(session: Session) -> None:
        await session.execute(FORGETFUL)
        await session.execute("create trigger a before insert on attempts for each row execute function forget()")

    await target.write(spoil)
    await target.close()
    with pytest.raises(Unavailable, match="differs") as refused:
        await move(build_driver(addresses[0]), target, 1, ignore)
    assert refused.value.cause.startswith("attempts:")
    assert await is_empty(addresses[1])


async def is_empty(address: str) -> bool:
    driver = build_driver(address)
    await driver.open()
    await migrate(driver, 1)
    async with driver.reading() as session:
        found = [await session.fetch(f"select 1 from {table}") for table in KEYS if table != "counters"]
    await driver.close()
    return not any(found)
