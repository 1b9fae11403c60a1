"""The database: can it be reached, read and written, is it this version's, does it keep what it acknowledged?"""

import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

from service.core.problems import Unavailable
from service.doctor.finding import Finding, fail, ok, skipped, warn
from service.doctor.machine import check_place
from service.doctor.network import Clock
from service.store.driver import ReadSession, Row
from service.store.migrate import known
from service.store.postgres import PostgresDriver
from service.store.sqlite_file import is_small

BUSY_MS = 3_000
VERSION_MIN = 130_000
CONNECTIONS_WARN = 0.8
_SETTINGS = ("fsync", "full_page_writes", "synchronous_commit", "max_connections")
_UNSAFE = {
    "fsync": "A crash of its machine can destroy everything.",
    "full_page_writes": "A crash of its machine can damage pages.",
    "synchronous_commit": "A crash loses what was acknowledged already.",
}


def check_sqlite(path: Path) -> Iterator[Finding]:
    if not path.exists():
        yield warn("database", f"{path} is not there yet.", "The first start makes it; `taskhook migrate` does, too.")
        yield from check_place(next(folder for folder in path.absolute().parents if folder.exists()))
        return
    try:
        with closing(_open(path, "ro")) as connection:
            yield from _read_sqlite(connection, path)
        yield _write_sqlite(path)
    except sqlite3.Error as error:
        yield fail("database", f"{path} can't be used: {error}.", "Run this as the service's user; restore a backup?")
    yield _check_mode(path)
    yield from check_place(path.absolute().parent)


def _open(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
    connection.execute(f"pragma busy_timeout = {BUSY_MS}")
    return connection


def _read_sqlite(connection: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    found = connection.execute("pragma quick_check(1)").fetchone() if is_small(str(path)) else ("ok",)
    if found != ("ok",):
        yield fail("database", f"{path} is damaged: {found[0]}.", "Stop the service and put a backup in its place.")
        return
    yield ok("database", f"{path} can be read.")
    tables = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    applied = connection.execute("select name from migrations").fetchall() if "migrations" in tables else []
    yield judge_migrations("sqlite", applied)
    mode = connection.execute("pragma journal_mode").fetchone()[0]
    yield judge_journal(str(mode))


def judge_journal(mode: str) -> Finding:
    if mode == "wal":
        return ok("durability", "Write-ahead log, synced at every commit.")
    return warn("durability", f"The journal is in mode {mode}.", "The next start of the service sets it to WAL.")


def _write_sqlite(path: Path) -> Finding:
    """Takes the lock that a write takes, and writes nothing."""
    try:
        with closing(_open(path, "rw")) as connection:
            connection.execute("begin immediate")
            connection.execute("rollback")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return warn("writing", f"Another process has held the lock for {BUSY_MS // 1000} s.", "Try again.")
        return fail("writing", f"{path} can't be written: {error}.", "Give its folder and file to the service's user.")
    return ok("writing", "The database can be written.")


def _check_mode(path: Path) -> Finding:
    """The service creates its files with mode 600 and leaves those that are there as they are."""
    files = [file for suffix in ("", "-wal", "-shm") if (file := Path(f"{path}{suffix}")).exists()]
    modes = [(file, file.stat().st_mode) for file in files]
    for who, bits in (("Every user", stat.S_IRWXO), ("The group", stat.S_IRWXG)):
        if found := [str(file) for file, mode in modes if mode & bits]:
            says = f"{who} of this machine can open {found[0]}, with prompts and results."
            return warn("permissions of database", says, f"chmod 600 {' '.join(found)}")
    return ok("permissions of database", "Its owner's alone.")


def judge_migrations(database: str, applied: Iterable[Row]) -> Finding:
    names = {migration.name for migration in known(database)}
    done = {name for (name,) in applied}
    if newer := sorted(done - names):
        says = f"The database was written by a newer version ({newer[-1]})."
        return fail("migrations", says, "Start that version, or go back to a backup of this one.")
    if missing := sorted(names - done):
        says = f"Not applied: {', '.join(missing)}."
        return warn("migrations", says, "Run `taskhook migrate`, or start the service, which does it.")
    return ok("migrations", f"All {len(names)} are applied.")


async def check_postgres(url: str, now: Callable[[], datetime]) -> tuple[list[Finding], Clock | None]:
    driver = PostgresDriver(url)
    try:
        await driver.open()
        findings, clock = await _read_postgres(driver, now)
    except Unavailable as problem:
        return [_judge_unreachable(str(problem.cause))], None
    finally:
        await driver.close()
    if driver.target.unmet:
        says = (
            f"TASKHOOK_DATABASE_URL asks for a protection that the driver can't give: {', '.join(driver.target.unmet)}."
        )
        findings.append(warn("database URL", says, "Use sslmode=verify-full, and remove the parameter."))
    return findings, clock


async def _read_postgres(driver: PostgresDriver, now: Callable[[], datetime]) -> tuple[list[Finding], Clock | None]:
    async with driver.reading() as session:
        try:
            await driver.check_usable(session)
            applied = await _read_migrations(driver, session)
        except Unavailable as problem:
            return [fail("database", problem.detail, f"An administrator can help: {problem.cause}.")], None
        return await _examine_postgres(driver, session, applied, now)


async def _read_migrations(driver: PostgresDriver, session: ReadSession) -> list[Row]:
    """Raise Unavailable if one is missing and our user may not apply it."""
    there = await session.fetch(driver.columns_of, ("migrations",))
    applied = await session.fetch("select name from migrations") if there else []
    if {migration.name for migration in known(driver.name)} - {name for (name,) in applied}:
        await driver.check_may_migrate(session)
    return applied


def _judge_unreachable(cause: str) -> Finding:
    if "read-write" in cause:
        says = "It can only be read: a standby, or a user or database that may not write."
        return fail("database", says, "Name the primary in TASKHOOK_DATABASE_URL.")
    says = f"PostgreSQL can't be reached ({cause})."
    return fail("database", says, "Is it running? Check host, user and password of TASKHOOK_DATABASE_URL.")


async def _examine_postgres(
    driver: PostgresDriver, session: ReadSession, applied: list[Row], now: Callable[[], datetime]
) -> tuple[list[Finding], Clock]:
    names = ", ".join(f"'{name}'" for name in (*_SETTINGS, "server_version_num", "server_version"))
    found = await session.fetch(f"select name, reset_val from pg_settings where name in ({names})")  # noqa: S608
    ((used, at),) = await session.fetch(
        "select (select count(*) from pg_stat_activity where backend_type = 'client backend'), clock_timestamp()"
    )
    local = now()
    values = {str(name): str(value) for name, value in found}
    findings = [
        judge_version(values["server_version"], int(values["server_version_num"])),
        judge_migrations("postgresql", applied),
        ok("writing", "The server takes writes."),
        _judge_durability(values),
        _judge_pooler(pooled=driver.pooled),
        _judge_connections(int(used), int(values["max_connections"])),
        skipped("disk space", "PostgreSQL's own machine is not looked at."),
    ]
    return findings, Clock(whose="the database's", ahead_s=(local - at).total_seconds())


def judge_version(version: str, number: int) -> Finding:
    if number < VERSION_MIN:
        return fail("database", f"PostgreSQL {version} is too old.", f"Use {VERSION_MIN // 10_000} or newer.")
    return ok("database", f"PostgreSQL {version} can be read.")


def _judge_durability(values: dict[str, str]) -> Finding:
    for name, harm in _UNSAFE.items():
        if values.get(name) == "off":
            return fail("durability", f"{name} is off. {harm}", f"Set {name} = on.")
    return ok("durability", f"fsync on, synchronous_commit {values.get('synchronous_commit')}.")


def _judge_pooler(*, pooled: bool) -> Finding:
    if pooled:
        says = "A pooler is in between: what another process writes is heard of after a second instead of at once."
        return warn("pooler", says, "Let TASKHOOK_DATABASE_URL lead to PostgreSQL itself.")
    return ok("pooler", "None in between.")


def _judge_connections(used: int, limit: int) -> Finding:
    if used > CONNECTIONS_WARN * limit:
        return warn("connections", f"{used} of {limit} are in use.", "Raise max_connections, or find who holds them.")
    return ok("connections", f"{used} of {limit} are in use.")
