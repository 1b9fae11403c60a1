"""How a database goes about a statement, whatever its planner knows of what is stored, and how much it looks at.

Each statement is planned for parameters that are known and for any, as it may be after a while, by a planner that knows
the store as it is, as it was when it was small, and as ever so large. Then it runs, and is counted.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bench.fill import Shape, created_at_ms
from service.core.ids import prefixed_uuid7
from service.store.batch import Batch, Subscribers
from service.store.driver import Driver, Row, Session
from service.store.reads import ReadLimits, Reads
from tests.support.env import FakeEnv

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LARGE = ("tasks", "labels", "timeline", "events", "deliveries", "attempts", "idempotency_keys")
ROWS_MAX = 150
READ_LIMITS = ReadLimits(searched=50, counted=50, deliveries=50, charges=50)
"""That one node of a plan touches; PostgreSQL counts them."""
TASKS_MAX = 1_000_000
STEPS_MAX = 6_000
"""Of SQLite's machine: a walk through all tasks takes three times as many."""
Statement = tuple[str, tuple[Any, ...]]


Knows = Callable[[Session], Awaitable[None]]


class _TakenBack(Exception):
    pass


class Recorder:
    """A session that keeps its statements."""

    def __init__(self, inner: Any, statements: list[Statement]) -> None:
        self._inner = inner
        self._statements = statements

    async def fetch(self, sql: str, params: Any = ()) -> list[Row]:
        self._statements.append((sql, tuple(params)))
        found: list[Row] = await self._inner.fetch(sql, params)
        return found

    async def execute(self, sql: str, params: Any = ()) -> int:
        self._statements.append((sql, tuple(params)))
        return int(await self._inner.execute(sql, params))

    async def execute_many(self, sql: str, rows: Iterable[Any]) -> None:
        await self._inner.execute_many(sql, rows)


class RecordingReads(Reads):
    def __init__(self, driver: Driver, statements: list[Statement], limits: ReadLimits) -> None:
        self._inner = driver
        self._statements = statements
        super().__init__(driver, limits)
        self._driver = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Recorder]:
        async with self._inner.reading() as session:
            yield Recorder(session, self._statements)


class Full:
    """A store in which a tenth waits and nine tenths are done, and what was asked of it."""

    def __init__(self, driver: Driver, shape: Shape) -> None:
        self.driver = driver
        self.shape = shape
        self.env = FakeEnv(NOW)
        self.statements: list[Statement] = []
        self.reads = RecordingReads(driver, self.statements, READ_LIMITS)

    def id_of(self, kind: str, number: int) -> str:
        prefix = prefixed_uuid7(kind, 0, 0).partition("_")[0]
        return f"{prefix}_{created_at_ms(self.shape, number):012x}70008000{number:012x}"

    async def work(self, do: Callable[[Batch], Awaitable[object]]) -> None:
        """Recorded, and taken back."""

        async def recorded(session: Session) -> None:
            recorder: Any = Recorder(session, self.statements)
            batch = Batch(recorder, self.driver, self.env, Subscribers())
            await do(batch)
            await batch.flush()
            raise _TakenBack

        with pytest.raises(_TakenBack):
            await self.driver.write(recorded)

    async def check(self, rows_max: int = ROWS_MAX) -> set[str]:
        """The lines of all plans. Fails where one walks through a table, or a statement through many rows."""
        asked, lines = list(dict.fromkeys((sql, repr(params)) for sql, params in self.statements)), set[str]()
        given = {(sql, repr(params)): params for sql, params in self.statements}
        assert asked
        explain = _explain_sqlite if self.driver.name == "sqlite" else _explain_postgresql
        for knows in KNOWLEDGE[self.driver.name]:

            async def explained(session: Session, knows: Knows = knows) -> None:
                await knows(session)
                rows_of_node = rows_max if knows in COUNTED else TASKS_MAX
                for key in asked:
                    if key[0].lstrip().startswith(("select", "with", "update", "delete")):
                        lines.update(await explain(session, key[0], given[key], rows_of_node))
                raise _TakenBack

            with pytest.raises(_TakenBack):
                await self.driver.write(explained)
        self.statements.clear()
        return lines


# --- what a planner knows ---------------------------------------------------------------------------------------------


async def _as_filled(session: Session) -> None:
    """Of the first thousand tasks, all of them done long ago."""


async def _all(session: Session) -> None:
    await session.execute("analyze")


async def _ever_so_many(session: Session) -> None:
    await session.execute("analyze")
    names = ", ".join(f"'{name}'" for name in LARGE)
    sql = f"""
    update pg_class set reltuples = reltuples * 300 where relname in ({names})
      or oid in (select indexrelid from pg_index join pg_class c on c.oid = indrelid where c.relname in ({names}))
    """
    await session.execute(sql)


async def _nothing(session: Session) -> None:
    """As on every SQLite that nobody analyzed."""
    await session.execute("delete from sqlite_stat1")
    await session.execute("analyze sqlite_schema")


async def _all_but_the_newest_indexes(session: Session) -> None:
    """As after an update of the schema of a SQLite that somebody analyzed once."""
    await session.execute("analyze")
    newest = "'deliveries_by_state', 'deliveries_received', 'tasks_by_deadline', 'events_of_no_task'"
    await session.execute(f"delete from sqlite_stat1 where idx in ({newest})")
    await session.execute("analyze sqlite_schema")


async def _ever_so_many_on_sqlite(session: Session) -> None:
    await session.execute("analyze")
    for name, figures_of_index in await session.fetch("select rowid, stat from sqlite_stat1 where tbl in ('tasks')"):
        larger = " ".join(str(int(n) * 300) if int(n) > 50 else n for n in figures_of_index.split() if n.isdigit())
        await session.execute("update sqlite_stat1 set stat = ? where rowid = ?", (larger, name))
    await session.execute("analyze sqlite_schema")


KNOWLEDGE: dict[str, tuple[Knows, ...]] = {
    "sqlite": (_nothing, _all, _all_but_the_newest_indexes, _ever_so_many_on_sqlite),
    "postgresql": (_as_filled, _all, _ever_so_many),
}

COUNTED = (_nothing, _ever_so_many, _ever_so_many_on_sqlite)
"""Who knows that it is small may well look at all of it."""


# --- how it goes about it ---------------------------------------------------------------------------------------------


async def _explain_sqlite(session: Any, sql: str, params: tuple[Any, ...], rows_max: int) -> set[str]:
    lines = {str(row[-1]) for row in await session.fetch(f"explain query plan {sql}", params)}
    walks = {line for line in lines if line.startswith("SCAN") and line.split()[1] in (*LARGE, "t", "d", "e", "n")}
    walks = {line for line in walks if "INDEX" not in line}
    assert not walks, f"{sql}\n{lines}"
    if sql.lstrip().startswith(("select", "with")):
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 10
            return 0

        session.connection.set_progress_handler(count, 10)
        await session.fetch(sql, params)
        session.connection.set_progress_handler(None, 10)
        assert steps <= STEPS_MAX * rows_max / ROWS_MAX, f"{steps} steps\n{sql}\n{params}\n{lines}"
    return lines


async def _explain_postgresql(session: Any, sql: str, params: tuple[Any, ...], rows_max: int) -> set[str]:
    lines: set[str] = set()
    reads_only = sql.lstrip().startswith(("select", "with"))
    for mode in ("force_custom_plan", "force_generic_plan"):
        await session.execute(f"set local plan_cache_mode = {mode}")
        await session.execute("prepare asked as " + _numbered(sql))
        given = f"({', '.join(map(_literal, params))})" if params else ""
        options = "(format json, analyze, timing off)" if reads_only else "(format json)"
        found = await session.fetch(f"explain {options} execute asked{given}")
        await session.execute("deallocate asked")
        nodes = list(_nodes(msgspec.json.decode(found[0][0])[0]["Plan"]))
        for node in nodes:
            assert not (node["Node Type"] == "Seq Scan" and node["Relation Name"] in LARGE), f"{mode}\n{sql}\n{nodes}"
            assert _touched(node) <= rows_max, f"{mode}: {node}\n{sql}\n{params}"
            lines.add(node.get("Index Name", ""))
    return lines


def _touched(node: dict[str, Any]) -> float:
    removed = sum(node.get(f"Rows Removed by {what}", 0) for what in ("Filter", "Index Recheck", "Join Filter"))
    return float((node.get("Actual Rows", 0) + removed) * node.get("Actual Loops", 0))


def _nodes(plan: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield {key: value for key, value in plan.items() if key != "Plans"}
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)


def _numbered(sql: str) -> str:
    head, *rest = sql.split("?")
    return head + "".join(f"${n}{part}" for n, part in enumerate(rest, start=1))


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"array[{', '.join(map(_literal, value))}]::text[]"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
