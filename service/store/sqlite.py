"""The SQLite driver: aiosqlite, WAL, synchronous=FULL, one connection that writes and a few that read."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import aiosqlite
import msgspec
import structlog

from service.core.problems import Unavailable
from service.store import private_files, sqlite_file
from service.store.driver import Params, Row, Session

T = TypeVar("T")
log = structlog.get_logger()

READERS = 2
SET_AGAIN_S = 0.01
_READS = ("pragma query_only = 1",)
_WRITES = ("pragma journal_mode = wal", "pragma synchronous = full", "pragma secure_delete = on")
"""What is deleted is overwritten: an erased prompt must not stay in a free page."""
_ALONE = ("pragma locking_mode = exclusive", "pragma busy_timeout = 1000", "pragma synchronous = full")
"""With a log, the lock of this mode is given only while no other process has the file open."""
_PASSING = ("BUSY", "LOCKED", "FULL", "IOERR", "READONLY", "CANTOPEN", "NOMEM", "PROTOCOL")
_DAMAGED = ("CORRUPT", "NOTADB")
_SPOILS = ("IOERR", "READONLY", "CANTOPEN", *_DAMAGED)
"""After these a connection may never do well again, so that the next one is made anew."""


class SqliteTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Times of the driver: how long it waits for a lock and for a free connection, and how often `listen` looks."""

    lock_wait_s: float = 5.0
    reader_wait_s: float = 5.0
    look_again_s: float = 0.25


@contextmanager
def _passing_errors() -> Iterator[None]:
    """Errors of the machine, not of the statement, end by themselves: the caller should come again."""
    try:
        yield
    except OSError as error:
        raise Unavailable("The database can't be used right now.", cause=error.strerror or "OSError") from error
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
        if name.startswith(_PASSING):
            raise Unavailable("The database can't be used right now.", cause=name) from error
        if name.startswith(_DAMAGED):
            _refuse_damaged(name, error)
        raise


def _refuse_damaged(cause: str, error: Exception | None = None) -> NoReturn:
    raise Unavailable("The database file is damaged or none; put a backup in its place.", cause=cause) from error


class SqliteSession:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]:
        with _passing_errors():
            return [tuple(row) for row in await self.connection.execute_fetchall(sql, params)]

    async def execute(self, sql: str, params: Params = ()) -> int:
        with _passing_errors():
            return (await self.connection.execute(sql, params)).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        with _passing_errors():
            await self.connection.executemany(sql, rows)


class _Transaction:
    """A session for SQLite's own thread, where each statement is simply a call; `_transact` translates its errors."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]:
        return self.connection.execute(sql, params).fetchall()

    async def execute(self, sql: str, params: Params = ()) -> int:
        return self.connection.execute(sql, params).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        self.connection.executemany(sql, rows)


def _transact(connection: sqlite3.Connection, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
    with _passing_errors():
        try:
            connection.execute("begin immediate")
            answer = _run_through(work(_Transaction(connection)))
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                with suppress(sqlite3.Error):
                    connection.execute("rollback")
            raise
    return answer


def _run_through(work: Coroutine[Any, Any, T]) -> T:
    """Without an event loop: its statements are all that it may wait for, and these don't wait."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: T = end.value
        return answer
    work.close()
    raise RuntimeError("a transaction waited for something that is not a statement")


async def _set(connection: aiosqlite.Connection, pragma: str, wait_s: float) -> None:
    """Set a pragma, retrying for `wait_s`: of processes that open a new file at once, SQLite refuses all but one."""
    clock = asyncio.get_running_loop().time
    end = clock() + wait_s
    while True:
        try:
            await connection.execute_fetchall(pragma)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or clock() > end:
                raise
            await asyncio.sleep(SET_AGAIN_S)
        else:
            return


@contextmanager
def _told_if_used() -> Iterator[None]:
    try:
        yield
    except Unavailable as problem:
        if problem.cause.startswith(("BUSY", "LOCKED")):
            raise Unavailable("A service uses this database; stop it first.", cause=problem.cause) from problem
        raise


class SqliteDriver:
    """A file. Another process may have it open too (web and worker apart): writes wait for it, and `listen` polls."""

    name = "sqlite"
    is_alone = True
    text = "text"
    for_update = ""
    begin_to_migrate = "begin immediate"
    lock_table = ""
    columns_of = "select name from pragma_table_info(?) order by name"

    def __init__(self, path: str, times: SqliteTimes = SqliteTimes()) -> None:
        self._path = path
        self._times = times
        self._identity: sqlite_file.Identity | None = None
        self._is_open = False
        self._is_spoilt = False
        self._writer: aiosqlite.Connection | None = None
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    def skip_locked(self, table: str) -> str:
        """There is one writer at a time."""
        return ""

    async def take_turn(self, session: object, name: str) -> bool:
        return True

    def any_of(self, column: str, values: Collection[str]) -> tuple[str, Any]:
        if len(values) == 1:  # the rule where little goes on; a list would be a table of its own
            return f"{column} = ?", next(iter(values))
        return f"{column} in (select value from json_each(?))", msgspec.json.encode(list(values)).decode()

    def aside(self, column: str) -> str:
        return f"+{column}"

    def size_of(self, column: str) -> str:
        return f"length(cast({column} as blob))"

    def leading(self, column: str) -> str:
        return f"{column} = ?"

    async def check_usable(self, session: object) -> None:
        """SQLite has neither users nor encodings."""

    async def check_may_migrate(self, session: object) -> None:
        """As above."""

    async def open(self) -> None:
        self._is_open = True
        with _passing_errors():
            private_files.create(Path(self._path))  # SQLite gives its logs the same mode
        connections = [await self._connect(*_WRITES)]
        try:
            await self._check(connections[0])
            for _ in range(READERS):
                connections.append(await self._connect(*_READS))
        except BaseException:
            for connection in connections:
                await connection.close()
            raise
        self._writer, *readers = connections
        self._is_spoilt = False
        for reader in readers:
            self._readers.put_nowait(reader)
        self._identity = sqlite_file.identity(self._path)

    async def _check(self, connection: aiosqlite.Connection) -> None:
        """Raises Unavailable for a file that is damaged, as far as that shows in a short time."""
        if not sqlite_file.is_small(self._path):
            return
        found = await SqliteSession(connection).fetch("pragma quick_check(1)")
        if found != [("ok",)]:
            _refuse_damaged(str(found[0][0]).partition("\n")[2] or "quick_check")

    async def close(self) -> None:
        self._is_open = False
        await self._close()

    async def _close(self) -> None:
        if self._writer is None:
            return
        for _ in range(READERS):
            await (await self._readers.get()).close()
        await self._writer.close()
        self._writer = None

    async def _connect(self, *pragmas: str) -> aiosqlite.Connection:
        with _passing_errors():
            connection = aiosqlite.connect(self._path, isolation_level=None)
            try:
                await connection
            except BaseException:
                await asyncio.to_thread(connection._thread.join)  # it still has a word for this loop
                raise
            try:
                wait_s = self._times.lock_wait_s
                for pragma in (f"pragma busy_timeout = {wait_s * 1000:.0f}", "pragma foreign_keys = 1", *pragmas):
                    await _set(connection, pragma, wait_s)
            except BaseException:
                await connection.close()  # its thread would keep the process alive
                raise
        return connection

    async def write(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """As one hand-over to the thread of the connection: each would cost more than most statements."""
        connection = await self._usable_writer()
        try:
            answer: T = await connection._execute(_transact, connection._conn, work)  # type: ignore[no-untyped-call]
        except Unavailable as problem:
            self._is_spoilt |= problem.cause.startswith(_SPOILS)
            raise
        return answer

    async def _usable_writer(self) -> aiosqlite.Connection:
        """On the file that has our name: what is written to a deleted one would end with this process."""
        if not self._is_open:
            raise Unavailable("The database is closed.")
        found = sqlite_file.identity(self._path)
        if self._writer is None:
            await self._reopen(found)
        elif found is None:
            await self._write_back(self._writer)
        elif found != self._identity:
            raise Unavailable("Another file has the database's name; restart the service to use it.", cause="REPLACED")
        elif self._is_spoilt:
            fresh, spoilt = await self._connect(*_WRITES), self._writer
            self._writer, self._is_spoilt = fresh, False
            await spoilt.close()
        if self._writer is None:
            raise Unavailable("The database could not be opened.")
        return self._writer

    async def _reopen(self, found: sqlite_file.Identity | None) -> None:
        """After it could not be opened again. A file that is not there would be made, and empty."""
        if found is None:
            raise Unavailable("The database file is gone.", cause="GONE")
        await self.open()

    async def _write_back(self, writer: aiosqlite.Connection) -> None:
        """The file was deleted. What is open is still whole: it gets its name back."""
        with _passing_errors():
            partial = sqlite_file.new_copy(self._path)
        session = SqliteSession(writer)
        await session.fetch("pragma wal_checkpoint(truncate)")
        await session.fetch(sqlite_file.IN_PLACE, (partial,))
        with _passing_errors():
            sqlite_file.remove_logs(self._path)
            sqlite_file.put_in_place(partial, self._path)
        log.error("store.written_back", file=self._path, reason="The database file was deleted.")
        await self._close()
        sqlite_file.remove_logs(self._path)
        await self.open()

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[SqliteSession]:
        """The file has one writer at a time, so the transaction of each step is the guard."""
        connection = await self._connect(*_WRITES)
        try:
            yield SqliteSession(connection)
        finally:
            await connection.close()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[SqliteSession]:
        if sqlite_file.identity(self._path) is None:
            raise Unavailable("There is no such file.", cause=self._path)
        with _told_if_used():
            connection = await self._connect(*_ALONE)
        try:
            session = SqliteSession(connection)
            with _told_if_used():
                await session.execute("begin immediate")
            yield session
            await session.execute("commit")
        finally:
            await connection.close()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[SqliteSession]:
        try:
            async with asyncio.timeout(self._times.reader_wait_s):
                connection = await self._readers.get()
        except TimeoutError:
            raise Unavailable("Too many read at once.", cause="readers busy") from None
        try:
            yield SqliteSession(connection)
        except Unavailable as problem:
            if problem.cause.startswith(_SPOILS):
                connection = await self._renewed(connection)
            raise
        finally:
            self._readers.put_nowait(connection)

    async def _renewed(self, connection: aiosqlite.Connection) -> aiosqlite.Connection:
        """The same one when the file can't be opened now."""
        try:
            fresh = await self._connect(*_READS)
        except Unavailable:
            return connection
        await connection.close()
        return fresh

    async def scrub(self) -> None:
        connection = await self._connect(*_WRITES)
        try:
            ((busy, _, _),) = await SqliteSession(connection).fetch("pragma wal_checkpoint(truncate)")
        finally:
            await connection.close()
        if busy:
            raise Unavailable("The database is too busy to empty its log.", cause="BUSY")

    async def notify(self, session: object, topics: Iterable[str]) -> None:
        """SQLite has no notifications; `listen` of the other process polls."""

    async def listen(self) -> AsyncIterator[str]:
        """Looks at the file's version, which any commit of any process moves: one small read a quarter of a second."""
        seen: WeakKeyDictionary[aiosqlite.Connection, int] = WeakKeyDictionary()
        while True:
            if await self._has_moved(seen):
                yield ""
            await asyncio.sleep(self._times.look_again_s)

    async def _has_moved(self, seen: WeakKeyDictionary[aiosqlite.Connection, int]) -> bool:
        """Each connection counts versions in its own way. When nothing can be read now, the next look tells."""
        with suppress(Unavailable):
            async with self.reading() as session:
                version: int = (await session.fetch("pragma data_version"))[0][0]
            before = seen.get(session.connection)
            seen[session.connection] = version
            return version != before
        return False
