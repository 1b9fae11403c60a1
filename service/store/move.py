"""Moves all that an installation has stored into another, empty database: in one transaction, compared row by row."""

from collections.abc import AsyncIterator, Callable
from hashlib import blake2b

import msgspec

from service.core.problems import Unavailable
from service.store.driver import Driver, Row, Session
from service.store.migrate import find_pending, migrate

KEYS = {
    "tasks": ("id",),
    "labels": ("key", "value", "task_id"),
    "timeline": ("task_id", "number"),
    "idempotency_keys": ("key",),
    "events": ("seq",),
    "endpoints": ("id",),
    "deliveries": ("id",),
    "attempts": ("delivery_id", "number"),
    "limits": ("name",),
    "api_keys": ("id",),
    "ended_sessions": ("id",),
    "faults": ("id",),
    "counters": ("name",),
}
"""The tables in an order that their references allow, with what their rows are paged by."""
OWN = ("migrations", "checks")
"""What each database has for itself."""
STEP_MAX = 2_000
PAGE_BYTES = 4 << 20
_CHECKSUMS = 1 << 128


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a table is: rows `copied`, then `compared` in both databases, of `total`."""

    table: str
    copied: int
    compared: int
    total: int


class _Sum(msgspec.Struct, frozen=True):
    """A count, and a checksum that does not depend on the order of the rows."""

    rows: int = 0
    checksum: int = 0


Tell = Callable[[Progress], None]


async def move(source: Driver, target: Driver, now_ms: int, tell: Tell) -> list[Progress]:
    """Raises Unavailable and leaves both as they were; killed, it has written nothing and can be started again."""
    async with source.alone() as reading:
        await _check_source(source, reading)
        await _migrate(target, now_ms)
        async with target.alone() as writing:
            await _check_target(target, writing)
            tables = [_Table(name, await _columns(source, target, reading, writing, name)) for name in KEYS]
            moved = [await table.move(reading, writing, tell) for table in tables]
            await writing.execute("analyze")
    return moved


async def _migrate(target: Driver, now_ms: int) -> None:
    await target.open()
    try:
        await migrate(target, now_ms)
    finally:
        await target.close()


async def _check_source(source: Driver, session: Session) -> None:
    pending = await find_pending(source, session)
    if pending:
        detail = "The source is not up to date; run `taskhook migrate` on it first."
        raise Unavailable(detail, cause=", ".join(pending))


async def _check_target(target: Driver, session: Session) -> None:
    """A service that starts on it meanwhile waits, since nobody else can write from here on."""
    if target.lock_table:
        for table in KEYS:
            await session.execute(target.lock_table.format(table))
    for table in KEYS:
        if table != "counters" and await session.fetch(f"select 1 from {table} limit 1"):
            raise Unavailable("The target is not empty; give an empty database.", cause=f"table {table}")


async def _columns(source: Driver, target: Driver, reading: Session, writing: Session, table: str) -> list[str]:
    ours = [str(name) for (name,) in await reading.fetch(source.columns_of, (table,))]
    theirs = [str(name) for (name,) in await writing.fetch(target.columns_of, (table,))]
    if ours != theirs or not ours:
        raise Unavailable("The two databases differ in a table.", cause=f"{table}: {ours} and {theirs}")
    return ours


class _Table:
    def __init__(self, name: str, columns: list[str]) -> None:
        self._name = name
        self._key = KEYS[name]
        self._columns = [*self._key, *(column for column in columns if column not in self._key)]

    async def move(self, reading: Session, writing: Session, tell: Tell) -> Progress:
        total = int((await reading.fetch(f"select count(*) from {self._name}"))[0][0])
        progress = Progress(table=self._name, copied=0, compared=0, total=total)
        tell(progress)
        await writing.execute(f"delete from {self._name}")  # what a migration put there
        async for page in self._pages(reading):
            await writing.execute_many(self._insert, page)
            progress = msgspec.structs.replace(progress, copied=progress.copied + len(page))
            tell(progress)
        await self._compare(reading, writing)
        progress = msgspec.structs.replace(progress, compared=total)
        tell(progress)
        return progress

    @property
    def _insert(self) -> str:
        places = ", ".join("?" * len(self._columns))
        return f"insert into {self._name} ({', '.join(self._columns)}) values ({places})"

    async def _compare(self, reading: Session, writing: Session) -> None:
        """Both are read again from the beginning."""
        ours, theirs = await self._sum(reading), await self._sum(writing)
        if ours != theirs:
            cause = (
                f"{self._name}: {ours.rows} rows, checksum {ours.checksum:032x}; {theirs.rows}, {theirs.checksum:032x}"
            )
            raise Unavailable("What was written differs from what was read; nothing was kept.", cause=cause)

    async def _sum(self, session: Session) -> _Sum:
        total = _Sum()
        async for page in self._pages(session):
            checksum = sum(_checksum(row) for row in page)
            total = _Sum(total.rows + len(page), (total.checksum + checksum) % _CHECKSUMS)
        return total

    async def _pages(self, session: Session) -> AsyncIterator[list[Row]]:
        """In the order of the key, as many rows at once as keep a page small."""
        key, after, step = ", ".join(self._key), "", 10
        places, params = ", ".join("?" * len(self._key)), ()
        while True:
            sql = f"select {', '.join(self._columns)} from {self._name} {after} order by {key} limit ?"
            page = await session.fetch(sql, (*params, step))
            if page:
                yield page
            if len(page) < step:
                return
            after, params = f"where ({key}) > ({places})", page[-1][: len(self._key)]
            step = max(1, min(STEP_MAX, 2 * step, step * PAGE_BYTES // sum(map(_size, page))))


def _size(row: Row) -> int:
    return 50 + sum(len(value) for value in row if isinstance(value, str))


def _checksum(row: Row) -> int:
    """Return a checksum that ignores NUL characters, which PostgreSQL can't store."""
    encoded = msgspec.json.encode(row)
    if b"\\u0000" in encoded:
        encoded = msgspec.json.encode([v.replace("\0", "\ufffd") if isinstance(v, str) else v for v in row])
    return int.from_bytes(blake2b(encoded, digest_size=16).digest(), "big")
