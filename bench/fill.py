"""Fills a store as years of use would: final tasks with all that hangs on them, and a part that is still due."""

from collections.abc import Callable
from itertools import pairwise

import msgspec

from service.core.event import Event, render_body
from service.core.ids import prefixed_uuid7
from service.core.task import Image, Result, Task, TaskInput
from service.core.times import after, from_ms, to_ms
from service.core.views import view_task
from service.store import rows
from service.store.driver import Driver, Session
from tests.support.factory import make_endpoint

CHUNK = 50_000
DAYS = 29
CUSTOMERS = 10
ENDPOINTS = 10
RARE = 20
"""So many tasks of one provider and one model are in the oldest part of the store, whatever its size."""
SQLITE = {"numbers": "numbers", "hex": "printf('%012x', {})", "text": "cast({} as text)"}
POSTGRES = {"numbers": "generate_series(?::bigint, ?::bigint) as numbers (n)", "hex": "lpad(to_hex({}), 12, '0')"}
POSTGRES |= {"text": "({})::text"}
LARGE = ("tasks", "labels", "timeline", "events", "deliveries", "attempts", "idempotency_keys")


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks, which part of them is still waiting, and when the last one came."""

    tasks: int
    waiting: float
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


async def fill(driver: Driver, shape: Shape, *, stale: bool = False) -> None:
    """With `stale`, the planner knows the store as it was with a thousand tasks, and nothing tells it more."""
    async with driver.migrating() as session:
        if stale and driver.name == "postgresql":
            for table in LARGE:
                await session.execute(f"alter table {table} set (autovacuum_enabled = false)")
        await session.execute("begin")
        await _fill_endpoints(session)
        await session.execute("commit")
        steps = [0, min(1_000, shape.tasks), *range(CHUNK, shape.tasks, CHUNK), shape.tasks]
        for first, end in pairwise(steps):
            await session.execute("begin")
            for statement in _statements(driver, shape):
                await statement(session, first, end - 1)
            await session.execute("commit")
            if first == 0:
                await session.execute("analyze")
        await session.execute("update counters set value = ? where name = 'events'", (shape.tasks,))
        if not stale:
            await session.execute("vacuum analyze" if driver.name == "postgresql" else "analyze")


async def _fill_endpoints(session: Session) -> None:
    for number in range(ENDPOINTS):
        made = make_endpoint(_Env(), id=prefixed_uuid7("endpoint", 0, number), max_in_flight=200)
        await session.execute(rows.UPSERT_ENDPOINT, rows.endpoint_to_row(made))


class _Env:
    """Enough of one for values that are made once."""

    def now(self):  # type: ignore[no-untyped-def]
        return from_ms(0)

    def new_id(self, kind: str) -> str:
        return prefixed_uuid7(kind, 0, 0)


def sample_task() -> Task:
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


def _statements(driver: Driver, shape: Shape) -> list[Callable]:  # type: ignore[type-arg]
    words = SQLITE if driver.name == "sqlite" else POSTGRES
    final = msgspec.structs.replace(
        sample_task(),
        status="succeeded",
        step="done",
        submitted_at=from_ms(0),
        finished_at=from_ms(0),
        result=Result(images=(Image(url="https://cdn.example/result/0123456789abcdef.jpg"),), raw=msgspec.Raw(b"{}")),
        via="callback",
        entries=4,
    )
    doc = rows.task_to_row(final)[-1]
    open_doc = rows.task_to_row(sample_task())[-1]
    data = msgspec.json.encode(view_task(final))
    event = Event(id=prefixed_uuid7("event", 0, 0), type="task.succeeded", at=from_ms(0), data=data, task_id=final.id)
    body = render_body(event, 1).decode()

    def hexed(value: str) -> str:
        return words["hex"].format(value)

    def text(value: str) -> str:
        return words["text"].format(value)

    at = f"({shape.first_ms} + n * {shape.spacing_ms})"
    done, newest = f"n < {shape.done}", shape.done + (shape.tasks - shape.done) // 2
    rare = f"n < {RARE}"

    def key(prefix: str) -> str:
        return f"'{prefix}_' || {hexed(at)} || '70008000' || {hexed('n')}"

    lane = (
        f"case when n % 20 = 19 then 'url:https://shop' || {text('n / 20 % 50')} || '.example' "
        f"else 'ep_00000000000070008000' || {hexed('n % ' + str(ENDPOINTS))} end"
    )
    waits = f"n >= {shape.done - (shape.tasks - shape.done)} and {done}"
    tasks = f"""
    insert into tasks ({rows.TASK_COLUMNS})
    select {key("task")},
      case when {rare} then 'flux-context' when {done} then 'fluxapi-ai' when n < {newest} then 'acedata'
        else 'fluxapi-ai' end,
      case when {rare} then 'gpt-4o' when {done} then 'flux-kontext-pro' when n < {newest} then 'flux-dev'
        else 'flux-kontext-max' end,
      case when n % 50 = 3 and {done} then 'failed' when {done} then 'succeeded' when n < {newest} then 'running'
        else 'queued' end,
      case when {done} then 'done' when n < {newest} then 'tracking' else 'submit' end,
      case when n < {newest} then 'provider-' || {hexed("n")} end, 1,
      case when {done} then null else {shape.now_ms} - {shape.tasks} + n end,
      {shape.now_ms} + 86400000,
      case when {done} then {at} + 9000 end,
      case when {done} then '{doc}' else '{open_doc}' end
    from {words["numbers"]}
    """
    labels = f"""
    insert into labels (key, value, task_id)
    select 'order', {text("n")}, {key("task")} from {words["numbers"]}
    """
    customers = f"""
    insert into labels (key, value, task_id)
    select 'customer', {text(f"n % {CUSTOMERS}")}, {key("task")} from {words["numbers"]}
    """
    entry = """{{"outcome":"moved","number":{number}}}"""
    timeline = [
        f"""
        insert into timeline (task_id, number, at_ms, type, detail)
        select {key("task")}, {number}, {at} + {number}, '{kind}', '{entry.format(number=number)}'
        from {words["numbers"]} where {done} or n >= 0 and {number} = 1
        """
        for number, kind in enumerate(("task.created", "submit.sent", "submit.accepted", "callback.accepted"), start=1)
    ]
    keys = f"""
    insert into idempotency_keys (key, fingerprint, task_id, created_ms)
    select 'order-' || {hexed("n")}, 'f', {key("task")}, {at} from {words["numbers"]} where n % 2 = 0
    """
    events = f"""
    insert into events (seq, id, type, task_id, audience_id, created_ms, body)
    select n + 1, {key("evt")}, case when {rare} then 'task.late_result' else 'task.succeeded' end, {key("task")}, null,
      {at} + 9000, '{body}'
    from {words["numbers"]} where {done}
    """
    deliveries = f"""
    insert into deliveries ({rows.DELIVERY_COLUMNS})
    select {key("dlv")}, {key("evt")}, 'task.succeeded', {key("task")},
      case when n % 20 <> 19 then {lane} end, case when n % 20 = 19 then 'https://shop.example/hook' end, {lane},
      case when {waits} then 'pending' when {rare} then 'failed' else 'succeeded' end,
      case when {waits} then {shape.now_ms} - {shape.tasks} + n end, {at} + 9000,
      case when {waits} then null else {at} + 9500 end, 1, 1, 0, null, null
    from {words["numbers"]} where {done}
    """
    attempts = f"""
    insert into attempts (delivery_id, number, at_ms, status_code, duration_ms, error, location, excerpt)
    select {key("dlv")}, 1, {at} + 9400, 200, 12, null, null, '{{"received":true}}'
    from {words["numbers"]} where {done} and not ({waits})
    """
    made = [tasks, labels, customers, *timeline, keys, events, deliveries, attempts]
    return [_runner(sql, sqlite=driver.name == "sqlite") for sql in made]


def _runner(sql: str, *, sqlite: bool) -> Callable:  # type: ignore[type-arg]
    numbers = "with recursive numbers (n) as (select ? union all select n + 1 from numbers where n < ?) "
    head, _, rest = sql.partition("select")
    statement = f"{head} {numbers} select {rest}" if sqlite else sql

    async def run(session: Session, first: int, last: int) -> None:
        await session.execute(statement, (first, last))

    return run


def created_at_ms(shape: Shape, number: int) -> int:
    return shape.first_ms + number * shape.spacing_ms


def shape_of(tasks: int, waiting: float, now: object) -> Shape:
    return Shape(tasks=tasks, waiting=waiting, now_ms=to_ms(now))  # type: ignore[arg-type]
