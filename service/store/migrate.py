"""Brings the schema up to date: numbered SQL files, applied in order, each by one process, while others go on working.

A file begins with `-- runs with: NUMBER`: code that knows the migrations up to that one works on what it leaves behind,
so older replicas go on and start again. One with the line `-- outside of a transaction` has statements that can't be
in one; it is written so that it can be applied again after it broke off.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files

import msgspec
import structlog

from service.core.problems import Unavailable
from service.store.driver import Contended, Driver, ReadSession, Session

log = structlog.get_logger()

TRIES = 60
AGAIN_S = 0.5
"""Between two tries to get a lock, in which those who waited behind the first one get on."""
_LOCKED = ("BUSY", "LOCKED", "LockNotAvailable", "QueryCanceled")
_DATABASES = (".sqlite", ".postgresql")
_TABLE = "create table if not exists migrations (name text primary key, applied_ms bigint not null)"
_RUNS_WITH = re.compile(r"^-- runs with: (\d{4})$", re.MULTILINE)
_OUTSIDE = "-- outside of a transaction\n"


class Migration(msgspec.Struct, frozen=True):
    name: str
    script: str

    @property
    def number(self) -> str:
        return self.name[:4]

    @property
    def runs_with(self) -> str:
        """The number of the oldest code; where the file says nothing, code has to know it."""
        found = _RUNS_WITH.search(self.script)
        return found[1] if found else self.number

    @property
    def is_outside(self) -> bool:
        return _OUTSIDE in self.script

    def statements(self, text: str) -> list[str]:
        lines = "\n".join(line for line in self.script.splitlines() if not line.startswith("--"))
        return [re.sub(r"\btext\b", text, statement) for statement in lines.split(";") if statement.strip()]


def known(database: str) -> list[Migration]:
    """Every migration for this database, in order. One whose name ends in a database is its alone."""
    folder = files("service.store") / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    made = [Migration(script.name.removesuffix(".sql"), script.read_text()) for script in scripts]
    return [one for one in made if not one.name.endswith(_DATABASES) or one.name.endswith(f".{database}")]


async def migrate(driver: Driver, now_ms: int) -> list[str]:
    """Applies what is missing; the names of those applied. Raises Unavailable for a database of a later version.

    Where nothing is missing it only reads: a user of the database that may not change tables can run the service.
    """
    async with driver.reading() as reading:
        await driver.check_usable(reading)
        if not await find_pending(driver, reading):
            return []
        await driver.check_may_migrate(reading)
    async with driver.migrating() as session:
        return [one.name for one in known(driver.name) if await _apply_patiently(driver, session, one, now_ms)]


async def find_pending(driver: Driver, session: ReadSession) -> list[str]:
    """The names of those that are not applied yet. Raises Unavailable for a database of a later version."""
    done, scripts = await _applied(driver, session), known(driver.name)
    _check_version({name: number for name, number in done.items() if name not in {one.name for one in scripts}})
    return [one.name for one in scripts if one.name not in done]


async def _applied(driver: Driver, session: ReadSession) -> dict[str, str | None]:
    """The name of each migration of the database, and the oldest code that runs on it."""
    columns = {name for (name,) in await session.fetch(driver.columns_of, ("migrations",))}
    if not columns:
        return {}
    runs_with = "runs_with" if "runs_with" in columns else "null"
    return dict(await session.fetch(f"select name, {runs_with} from migrations"))


def _check_version(unknown: dict[str, str | None]) -> None:
    """Of a later version that says nothing of older code, or says that ours is too old."""
    newest = _newest_number()
    beyond = sorted(name for name, runs_with in unknown.items() if runs_with is None or runs_with > newest)
    if beyond:
        detail = "The database was written by a newer version of Taskhook, which this one can't work with; start that."
        raise Unavailable(detail, cause=", ".join(beyond))
    if unknown:
        log.info("store.newer", migrations=sorted(unknown), reason="This version still works with them.")


def _newest_number() -> str:
    return max(one.number for database in _DATABASES for one in known(database[1:]))


async def _apply_patiently(driver: Driver, session: Session, migration: Migration, now_ms: int) -> bool:
    """Again and again until it gets its locks. False when it was there."""
    for left in reversed(range(TRIES)):
        try:
            return await _apply(driver, session, migration, now_ms)
        except Unavailable as problem:
            if not left or not (isinstance(problem, Contended) or problem.cause.startswith(_LOCKED)):
                raise Unavailable(f"{problem.detail} Migration {migration.name}.", cause=problem.cause) from problem
            log.warning("store.waiting", migration=migration.name, cause=problem.cause)
        await asyncio.sleep(AGAIN_S)
    return False


async def _apply(driver: Driver, session: Session, migration: Migration, now_ms: int) -> bool:
    statements = migration.statements(driver.text)
    async with _transaction(driver, session):
        if migration.name in await _applied(driver, session):
            return False
        if not migration.is_outside:
            await _execute(session, statements)
            await _record(driver, session, migration, now_ms)
            return True
    await _execute(session, statements)
    async with _transaction(driver, session):
        await _record(driver, session, migration, now_ms)
    return True


@asynccontextmanager
async def _transaction(driver: Driver, session: Session) -> AsyncIterator[None]:
    try:
        await session.execute(driver.begin_to_migrate)
        yield
        await session.execute("commit")
    except BaseException:
        with suppress(Exception):  # of a connection that broke; what went wrong before is told
            await session.execute("rollback")
        raise


async def _execute(session: Session, statements: Iterable[str]) -> None:
    for statement in statements:
        await session.execute(statement)


async def _record(driver: Driver, session: Session, migration: Migration, now_ms: int) -> None:
    await session.execute(_TABLE)
    await session.execute("insert into migrations (name, applied_ms) values (?, ?)", (migration.name, now_ms))
    if "runs_with" in {name for (name,) in await session.fetch(driver.columns_of, ("migrations",))}:
        sql = "update migrations set runs_with = ? where name = ?"
        await session.execute(sql, (migration.runs_with, migration.name))
