"""The SQLite driver: aiosqlite, WAL, synchronous=FULL, one connection that writes and a few that read."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import aiosqlite
import msgspec

from service.core.problems import Unavailable
from service.store.driver import Params, Row

BUSY_TIMEOUT_MS = 5_000
READERS = 2
LOOK_AGAIN_S = 0.25
_PASSING = ("BUSY", "LOCKED", "FULL", "IOERR", "READONLY", "CANTOPEN", "NOMEM", "PROTOCOL")


@contextmanager
def _passing_errors() -> Iterator[None]:
    """Errors of the machine, not of the statement, end by themselves: the caller should come again."""
    try:
        yield
    except sqlite3.OperationalError as error:
        name = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_")
        if name.startswith(_PASSING):
            raise Unavailable("The database can't be used right now.", cause=name) from error
        raise


class SqliteSession:
    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]:
        with _passing_errors():
            return [tuple(row) for row in await self._connection.execute_fetchall(sql, params)]

    async def execute(self, sql: str, params: Params = ()) -> int:
        with _passing_errors():
            return (await self._connection.execute(sql, params)).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        with _passing_errors():
            await self._connection.executemany(sql, rows)


class SqliteDriver:
    """One file. Another process may have it open too (web and worker apart): writes wait for it, and `listen` looks."""

    name = "sqlite"
    text = "text"
    for_update = ""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: aiosqlite.Connection | None = None
        self._readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()

    def skip_locked(self, table: str) -> str:
        """There is one writer at a time."""
        return ""

    async def take_turn(self, session: object, name: str) -> bool:
        return True

    def any_of(self, column: str) -> str:
        return f"{column} in (select value from json_each(?))"

    def many(self, values: Iterable[str]) -> str:
        return msgspec.json.encode(list(values)).decode()

    async def open(self) -> None:
        Path(self._path).parent.mkdir(parents=True, exist_ok=True)
        self._writer = await self._connect("pragma journal_mode = wal", "pragma synchronous = full")
        for _ in range(READERS):
            self._readers.put_nowait(await self._connect("pragma query_only = 1"))

    async def close(self) -> None:
        for _ in range(READERS):
            await (await self._readers.get()).close()
        if self._writer:
            await self._writer.close()
            self._writer = None

    async def _connect(self, *pragmas: str) -> aiosqlite.Connection:
        with _passing_errors():
            connection = await aiosqlite.connect(self._path, isolation_level=None)
            for pragma in (f"pragma busy_timeout = {BUSY_TIMEOUT_MS}", "pragma foreign_keys = 1", *pragmas):
                await connection.execute_fetchall(pragma)
        return connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqliteSession]:
        if self._writer is None:
            raise Unavailable("The database is closed.")
        session = SqliteSession(self._writer)
        await session.fetch("begin immediate")
        try:
            yield session
            await session.fetch("commit")
        except BaseException:
            if self._writer.in_transaction:  # a full disk has rolled it back already
                await session.fetch("rollback")
            raise

    def migrating(self) -> AbstractAsyncContextManager[SqliteSession]:
        return self.transaction()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[SqliteSession]:
        connection = await self._readers.get()
        try:
            yield SqliteSession(connection)
        finally:
            self._readers.put_nowait(connection)

    async def notify(self, session: object, topics: Iterable[str]) -> None:
        """SQLite tells nobody; `listen` of the other process finds out."""

    async def listen(self) -> AsyncIterator[str]:
        """Looks at the file's version, which any commit of any process moves: one small read a quarter of a second."""
        seen = None
        while True:
            async with self.reading() as session:
                version = (await session.fetch("pragma data_version"))[0][0]
            if seen not in (None, version):
                yield ""
            seen = version
            await asyncio.sleep(LOOK_AGAIN_S)
