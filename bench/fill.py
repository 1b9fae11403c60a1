"""Fills a store as years of use would: final tasks with all that hangs on them, and a part that is still due."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import msgspec

from service.core.event import Event, render_body
from service.core.ids import prefixed_uuid7
from service.core.task import Output, Result, Task, TaskInput
from service.core.times import after, from_ms, to_ms
from service.core.views import view_task
from service.store import endpoint_rows, rows
from service.store.driver import Driver, Session
from tests.support.factory import make_endpoint

CHUNK = 50_000
DAYS = 29
CUSTOMERS = 10
ENDPOINTS = 10
URLS = 5
"""Of tasks with a subscriber of their own: one delivery of twenty goes to one of them."""
RARE = 20
"""So many tasks of one provider and one model are in the oldest part of the store, whatever its size."""
ENTRIES = ("task.created", "submit.sent", "submit.accepted", "callback.accepted")
LARGE = ("tasks", "labels", "timeline", "events", "deliveries", "attempts", "idempotency_keys")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks, which part of them waits, which part of the deliveries, and when the last task came."""

    tasks: int
    waiting: float
    due: float
    now_ms: int

    @property
    def spacing_ms(self) -> int:
        return DAYS * 86_400_000 // self.tasks

    @property
    def first_ms(self) -> int:
        return self.now_ms - self.tasks * self.spacing_ms

    @property
    def done(self) -> int:
        """The tasks before this number are final."""
        return round(self.tasks * (1 - self.waiting))

    @property
    def newest(self) -> int:
        """The tasks from this number on wait for their submit, those before it for their result."""
        return self.done + (self.tasks - self.done) // 2

    @property
    def received(self) -> int:
        """The deliveries before this number were received."""
        return max(0, self.done - round(self.tasks * self.due))


def shape_of(tasks: int, waiting: float, due: float, now: object) -> Shape:
    return Shape(tasks=tasks, waiting=waiting, due=due, now_ms=to_ms(now))  # type: ignore[arg-type]


def created_at_ms(shape: Shape, number: int) -> int:
    return shape.first_ms + number * shape.spacing_ms


Statistics = Literal["fresh", "stale", "none"]
"""Planner statistics of a filled store: of all rows, of the first thousand tasks, or never gathered."""


async def fill(driver: Driver, shape: Shape, *, statistics: Statistics = "fresh") -> None:
    """Insert the rows of `shape`."""
    async with driver.migrating() as session:
        if statistics == "stale" and driver.name == "postgresql":
            for table in LARGE:
                await session.execute(f"alter table {table} set (autovacuum_enabled = false)")
        await session.execute("begin")
        await _fill_endpoints(session)
        await session.execute("commit")
        statements = [_runner(sql, driver.name) for sql in _Statements(_WORDS[driver.name], shape).all()]
        steps = [0, min(1_000, shape.tasks), *range(CHUNK, shape.tasks, CHUNK), shape.tasks]
        for first, end in pairwise(steps):
            await session.execute("begin")
            for statement in statements:
                await statement(session, first, end - 1)
            await session.execute("commit")
            if first == 0 and statistics != "none":
                await session.execute("analyze")
        await session.execute("update counters set value = ? where name = 'events'", (shape.tasks,))
        if statistics == "fresh":
            await session.execute("vacuum analyze" if driver.name == "postgresql" else "analyze")


class _Env:
    """Enough of one for values that are made once."""

    def now(self):  # type: ignore[no-untyped-def]
        return from_ms(0)

    def new_id(self, kind: str) -> str:
        return prefixed_uuid7(kind, 0, 0)


async def _fill_endpoints(session: Session) -> None:
    for number in range(ENDPOINTS):
        made = make_endpoint(_Env(), id=prefixed_uuid7("endpoint", 0, number), max_in_flight=200)
        await session.execute(endpoint_rows.UPSERT, endpoint_rows.endpoint_to_row(made))


# --- the documents ----------------------------------------------------------------------------------------------------


def _open_task() -> Task:
    return Task(
        id=prefixed_uuid7("task", 0, 0),
        provider="fluxapi-ai",
        model="flux-kontext-pro",
        input=TaskInput(prompt="a lighthouse at dusk, " * 8, aspect_ratio="16:9", output_format="jpeg"),
        metadata={"order": "1234", "customer": "7"},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=from_ms(0),
        deadline_at=after(from_ms(0), 900),
    )


def _final_task() -> Task:
    return msgspec.structs.replace(
        _open_task(),
        status="succeeded",
        step="done",
        submitted_at=from_ms(0),
        finished_at=from_ms(0),
        result=Result(outputs=(Output(url="https://cdn.example/result/0123456789abcdef.jpg"),), raw=msgspec.Raw(b"{}")),
        via="callback",
        entries=len(ENTRIES),
    )


def _event_body() -> str:
    final = _final_task()
    data = msgspec.json.encode(view_task(final))
    event = Event(id=prefixed_uuid7("event", 0, 0), type="task.succeeded", at=from_ms(0), data=data, task_id=final.id)
    return render_body(event, 1).decode()


# --- the statements ---------------------------------------------------------------------------------------------------


class _Words(msgspec.Struct, frozen=True):
    """In which words a database counts, and writes a number in twelve hexadecimal digits and as text."""

    numbers: str
    hexed: str
    text: str


_WORDS = {
    "sqlite": _Words("numbers", "printf('%012x', {})", "cast({} as text)"),
    "postgresql": _Words(
        "generate_series(?::bigint, ?::bigint) as numbers (n)", "lpad(to_hex({}), 12, '0')", "({})::text"
    ),
}


def _runner(sql: str, database: str) -> Callable:  # type: ignore[type-arg]
    numbers = "with recursive numbers (n) as (select ? union all select n + 1 from numbers where n < ?) "
    head, _, rest = sql.partition("select")
    statement = f"{head} {numbers} select {rest}" if database == "sqlite" else sql

    async def run(session: Session, first: int, last: int) -> None:
        await session.execute(statement, (first, last))

    return run


class _Statements:
    """Each makes one row, or a few, of every number `n`."""

    def __init__(self, words: _Words, shape: Shape) -> None:
        self._words = words
        self._shape = shape
        self._at = f"({shape.first_ms} + n * {shape.spacing_ms})"
        self._done = f"n < {shape.done}"
        self._waits = f"n >= {shape.received} and {self._done}"

    def all(self) -> list[str]:
        return [self._tasks(), *self._labels(), *self._timeline(), self._keys(), *self._deliveries()]

    def _id(self, prefix: str) -> str:
        return f"'{prefix}_' || {self._words.hexed.format(self._at)} || '70008000' || {self._words.hexed.format('n')}"

    def _by_age(self, rare: str, done: str, running: str, queued: str) -> str:
        newest = f"n < {self._shape.newest}"
        first = f"case when n < {RARE} then {rare} when {self._done} then {done}"
        return f"{first} when {newest} then {running} else {queued} end"

    def _tasks(self) -> str:
        shape = self._shape
        ended = "case when n % 50 = 3 then 'failed' else 'succeeded' end"
        due = f"{shape.now_ms} - {shape.tasks} + n"
        return f"""
        insert into tasks ({rows.TASK_COLUMNS})
        select {self._id("task")},
          {self._by_age("'flux-context'", "'fluxapi-ai'", "'acedata'", "'fluxapi-ai'")},
          {self._by_age("'gpt-4o'", "'flux-kontext-pro'", "'flux-dev'", "'flux-kontext-max'")},
          {self._by_age(ended, ended, "'running'", "'queued'")},
          {self._by_age("'done'", "'done'", "'tracking'", "'submit'")},
          case when n < {shape.newest} then 'provider-' || {self._words.hexed.format("n")} end, 1,
          case when {self._done} then null else {due} end, {shape.now_ms} + 86400000,
          case when {self._done} then {self._at} + 9000 end,
          case when {self._done} then '{rows.task_to_row(_final_task())[-1]}'
            else '{rows.task_to_row(_open_task())[-1]}' end
        from {self._words.numbers}
        """

    def _labels(self) -> list[str]:
        values = {"order": "n", "customer": f"n % {CUSTOMERS}"}
        return [
            f"insert into labels (key, value, task_id) "
            f"select '{key}', {self._words.text.format(value)}, {self._id('task')} from {self._words.numbers}"
            for key, value in values.items()
        ]

    def _timeline(self) -> list[str]:
        """All of a final task, and the first of an open one."""
        return [
            f"""
            insert into timeline (task_id, number, at_ms, type, detail)
            select {self._id("task")}, {number}, {self._at} + {number}, '{kind}', '{{"outcome":"moved"}}'
            from {self._words.numbers} where {self._done} or n >= 0 and {number} = 1
            """
            for number, kind in enumerate(ENTRIES, start=1)
        ]

    def _keys(self) -> str:
        return f"""
        insert into idempotency_keys (key, fingerprint, task_id, created_ms)
        select 'order-' || {self._words.hexed.format("n")}, 'f', {self._id("task")}, {self._at}
        from {self._words.numbers} where n % 2 = 0
        """

    def _deliveries(self) -> list[str]:
        """With their events before them and their attempts after."""
        kind = f"case when n < {RARE} then 'task.late_result' else 'task.succeeded' end"
        events = f"""
        insert into events (seq, id, type, task_id, audience_id, created_ms, body)
        select n + 1, {self._id("evt")}, {kind}, {self._id("task")}, null, {self._at} + 9000, '{_event_body()}'
        from {self._words.numbers} where {self._done}
        """
        attempts = f"""
        insert into attempts (delivery_id, number, at_ms, status_code, duration_ms, error, location, excerpt)
        select {self._id("dlv")}, 1, {self._at} + 9400, 200, 12, null, null, '{{"received":true}}'
        from {self._words.numbers} where {self._done} and not ({self._waits})
        """
        return [events, self._delivery_rows(), attempts]

    def _delivery_rows(self) -> str:
        shape, own = self._shape, "n % 20 = 19"
        endpoint = f"'ep_00000000000070008000' || {self._words.hexed.format(f'n % {ENDPOINTS}')}"
        url = f"'https://shop' || {self._words.text.format(f'n / 20 % {URLS}')} || '.example'"
        return f"""
        insert into deliveries ({rows.DELIVERY_COLUMNS})
        select {self._id("dlv")}, {self._id("evt")}, 'task.succeeded', {self._id("task")},
          case when {own} then null else {endpoint} end, case when {own} then {url} || '/hook' end,
          case when {own} then 'url:' || {url} else {endpoint} end,
          case when {self._waits} then 'pending' when n < {RARE} then 'failed' else 'succeeded' end,
          case when {self._waits} then {shape.now_ms} - {shape.tasks} + n end, {self._at} + 9000,
          case when {self._waits} then null else {self._at} + 9500 end, 1, 1, 0, null, null
        from {self._words.numbers} where {self._done}
        """
