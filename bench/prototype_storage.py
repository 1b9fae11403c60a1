"""Where the prototype stores: on SQLite or on PostgreSQL, all that waits in one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, Self

import aiosqlite
import asyncpg

from service.store.driver import Params, Row
from service.store.postgres_session import PostgresSession
from service.store.rows import (
    INSERT_ATTEMPT,
    INSERT_ENTRY,
    INSERT_EVENT,
    INSERT_LABEL,
    UPSERT_DELIVERY,
    UPSERT_TASK,
)

TABLES = (UPSERT_TASK, INSERT_LABEL, INSERT_ENTRY, INSERT_EVENT, UPSERT_DELIVERY, INSERT_ATTEMPT)
"""In the order that foreign keys ask for."""
ONE_TASK = "select id, deadline_ms, doc from tasks where id = ?"
MANY_TASKS = "select id, deadline_ms, doc from tasks where id = any(?)"
COUNT_EVENTS = "update counters set value = ? where name = 'events'"
Tables = dict[str, list[Row]]
Work = Callable[[Tables, Row | None], Any]
"""One caller's part of a transaction: it adds rows to be written, knowing the row of its task if it asked for it."""


class Ask(NamedTuple):
    work: Work
    task_id: str | None


class Storage(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, kind: object, error: object, trace: object) -> None: ...

    async def fetch(self, sql: str, params: Params = ()) -> Sequence[Row]: ...

    async def commit(self, asks: Sequence[Ask]) -> list[Any]:
        """What each work returned, once all of it is durable."""
        ...


def build_storage(url: str) -> Storage:
    return SqliteStorage(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else PostgresStorage(url)


class SqliteStorage:
    def __init__(self, path: str) -> None:
        self.connection = aiosqlite.connect(path, isolation_level=None)

    async def __aenter__(self) -> Self:
        await self.connection
        for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = 1"):
            await self.connection.execute(f"pragma {pragma}")
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.connection.close()

    async def fetch(self, sql: str, params: Params = ()) -> Sequence[Row]:
        return list(await self.connection.execute_fetchall(sql, params))

    async def commit(self, asks: Sequence[Ask]) -> list[Any]:
        connection = self.connection
        return await connection._execute(commit, connection._conn, asks)  # type: ignore[no-untyped-call,no-any-return]


def commit(connection: sqlite3.Connection, asks: Sequence[Ask]) -> list[Any]:
    """On the thread of the connection, in one go."""
    tables: Tables = {sql: [] for sql in TABLES}
    connection.execute("begin immediate")
    answers = [
        work(tables, connection.execute(ONE_TASK, (task_id,)).fetchone() if task_id else None) for work, task_id in asks
    ]
    for sql, rows in tables.items():
        if rows:
            connection.executemany(sql, rows)
    if events := tables[INSERT_EVENT]:
        connection.execute(COUNT_EVENTS, events[-1][:1])
    connection.execute("commit")
    return answers


class PostgresStorage:
    """One connection; each table's rows are one statement, as in the service."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self) -> Self:
        self.connection = await asyncpg.connect(self.url)
        self.session = PostgresSession(self.connection, {})
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.connection.close()

    async def fetch(self, sql: str, params: Params = ()) -> Sequence[Row]:
        return await self.session.fetch(sql, params)

    async def commit(self, asks: Sequence[Ask]) -> list[Any]:
        tables: Tables = {sql: [] for sql in TABLES}
        await self.connection.execute("begin")
        task_ids = [task_id for _, task_id in asks if task_id]
        found = {row[0]: row for row in await self.fetch(MANY_TASKS, (task_ids,))} if task_ids else {}
        answers = [work(tables, found.get(task_id)) for work, task_id in asks]
        for sql in (UPSERT_TASK, UPSERT_DELIVERY):  # one statement changes a row once
            tables[sql] = list({row[0]: row for row in tables[sql]}.values())
        for sql, rows in tables.items():
            if rows:
                await self.session.execute_many(sql, rows)
        if events := tables[INSERT_EVENT]:
            await self.session.execute(COUNT_EVENTS, events[-1][:1])
        await self.connection.execute("commit")
        return answers
