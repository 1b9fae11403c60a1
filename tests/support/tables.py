"""The database of a running service, behind its back: SQLite's file or PostgreSQL's tables, in one way."""

import sqlite3
from contextlib import closing
from typing import Any

import asyncpg

from service.store.postgres_session import numbered
from tests.support.service import Service
from tests.support.wait import PATIENCE_S


async def statement(service: Service, sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Its rows, if it has any; committed."""
    url = service.env["TASKHOOK_DATABASE_URL"]
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=PATIENCE_S)) as database:
            database.text_factory = lambda raw: raw.decode(errors="replace")
            found = database.execute(sql, params).fetchall()
            database.commit()
            return found
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(numbered(sql), *params)]
    finally:
        await connection.close()


async def tables(service: Service) -> list[str]:
    if service.env["TASKHOOK_DATABASE_URL"].startswith("sqlite:"):
        sql = "select name from sqlite_master where type = 'table'"
    else:
        sql = "select tablename::text from pg_tables where schemaname = 'public'"
    return [name for (name,) in await statement(service, sql)]
