"""Migrations: each is applied once, none holds others up for long, and older code goes on or says why not."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from service.core.delivery import EndpointFilter
from service.core.problems import Unavailable
from service.store import migrate as migrating
from service.store.batch import Batch
from service.store.driver import Driver
from service.store.migrate import Migration, find_pending, known, migrate
from service.store.postgres import PostgresDriver, PostgresTimes
from service.store.sqlite import SqliteDriver
from tests.store.conftest import Store, open_store
from tests.store.test_claims import create, publish, subscribe
from tests.support.postgres import database, shared_server
from tests.support.wait import soon

EXPAND = Migration("9001_notes", "-- runs with: 0006\nalter table tasks add column note text;")
CONTRACT = Migration("9002_no_notes", "-- runs with: 9001\nalter table tasks drop column note;")
INDEX = Migration(
    "9001_index",
    "-- runs with: 0006\n-- outside of a transaction\n"
    "drop index concurrently if exists tasks_by_step;\ncreate index concurrently tasks_by_step on tasks (step);",
)


def also(monkeypatch: pytest.MonkeyPatch, *later: Migration) -> None:
    """From here on this process is of a later version."""
    monkeypatch.setattr(migrating, "known", lambda name: [*known(name), *later])


async def test_what_is_pending_is_told_and_nothing_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store.driver.reading() as session:
        assert await find_pending(store.driver, session) == []
        also(monkeypatch, EXPAND)
        assert await find_pending(store.driver, session) == [EXPAND.name]
        assert await find_pending(store.driver, session) == [EXPAND.name]


async def test_older_code_starts_on_what_it_can_work_with_and_refuses_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    also(monkeypatch, EXPAND)
    assert await migrate(store.driver, 1) == [EXPAND.name]
    monkeypatch.undo()
    assert await migrate(store.driver, 2) == []
    await create(store, 1)
    also(monkeypatch, EXPAND, CONTRACT)
    assert await migrate(store.driver, 3) == [CONTRACT.name]
    monkeypatch.undo()
    with pytest.raises(Unavailable, match="newer version") as refused:
        await migrate(store.driver, 4)
    assert refused.value.cause == CONTRACT.name


def test_every_migration_says_with_which_code_it_runs_from_the_time_that_is_stored() -> None:
    for name in ("sqlite", "postgresql"):
        found = known(name)
        assert [one.number for one in found] == sorted({one.number for one in found})
        assert all("-- runs with: " in one.script for one in found if one.number >= "0005")
    assert Migration("0009_x", "select 1").runs_with == "0009"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_processes_that_start_at_once_apply_each_migration_once(kind: str, tmp_path: Path) -> None:
    async def start(drivers: list[Driver]) -> list[str]:
        await asyncio.gather(*(driver.open() for driver in drivers))
        applied = await asyncio.gather(*(migrate(driver, 0) for driver in drivers))
        await asyncio.gather(*(driver.close() for driver in drivers))
        return sorted(name for names in applied for name in names)

    if kind == "sqlite":
        assert await start([SqliteDriver(str(tmp_path / "db")) for _ in range(3)]) == [m.name for m in known("sqlite")]
        return
    async with database(shared_server(), migrated=False) as url:
        assert await start([PostgresDriver(url) for _ in range(3)]) == [m.name for m in known("postgresql")]


async def test_a_migration_does_not_hold_up_those_behind_it_and_tries_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url, times=PostgresTimes(migration_lock_wait_s=0.1)) as store:
        await create(store, 1)
        also(monkeypatch, EXPAND)
        async with store.driver.transaction() as session:
            await session.fetch("select 1 from tasks limit 1")
            applying = asyncio.create_task(migrate(store.driver, 1))
            for _ in range(5):
                assert (await soon(store.reads.oldest_due_ms())) is not None
                await asyncio.sleep(0.1)  # a try to apply it is under way in some of these moments
            assert not applying.done()
        assert await soon(applying) == [EXPAND.name]


async def test_an_index_is_built_beside_writers_and_again_after_it_broke_off(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_store(url) as store, open_store(url, 2) as other:
        broken = Migration(INDEX.name, f"{INDEX.script}\nselect 1 / 0;")
        also(monkeypatch, broken)
        with pytest.raises(Exception, match="division by zero"):
            await migrate(store.driver, 1)
        monkeypatch.undo()
        also(monkeypatch, INDEX)
        _, *applied = await asyncio.gather(
            publish(store, 20), migrate(store.driver, 1), migrate(other.driver, 1), publish(other, 20)
        )
        assert sorted(map(len, applied[:2])) == [0, 1]
        assert len(await store.reads.events_after(0, 100)) == 40


async def test_statements_prepared_before_a_migration_go_on_after_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it changes the type of what they read, as no expanding one should."""
    wider = Migration("9001_wider", "alter table tasks alter column lease type numeric(30, 0);")
    async with open_store(url) as store:
        wrong: list[BaseException] = []

        async def work() -> None:
            while not stop.is_set():
                try:
                    await create(store, 1)
                    (await store.reads.list_entries("task"), await store.reads.last_position())
                    await publish(store, 1)
                except Exception as error:
                    wrong.append(error)

        stop = asyncio.Event()
        working = [asyncio.create_task(work()) for _ in range(4)]
        await publish(store, 20)
        also(monkeypatch, EXPAND)
        await migrate(store.driver, 1)
        await publish(store, 20)
        also(monkeypatch, EXPAND, Migration("9002_wider", wider.script))
        await migrate(store.driver, 1)
        await publish(store, 20)
        stop.set()
        await asyncio.gather(*working)
        assert wrong == []


async def test_an_older_replica_that_writes_an_endpoint_keeps_the_settings_it_does_not_know(store: Store) -> None:
    wanted = EndpointFilter(providers=("acedata",), models=("flux-dev",), metadata={"shop": "a"})
    endpoint_id = await subscribe(store, filter=wanted, metadata={"team": "data"}, timeout_s=3.0)
    endpoint = await store.reads.get_endpoint(endpoint_id)

    async def write_as_before(batch: Batch) -> None:
        upsert = "insert into endpoints (id, doc) values (?, ?) on conflict (id) do update set doc = excluded.doc"
        rows = await batch.session.fetch("select id, doc from endpoints")
        changed = [(row[0], row[1].replace('"failures":0', '"failures":3')) for row in rows]
        made = [("ep_older", rows[0][1].replace(endpoint_id, "ep_older"))]
        await batch.session.execute_many(upsert, changed + made)

    await store.writer.run(write_as_before)
    assert await store.reads.get_endpoint(endpoint_id) == msgspec.structs.replace(endpoint, failures=3)
    made = await store.reads.get_endpoint("ep_older")
    assert made.filter == EndpointFilter(providers=("acedata",), metadata={"shop": "a"})
    assert made.metadata == {}
