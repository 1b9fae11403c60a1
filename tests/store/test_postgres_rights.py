"""Databases that an administrator has not finished: another encoding, and rights that are missing."""

import itertools
import os
import re
import subprocess
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.client import utc_now
from service.core.problems import Unavailable
from service.doctor.database import check_postgres
from service.store.migrate import migrate
from service.store.postgres import PostgresDriver
from tests.support.postgres import command, database, shared_server

_numbers = itertools.count(1)


async def run(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def start(url: str) -> list[str]:
    """As the service does it."""
    driver = PostgresDriver(url)
    await driver.open()
    try:
        return await migrate(driver, 0)
    finally:
        await driver.close()


async def refused(url: str) -> str:
    """Return the message of a start, which doctor shows too."""
    with pytest.raises(Unavailable) as raised:
        await start(url)
    ((finding, *_), _) = await check_postgres(url, utc_now)
    assert (finding.grade, finding.says) == ("fail", raised.value.detail)
    assert str(raised.value.cause) in finding.advice
    return f"{raised.value.detail} ({raised.value.cause})"


@pytest.fixture
async def role() -> AsyncIterator[str]:
    """A user without any right."""
    server, name = shared_server(), f"Role{os.getpid()}-{next(_numbers)}"
    await command(server, f'create role "{name}" login')
    yield name
    await command(server, f'drop role "{name}"')


@pytest.fixture
async def empty(role: str) -> AsyncIterator[tuple[str, str]]:
    """The URL of its administrator, and that of the role."""
    async with database(shared_server(), migrated=False) as url:
        yield url, url.replace("postgres@", f"{role}@")
        await run(url, f'drop owned by "{role}"')


@pytest.fixture
async def ready(role: str) -> AsyncIterator[tuple[str, str]]:
    async with database(shared_server()) as url:
        yield url, url.replace("postgres@", f"{role}@")
        await run(url, f'drop owned by "{role}"')


async def test_a_user_that_may_not_create_tables_is_told_the_grant_that_helps(
    empty: tuple[str, str], role: str
) -> None:
    admin, user = empty
    await run(admin, "revoke create on schema public from public")  # as PostgreSQL has it since version 15
    said = await refused(user)
    assert f"The user {role} may not create tables in the schema public of the database " in said
    grant = f'GRANT CREATE ON SCHEMA public TO "{role}"'
    assert f"({grant})" in said
    await run(admin, grant)
    assert len(await start(user)) > 3 and await start(user) == []


async def test_a_user_that_may_use_no_schema_is_told(empty: tuple[str, str], role: str) -> None:
    admin, user = empty
    await run(admin, "revoke all on schema public from public")
    said = await refused(user)
    assert f"The user {role} may use no schema of its search_path" in said
    await run(admin, f'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"')
    assert len(await start(user)) > 3


async def test_a_schema_of_its_own_is_named_by_the_url(empty: tuple[str, str], role: str) -> None:
    admin, user = empty
    await run(admin, f'create schema taskhook authorization "{role}"')
    named = f"{user}?options=-c%20search_path%3Dtaskhook"
    assert len(await start(named)) > 3 and await start(named) == []
    findings, _ = await check_postgres(named, utc_now)
    assert {finding.grade for finding in findings if finding.check == "migrations"} == {"ok"}


async def test_tables_of_somebody_else_are_used_when_that_is_granted(ready: tuple[str, str], role: str) -> None:
    admin, user = ready
    said = await refused(user)
    assert f"The user {role} may not read and write the table api_keys of the schema public." in said
    await run(admin, said.partition("(")[2].rstrip(")"))
    assert await start(user) == []
    await run(admin, "delete from migrations where name like '0008%'; grant create on schema public to public")
    said = await refused(user)
    assert "may not change the table api_keys, which belongs to postgres. (run `taskhook migrate` as postgres)" in said


def options_of(encoding: str) -> str:
    provider = "locale_provider libc " if server_version() >= 15 else ""
    return f"encoding '{encoding}' {provider}locale 'C' template template0"


def server_version() -> int:
    found = subprocess.run([shared_server().binaries / "postgres", "-V"], capture_output=True, text=True, check=True)
    return int(re.search(r" (\d+)", found.stdout)[1])


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_of_another_encoding_is_refused(encoding: str) -> None:
    server, name = shared_server(), f"encoded_{os.getpid()}_{encoding.lower()}"
    await command(server, f"create database {name} {options_of(encoding)}")
    try:
        said = await refused(server.url(name))
        assert f"The database {name} has the encoding {encoding}, but texts need UTF8." in said
        assert "CREATE DATABASE taskhook ENCODING 'UTF8' TEMPLATE template0" in said
    finally:
        await command(server, f"drop database {name}")
