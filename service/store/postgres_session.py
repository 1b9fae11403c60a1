"""Statements on connections to PostgreSQL, and what its errors mean to those who wait."""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

import asyncpg
from asyncpg import Connection

from service.core.problems import Unavailable
from service.store.driver import Contended, Params, Row

BEGIN_TO_READ = "begin isolation level read committed read only; set local statement_timeout = '20s'"
ROLL_BACK_S = 5.0
_CONTENDED = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,  # two with the same idempotency key at once: the next try sees the other's
    asyncpg.InvalidCachedStatementError,  # a migration went by
)
_PASSING = (
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby, or a primary that became one
    asyncpg.PostgresIOError,
    asyncpg.InsufficientPrivilegeError,  # until an administrator grants it
)
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,  # the server's farewell came between two statements, and the driver lost its place
    OSError,
)
ANY_ERROR = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_INSERT = re.compile(r"values \((\?(?:, \?)*)\)")


@lru_cache(1024)
def numbered(sql: str) -> str:
    """`?` as `$1`, `$2`; no statement of ours has a question mark in a literal."""
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def unavailable(error: Exception) -> Unavailable:
    return Unavailable("The database can't be used right now.", cause=_words(error))


@contextmanager
def passing_errors(connection: Connection) -> Iterator[None]:
    """Errors of the machine and of others, not of the statement, end by themselves."""
    try:
        yield
    except ANY_ERROR as error:
        if isinstance(error, _CONTENDED):
            raise Contended("Others were in the way.", cause=_words(error)) from error
        if isinstance(error, _LOST) or connection.is_closed():
            connection.terminate()
            if isinstance(error, TimeoutError):  # trying again would take as long again
                raise unavailable(error) from error
            raise Contended("The connection to the database was lost.", cause=_words(error)) from error
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            connection.terminate()  # the next one goes to the primary
        if isinstance(error, _PASSING):
            raise unavailable(error) from error
        raise


def storable(params: Params) -> list[Any]:
    """PostgreSQL's text holds no NUL, and strangers send one."""
    return [p.replace("\0", "\ufffd") if p.__class__ is str and "\0" in p else p for p in params]


class PostgresSession:
    def __init__(self, connection: Connection, types: dict[str, str]) -> None:
        self.connection = connection
        self._types = types

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]:
        with passing_errors(self.connection):
            return [tuple(row) for row in await self.connection.fetch(numbered(sql), *storable(params))]

    async def execute(self, sql: str, params: Params = ()) -> int:
        with passing_errors(self.connection):
            status = await self.connection.execute(numbered(sql), *storable(params))
        affected = status.rpartition(" ")[2]
        return int(affected) if affected.isdigit() else 0

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None:
        """An insert is one statement whose parameters are columns: about half the work of one a row."""
        found = [storable(row) for row in rows]
        with passing_errors(self.connection):
            if _INSERT.search(sql):
                await self.connection.execute(await self._columnar(sql), *zip(*found, strict=True))
            else:
                await self.connection.executemany(numbered(sql), found)

    async def _columnar(self, sql: str) -> str:
        if sql not in self._types:
            statement = await self.connection.prepare(numbered(sql))
            arrays = ", ".join(f"?::{kind.name}[]" for kind in statement.get_parameters())
            self._types[sql] = numbered(_INSERT.sub(f"select * from unnest({arrays})", sql))
        return self._types[sql]


async def roll_back(connection: Connection) -> None:
    """A connection that can't do it is dropped, which does the same."""
    if connection.is_closed():
        return
    try:
        await connection.execute("rollback", timeout=ROLL_BACK_S)
    except BaseException as error:
        connection.terminate()
        if not isinstance(error, ANY_ERROR):
            raise


class Reader:
    """A slot of the pool. A read on a connection that died is repeated."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]], is_pooled: Callable[[], bool]) -> None:
        self._connect = connect
        self._is_pooled = is_pooled
        self.connection: Connection | None = None

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.terminate()
            self.connection = None

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]:
        fresh = self.connection is None or self.connection.is_closed()
        try:
            return await self._fetch(sql, params)
        except Contended:
            if fresh:
                raise
            return await self._fetch(sql, params)

    async def _fetch(self, sql: str, params: Params) -> list[Row]:
        if self.connection is None or self.connection.is_closed():
            self.connection = await self._connect()
        if not self._is_pooled():
            return await PostgresSession(self.connection, {}).fetch(sql, params)
        return await self._fetch_pooled(self.connection, sql, params)

    async def _fetch_pooled(self, connection: Connection, sql: str, params: Params) -> list[Row]:
        """A pooler keeps the two halves of a statement on one server only inside a transaction."""
        session = PostgresSession(connection, {})
        await session.execute(BEGIN_TO_READ)
        try:
            return await session.fetch(sql, params)
        finally:
            await roll_back(connection)
