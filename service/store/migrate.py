"""Brings the schema up to date: numbered SQL files, applied in order, each in one transaction, never taken back."""

from importlib.resources import files

from service.store.driver import Driver, Session

_TABLE = "create table if not exists migrations (name text primary key, applied_ms bigint not null)"


def known() -> list[tuple[str, str]]:
    """Name and text of every migration, in order."""
    folder = files("service.store") / "migrations"
    scripts = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    return [(script.name.removesuffix(".sql"), script.read_text()) for script in scripts]


async def migrate(driver: Driver, now_ms: int) -> list[str]:
    """Applies what is missing; the names of those applied."""
    applied = []
    async with driver.transaction() as session:
        await session.execute(_TABLE)
        done = {name for (name,) in await session.fetch("select name from migrations")}
        for name, script in known():
            if name not in done:
                await _apply(session, script)
                await session.execute("insert into migrations (name, applied_ms) values (?, ?)", (name, now_ms))
                applied.append(name)
    return applied


async def _apply(session: Session, script: str) -> None:
    statements = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    for statement in filter(str.strip, statements.split(";")):
        await session.execute(statement)
