"""Databases in every state in which an operator may have left them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from service.client import utc_now
from service.doctor import database
from service.doctor.database import check_postgres, check_sqlite, judge_version
from service.doctor.finding import Finding
from service.store.migrate import migrate
from service.store.sqlite import SqliteDriver
from tests.support import postgres
from tests.support.pooler import find_pooler, pooler


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database as a first start leaves it."""
    driver = SqliteDriver(str(tmp_path / "taskhook.db"))
    await driver.open()
    await migrate(driver, 0)
    await driver.close()
    return tmp_path / "taskhook.db"


def examined(path: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_sqlite(path)}


def grades(findings: dict[str, Finding], *wanted: str) -> dict[str, str]:
    return {name: finding.grade for name, finding in findings.items() if name in wanted}


MAIN = ("database", "migrations", "writing", "durability", "permissions of database")


async def test_a_good_database_is_well_and_left_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    assert grades(examined(path), *MAIN) == dict.fromkeys(MAIN, "ok")
    assert path.read_bytes() == before


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = examined(tmp_path / "var" / "taskhook.db")
    assert (found["database"].grade, "disk space" in found) == ("warn", True)
    assert not list(tmp_path.iterdir())


def altered(path: Path, sql: str) -> dict[str, Finding]:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    return examined(path)


async def test_migrations_that_are_missing_or_unknown_are_told(path: Path) -> None:
    missing = altered(path, "delete from migrations where name like '0002%'")["migrations"]
    assert (missing.grade, missing.says) == ("warn", "Not applied: 0002_api_keys.")
    newer = altered(path, "insert into migrations (name, applied_ms) values ('9999_later', 0)")["migrations"]
    assert (newer.grade, "newer version (9999_later)" in newer.says) == ("fail", True)


async def test_a_lock_that_is_held_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        assert examined(path)["writing"].grade == "warn"


async def test_a_file_that_is_no_database_or_open_to_all_is_told(path: Path) -> None:
    for mode, who in ((0o644, "Every user"), (0o640, "The group")):
        path.chmod(mode)
        found = examined(path)["permissions of database"]
        assert (found.grade, found.says.startswith(who)) == ("warn", True)
        assert found.advice == f"chmod 600 {path}"
    path.write_bytes(b"no database at all" * 100)
    assert examined(path)["database"].grade == "fail"


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    yield postgres.shared_server()


async def examined_postgres(url: str) -> dict[str, Finding]:
    findings, clock = await check_postgres(url, utc_now)
    assert (clock is None) == (findings[0].grade == "fail")
    assert clock is None or abs(clock.ahead_s) < 2
    return {finding.check: finding for finding in findings}


async def test_postgresql_is_examined_where_it_runs(server: postgres.Server) -> None:
    async with postgres.database(server) as url:
        found = await examined_postgres(url)
        wanted = ("database", "migrations", "writing", "durability", "connections", "pooler")
        assert grades(found, *wanted) == dict.fromkeys(wanted, "ok")
        await postgres.command(
            server, f"alter database {url.rpartition('/')[2]} set default_transaction_read_only = on"
        )
        only_read = (await examined_postgres(url))["database"]
        assert (only_read.grade, "It can only be read" in only_read.says) == ("fail", True)
    async with postgres.database(server, migrated=False) as url:
        assert (await examined_postgres(url))["migrations"].grade == "warn"


@pytest.mark.skipif(find_pooler() is None, reason="pgbouncer is not here")
async def test_a_pooler_in_between_is_told(server: postgres.Server) -> None:
    async with postgres.database(server) as url, pooler(server, url) as pooled:
        assert (await examined_postgres(pooled))["pooler"].grade == "warn"


async def test_a_server_that_is_away_is_told_without_the_password() -> None:
    found = await examined_postgres("postgresql://me:secretive@127.0.0.1:9/x")
    assert found["database"].grade == "fail"
    assert "secretive" not in str(found)


def test_an_old_postgresql_is_told() -> None:
    assert judge_version("12.22", 120_022).grade == "fail"
