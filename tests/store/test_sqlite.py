"""The SQLite file under faults: deleted, replaced, damaged, from the future; and its backup."""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.core import lifecycle
from service.core.problems import Unavailable
from service.core.task import TaskInput
from service.core.times import to_ms
from service.store import rows, sqlite_file, upkeep
from service.store.batch import Batch
from service.store.bus import Bus
from service.store.driver import Session
from service.store.migrate import migrate
from service.store.queries import TaskFilter
from service.store.sqlite import SqliteDriver, SqliteTimes
from service.store.writer import CHECK_S, Writer
from tests.store.conftest import Store, open_store
from tests.store.test_claims import create, publish, put, subscribe
from tests.support.env import FakeEnv
from tests.support.factory import make_task
from tests.support.wait import soon, until

ALL = (TaskFilter(), 1000, None)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    return tmp_path / "taskhook.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Store]:
    async with open_store(str(file)) as found:
        yield found


def count(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("select count(*) from tasks").fetchone()[0])


async def test_a_database_file_that_was_deleted_is_written_back_with_all_that_it_held(store: Store, file: Path) -> None:
    await create(store, 3)
    for name in (file, Path(f"{file}-wal"), Path(f"{file}-shm")):
        name.unlink()
    await create(store, 1)
    assert count(file) == 4
    await create(store, 1)
    assert count(file) == 5
    assert len((await store.reads.list_tasks(*ALL)).items) == 5


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(*paths: Path) -> list[str]:
    return [f"{path.stat().st_mode & 0o777:o}" for path in paths]


async def test_what_is_new_is_its_owners_alone_and_what_is_there_keeps_its_mode(
    tmp_path: Path, usual_umask: None
) -> None:
    file = tmp_path / "a" / "b" / "taskhook.db"
    logs = [Path(f"{file}-wal"), Path(f"{file}-shm")]
    async with open_store(str(file)) as store:
        await create(store, 1)
        assert modes(file, *logs) == ["600"] * 3 and modes(tmp_path / "a", tmp_path / "a" / "b") == ["700"] * 2
        copy = tmp_path / "c" / "d" / "copy.db"
        await asyncio.to_thread(sqlite_file.backup, str(file), str(copy))
        assert modes(copy, tmp_path / "c", tmp_path / "c" / "d") == ["600", "700", "700"]
    file.chmod(0o640)
    file.parent.chmod(0o755)
    async with open_store(str(file), 2) as store:
        await create(store, 1)
        assert modes(file, *logs, file.parent) == ["640", "640", "640", "755"]


@pytest.mark.parametrize("statement", [rows.UPSERT_TASK, rows.INSERT_ENTRY, rows.UPSERT_DELIVERY, rows.INSERT_ATTEMPT])
async def test_writing_a_row_makes_no_table_to_compare_it_with(store: Store, statement: str) -> None:
    async with store.driver.reading() as session:
        steps = [row[1] for row in await session.fetch(f"explain {statement}", (None,) * statement.count("?"))]
    assert "Insert" in steps
    assert "OpenEphemeral" not in steps


async def test_a_start_waits_for_another_that_makes_the_same_new_file(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        driver = SqliteDriver(str(file))
        opening = asyncio.create_task(driver.open())
        await asyncio.sleep(0.1)
        assert not opening.done()
        other.execute("commit")
        await soon(opening)
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)
        await driver.close()


async def test_a_deleted_folder_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "var" / "taskhook.db"
    async with open_store(str(file)) as store:
        await create(store, 1)
        shutil.rmtree(file.parent)
        await create(store, 1)
        assert count(file) == 2


async def test_another_file_of_that_name_is_not_written_to(store: Store, file: Path) -> None:
    await create(store, 1)
    file.rename(file.with_suffix(".old"))
    file.write_bytes(b"")
    with pytest.raises(Unavailable) as refused:
        await create(store, 1)
    assert refused.value.cause == "REPLACED"
    with pytest.raises(Unavailable):
        await store.writer.check()
    file.with_suffix(".old").rename(file)
    await create(store, 1)
    assert count(file) == 2


@pytest.mark.parametrize("damage", ["garbage", "cut", "a page of zeros"])
async def test_a_damaged_file_is_told_at_the_start(file: Path, damage: str) -> None:
    async with open_store(str(file)) as store:
        await create(store, 200)
    whole = file.read_bytes()
    broken = {
        "garbage": b"this is no database" * 1000,
        "cut": whole[: len(whole) // 2],
        "a page of zeros": whole[:8192] + bytes(8192) + whole[16384:],
    }[damage]
    file.write_bytes(broken)
    driver = SqliteDriver(str(file))
    with pytest.raises(Unavailable, match="damaged"):
        await driver.open()


async def test_a_database_of_a_newer_version_is_refused(store: Store) -> None:
    async def work(batch: Batch) -> int:
        return await batch.session.execute("insert into migrations (name, applied_ms) values ('9999_future', 1)")

    await store.writer.run(work)
    with pytest.raises(Unavailable, match="newer version") as refused:
        await migrate(store.driver, to_ms(store.env.now()))
    assert refused.value.cause == "9999_future"


async def test_a_backup_is_whole_and_of_one_moment_while_others_write(store: Store, file: Path, tmp_path: Path) -> None:
    writing = asyncio.create_task(create(store, 300))
    copies = [tmp_path / f"copy-{number}.db" for number in range(5)]
    for copy in copies:
        await asyncio.to_thread(sqlite_file.backup, str(file), str(copy))
    await writing
    sizes = [count(copy) for copy in copies]
    assert sizes == sorted(sizes) and copies[0].stat().st_mode & 0o777 == 0o600
    await asyncio.to_thread(sqlite_file.backup, str(file), str(copies[0]))
    assert count(copies[0]) == 300, "an older copy of that name is replaced"
    assert not list(tmp_path.glob("*.partial"))
    async with open_store(str(copies[0])) as restored:
        assert len((await restored.reads.list_tasks(*ALL)).items) == 300


async def test_what_waits_fails_at_once_in_a_locked_database(file: Path) -> None:
    async with open_store(str(file), times=SqliteTimes(lock_wait_s=0.5)) as store:
        tried, write = 0, store.driver.write

        async def counted(work: Any) -> Any:
            nonlocal tried
            tried += 1
            return await write(work)

        store.driver.write = counted
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("begin immediate")
            asks = [asyncio.create_task(create(store, 1)) for _ in range(1_000)]
            ended = await asyncio.gather(*asks, return_exceptions=True)
            other.execute("rollback")
        assert {type(problem) for problem in ended} == {Unavailable}
        assert tried == 1, "each of the eight batches waited for the lock"
        await create(store, 1)
        assert count(file) == 1


async def test_a_connection_that_an_error_of_the_disk_spoilt_is_made_anew(store: Store, file: Path) -> None:
    """It may go on failing when the disk is well again."""

    class Spoilt:
        in_transaction = False

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.close = connection.close

        def execute(self, *_: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_WRITE"
            raise error

    store.driver._writer._connection = Spoilt(store.driver._writer._conn)
    with pytest.raises(Unavailable):
        await create(store, 1)
    await create(store, 1)
    assert count(file) == 1


async def test_a_transaction_that_waits_for_anything_but_its_statements_is_taken_back(store: Store, file: Path) -> None:
    async def slow(session: Session) -> None:
        await session.execute("insert into limits (name, paused_ms, used) values ('x', 0, '{}')")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="not a statement"):
        await store.driver.write(slow)
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("select count(*) from limits").fetchone() == (0,)


async def test_a_full_queue_refuses_at_once(file: Path) -> None:
    driver, env = SqliteDriver(str(file)), FakeEnv()
    await driver.open()
    await migrate(driver, 1)
    narrow = Writer(driver, Bus(), env, queue_max=10)
    narrow.start()
    store = Store(driver=driver, writer=narrow, reads=None, bus=Bus(), env=env)  # type: ignore[arg-type]
    ended = await asyncio.gather(*(create(store, 1) for _ in range(100)), return_exceptions=True)
    kept = sum(problem is None for problem in ended)
    assert count(file) == kept >= 10
    assert {problem.cause for problem in ended if isinstance(problem, Unavailable)} == {"queue full"}
    await narrow.stop()
    await driver.close()


async def test_the_check_writes_when_nothing_was_written_lately_and_heals(store: Store, file: Path) -> None:
    store.env.pass_time(CHECK_S)
    await store.writer.check()
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("select count(*) from checks").fetchone() == (1,)
    await store.driver.close()
    await store.writer.check()  # it was tried a moment ago
    store.env.pass_time(CHECK_S)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await store.writer.check()
    await store.driver.open()
    store.env.pass_time(CHECK_S)
    await store.writer.check()


async def test_retention_leaves_what_is_held_or_parked(store: Store) -> None:
    await subscribe(store, enabled=False)
    await publish(store, 1)
    store.env.pass_time(31 * 86_400)
    assert await upkeep.delete_old(store.writer, store.env.now(), 30) == 0


@pytest.mark.parametrize("journal", ["", "-wal"])
async def test_erased_text_is_in_no_file_of_the_database(store: Store, file: Path, journal: str) -> None:
    words = [f"quokka{number:04}" for number in range(40)]
    for word in words:
        task = make_task(store.env, input=TaskInput(prompt=f"{word} " * 300), metadata={"word": word})
        await put(store, lifecycle.create(task, store.env))
        await store.writer.change_task(task.id, lambda found: lifecycle.cancel(found, store.env))
    await store.writer.scrub()
    assert b"quokka" in file.read_bytes()
    for task in (await store.reads.list_tasks(*ALL)).items:
        await upkeep.erase_task(store.writer, task.id)

    def gone() -> bool:
        path = Path(f"{file}{journal}")
        return not path.exists() or b"quokka" not in path.read_bytes()

    await until(gone)


# --- news of other processes ------------------------------------------------------------------------------------------


@pytest.fixture
async def hasty(file: Path) -> AsyncIterator[Store]:
    """A driver that polls at once and waits briefly for a connection."""
    async with open_store(str(file), times=SqliteTimes(look_again_s=0.005, reader_wait_s=1.0)) as found:
        yield found


@pytest.fixture
async def heard(hasty: Store) -> AsyncIterator[list[str]]:
    """Return what its listener received."""
    found: list[str] = []

    async def listen() -> None:
        async for topic in hasty.driver.listen():
            found.append(topic)

    listening = asyncio.create_task(listen())
    await _settled(found)
    yield found
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def _settled(heard: list[str]) -> None:
    """Every connection has looked, some of them twice."""
    count = -1
    while count != len(heard):
        count = len(heard)
        await asyncio.sleep(0.005 * 6)


async def test_a_commit_of_another_process_is_heard_whichever_connection_looks(
    hasty: Store, file: Path, heard: list[str]
) -> None:
    async with open_store(str(file), process=2) as other:
        for _ in range(3):  # one connection sees each of them, the other one all of them at once
            async with hasty.driver.reading():
                before = len(heard)
                await create(other, 1)
                await until(lambda before=before: len(heard) > before)
        await _settled(heard)
        for _ in range(3):
            before = len(heard)
            await create(other, 1)
            await until(lambda before=before: len(heard) > before)
            await _settled(heard)


async def test_a_moment_in_which_nothing_can_be_read_does_not_end_the_listening(
    hasty: Store, file: Path, heard: list[str]
) -> None:
    async with hasty.driver.reading(), hasty.driver.reading():
        with pytest.raises(Unavailable):
            await hasty.reads.last_position()
        await asyncio.sleep(0.03)
    async with open_store(str(file), process=2) as other:
        before = len(heard)
        await create(other, 1)
        await until(lambda: len(heard) > before)
