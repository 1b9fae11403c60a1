"""Brings the schema up to date: numbered SQL files, applied in order, in one transaction, never taken back."""

import re
from importlib.resources import files

from service.core.problems import Unavailable
from service.store.driver import Driver, Session

_DATABASES = (".sqlite", ".postgresql")
_TABLE = "create table if not exists migrations (name text primary key, applied_ms bigint not null)"


def known(database: str) -> list[tuple[str, str]]:
    """Name and text of every migration for this database, in order. One whose name ends in a database is its alone."""
    folder = files("service.store") / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    named = [(script.name.removesuffix(".sql"), script.read_text()) for script in scripts]
    return [(name, text) for name, text in named if not name.endswith(_DATABASES) or name.endswith(f".{database}")]


async def migrate(driver: Driver, now_ms: int) -> list[str]:
    """Applies what is missing; the names of those applied. Raises Unavailable for a database of a later version."""
    applied = []
    async with driver.migrating() as session:
        await session.execute(_TABLE)
        done = {name for (name,) in await session.fetch("select name from migrations")}
        scripts = known(driver.name)
        _check_version(done - {name for name, _ in scripts})
        for name, script in scripts:
            if name not in done:
                await _apply(session, script, driver.text)
                await session.execute("insert into migrations (name, applied_ms) values (?, ?)", (name, now_ms))
                applied.append(name)
    return applied


def _check_version(unknown: set[str]) -> None:
    if unknown:
        detail = "The database was written by a newer version of Taskhook, which this one can't read; start that one."
        raise Unavailable(detail, cause=", ".join(sorted(unknown)))


async def _apply(session: Session, script: str, text: str) -> None:
    statements = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    for statement in filter(str.strip, statements.split(";")):
        await session.execute(re.sub(r"\btext\b", text, statement))
