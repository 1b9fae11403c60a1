"""The values that one transaction works on: read once, changed by decisions in turn, written at its end."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import msgspec
from msgspec.structs import replace

from service.core.account import Account
from service.core.breaker import AccountCall, Breaker, after_calls
from service.core.change import Change, Entry, IdempotencyKey, Pause
from service.core.delivery import Attempt, Delivery, Endpoint, fan_out
from service.core.env import Env
from service.core.event import UNASKED, Event, render_body
from service.core.fault import Fault
from service.core.problems import NotFound
from service.core.refusal import Refusal, after_submits
from service.core.task import Task
from service.core.times import to_ms
from service.store import endpoint_rows, faults, rows
from service.store.accounts import read_rooms
from service.store.bus import DELIVERIES, EVENTS, tasks_of
from service.store.driver import Contended, Driver, Row, Session
from service.store.queries import GIVEN_UP, OPEN


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """The things a decision reads. One that does not exist is left out."""

    tasks: tuple[str, ...] = ()
    deliveries: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    idempotency: tuple[str, ...] = ()
    rooms: tuple[Account, ...] = ()
    """Accounts of which a decision chooses one."""


class Subscribers:
    """The endpoints as last read, with the version they had: most transactions find it unchanged and read none."""

    def __init__(self) -> None:
        self.version = -1
        self.endpoints: dict[str, Endpoint] = {}


class Batch:
    """The values of a transaction. `apply` and `flush` may be called many times, `publish` comes after them.

    Locks are taken in one order, tasks, deliveries, endpoints, accounts, counters, so that two rarely cross.
    """

    def __init__(
        self, session: Session, driver: Driver, env: Env, subscribers: Subscribers, *, patient: bool = False
    ) -> None:
        """A patient one locks endpoints when it reads them; else only when a decision changes one, which is rare."""
        self.session = session
        self.driver = driver
        self.env = env
        self.topics: set[str] = set()
        self.finished: list[Task] = []
        self.faults: list[Fault] = []
        self._subscribers = subscribers
        self._tasks: dict[str, Task] = {}
        self._deliveries: dict[str, Delivery] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._idempotency: dict[str, IdempotencyKey] = {}
        self.rooms: dict[str, int] = {}
        self._known: set[str] = set()
        self._patient = patient
        self._unlocked: dict[str, Row] = {}
        self._events: list[Event] = []
        self._holds: list[str] = []
        self._filters_changed = False
        self._clear()

    def _clear(self) -> None:
        self._dirty_tasks: set[str] = set()
        self._dirty_deliveries: set[str] = set()
        self._dirty_endpoints: set[str] = set()
        self._attempts: list[Attempt] = []
        self._entries: list[Entry] = []
        self._pauses: list[Pause] = []
        self._calls: list[AccountCall] = []
        self._moved: list[Task] = []
        self._new_keys: list[IdempotencyKey] = []

    async def load(self, wanted: Iterable[Keys]) -> None:
        """Reads and locks what is named and not here yet, in the order of the ids."""
        named = list(wanted)
        lock = self.driver.for_update
        missing = {key for keys in named for key in keys.tasks} - self._tasks.keys()
        for row in await self._rows("tasks", rows.TASK_COLUMNS, missing, lock):
            self.see_task(row)
        missing = {key for keys in named for key in keys.deliveries} - self._deliveries.keys()
        for row in await self._rows("deliveries", rows.DELIVERY_COLUMNS, missing, lock):
            self.see_delivery(row)
        missing = {key for keys in named for key in keys.endpoints} - self._endpoints.keys()
        await self._load_endpoints(missing)
        missing = {key for keys in named for key in keys.idempotency} - self._idempotency.keys()
        await self._load_idempotency(missing)
        crowded = {one.key: one for keys in named for one in keys.rooms if one.key not in self.rooms}
        self.rooms |= await read_rooms(self.session, crowded.values(), self.env.now())

    async def _load_endpoints(self, missing: set[str]) -> None:
        lock = self.driver.for_update if self._patient else ""
        for row in await self._rows("endpoints", endpoint_rows.COLUMNS, missing, lock):
            self.see_endpoint(endpoint_rows.endpoint_from_row(row))
            if not self._patient:
                self._unlocked[row[0]] = row

    async def _load_idempotency(self, missing: set[str]) -> None:
        if not missing:
            return
        condition, named = self.driver.any_of("key", missing)
        sql = f"select {rows.IDEMPOTENCY_KEY_COLUMNS} from idempotency_keys where {condition}"
        for row in await self.session.fetch(sql, (named,)):
            key = rows.idempotency_key_from_row(row)
            self._idempotency[key.key] = key

    async def _rows(self, table: str, columns: str, missing: set[str], lock: str) -> list[Row]:
        if not missing:
            return []
        condition, named = self.driver.any_of("id", missing)
        return await self.session.fetch(f"select {columns} from {table} where {condition} order by id {lock}", (named,))

    def see_task(self, row: Row) -> Task:
        """A row read in this transaction; a value that is here already wins, since it is newer or the same."""
        task = self._tasks.get(row[0])
        if task is None:
            task = self._tasks[row[0]] = rows.task_from_row(row)
            self._known.add(task.id)
        return task

    def see_delivery(self, row: Row) -> Delivery:
        delivery = self._deliveries.get(row[0])
        if delivery is None:
            delivery = self._deliveries[row[0]] = rows.delivery_from_row(row)
        return delivery

    def see_endpoint(self, endpoint: Endpoint) -> Endpoint:
        return self._endpoints.setdefault(endpoint.id, endpoint)

    def task(self, task_id: str) -> Task:
        found = self._tasks.get(task_id)
        if found is None:
            raise NotFound("There is no such task.")
        return found

    def delivery(self, delivery_id: str) -> Delivery:
        found = self._deliveries.get(delivery_id)
        if found is None:
            raise NotFound("There is no such delivery.")
        return found

    def endpoint(self, endpoint_id: str) -> Endpoint:
        found = self._endpoints.get(endpoint_id)
        if found is None or found.deleted_at is not None:
            raise NotFound("There is no such endpoint.")
        return found

    def find_endpoint(self, endpoint_id: str | None) -> Endpoint | None:
        return self._endpoints.get(endpoint_id) if endpoint_id else None

    def idempotency_key(self, key: str) -> IdempotencyKey | None:
        return self._idempotency.get(key)

    def apply(self, change: Change) -> Change:
        """The change's values are the present ones from here on."""
        for task in change.tasks:
            before = self._tasks.get(task.id)
            self._tasks[task.id] = task
            self._dirty_tasks.add(task.id)
            if before is not None and before.account != task.account:
                self._moved.append(task)
            if task.is_final and not (before and before.is_final):
                self.topics.add(task.id)
                self.finished.append(task)
            elif not task.is_final and task.due_at is not None and task.due_at <= self.env.now():
                self.topics.add(tasks_of(task.account_key))
        for delivery in change.deliveries:
            self.put_delivery(delivery)
        for endpoint in change.endpoints:
            self._filters_changed |= _filters(endpoint) != _filters(self._endpoints.get(endpoint.id))
            self._endpoints[endpoint.id] = endpoint
            self._dirty_endpoints.add(endpoint.id)
        for key in change.idempotency:
            self._idempotency[key.key] = key
        self._new_keys += change.idempotency
        self._holds += change.holds
        self._events += change.events
        self._attempts += change.attempts
        self._entries += change.timeline
        self._pauses += change.pauses
        self._calls += change.calls
        return change

    def reread_endpoints(self) -> None:
        """Every process reads the endpoints again. The counter is moved with the others, at the end."""
        self._filters_changed = True

    def forget(self, task_id: str, erase: Callable[[bytes], bytes]) -> None:
        """Erase the task in events that this transaction has not published yet."""
        self._events = [
            replace(event, data=erase(event.data)) if event.task_id == task_id else event for event in self._events
        ]

    def put_delivery(self, delivery: Delivery) -> None:
        self._deliveries[delivery.id] = delivery
        self._dirty_deliveries.add(delivery.id)
        if delivery.status == "pending" and delivery.due_at is not None and delivery.due_at <= self.env.now():
            self.topics.add(DELIVERIES)

    async def flush(self) -> None:
        """Writes each table with one statement for all its rows; events wait for `publish`."""
        if self._dirty_endpoints:
            await self._write_endpoints()
        if self._dirty_tasks or self._entries or self._new_keys:
            await self._write_tasks()
        if self._dirty_deliveries or self._attempts:
            await self._write_deliveries()
        await self._hold()
        if self._pauses:
            await self._write_pauses()
        if self._calls:
            await self._write_calls()
        self._clear()

    async def publish(self) -> None:
        """Numbers the events in the order of commits and fans them out.

        The counters' rows stay locked until this transaction ends, so this is its last and shortest part. Who
        receives changes under the same lock: no delivery slips past an endpoint that is disabled at the same time.
        """
        if not (self._events or self._holds or self._filters_changed):
            return
        which = "where name between 'endpoints' and 'events' order by name"  # that of keys has its own holders
        sql = f"select name, value from counters {which} {self.driver.for_update}"
        counters: dict[str, int] = dict(await self.session.fetch(sql))
        if self._filters_changed:
            await self._set_counter("endpoints", counters["endpoints"] + 1)
        await self._hold(self.driver.skip_locked("deliveries"))
        await self._publish_events(counters["events"], counters["endpoints"] + self._filters_changed)
        await self._write_deliveries()
        self._events, self._holds, self._filters_changed = [], [], False

    async def _set_counter(self, name: str, value: int) -> None:
        await self.session.execute("update counters set value = ? where name = ?", (value, name))

    async def _write_endpoints(self) -> None:
        await self._lock_changed_endpoints()
        changed = [endpoint_rows.endpoint_to_row(self._endpoints[key]) for key in sorted(self._dirty_endpoints)]
        await self._many(endpoint_rows.UPSERT, changed)

    async def _lock_changed_endpoints(self) -> None:
        """Raises Contended when one that was read without a lock has changed meanwhile."""
        changed = self._dirty_endpoints & self._unlocked.keys()
        for row in await self._rows("endpoints", endpoint_rows.COLUMNS, changed, self.driver.for_update):
            if self._unlocked.pop(row[0]) != row:
                raise Contended("The endpoint was changed meanwhile.")

    async def _write_tasks(self) -> None:
        ids = sorted(self._dirty_tasks)
        await self._many(rows.UPSERT_TASK, [rows.task_to_row(self._tasks[key]) for key in ids])
        await self._many(rows.MOVE_TASK, [(task.account_key, task.id) for task in self._moved])
        created = [self._tasks[key] for key in ids if key not in self._known]
        labels = [(key, value, task.id) for task in created for key, value in task.metadata.items()]
        await self._many(rows.INSERT_LABEL, labels)
        self._known.update(ids)
        await self._many(rows.INSERT_ENTRY, [rows.entry_to_row(entry) for entry in self._entries])
        await self._many(rows.INSERT_IDEMPOTENCY_KEY, [rows.idempotency_key_to_row(key) for key in self._new_keys])

    async def _publish_events(self, last: int, version: int) -> None:
        if not self._events:
            return
        endpoints = await self._current_endpoints(version)
        fanned = [(event, list(fan_out(event, endpoints.values(), self.env))) for event in self._events]
        wanted = [event for event, deliveries in fanned if deliveries or event.type not in UNASKED]
        if wanted:
            await self._insert_events(wanted, last)
        for delivery in chain.from_iterable(deliveries for _, deliveries in fanned):
            self.put_delivery(delivery)

    async def _insert_events(self, events: list[Event], last: int) -> None:
        await self._set_counter("events", last + len(events))
        await self._many(
            rows.INSERT_EVENT,
            [
                (n, e.id, e.type, e.task_id, e.audience_id, to_ms(e.at), render_body(e, n).decode())
                for n, e in enumerate(events, start=last + 1)
            ],
        )
        self.topics.add(EVENTS)

    async def _current_endpoints(self, version: int) -> dict[str, Endpoint]:
        """Return the stored endpoints, read again if their version changed."""
        if version != self._subscribers.version:
            stored = await self.session.fetch(f"select {endpoint_rows.COLUMNS} from endpoints order by id")
            found = [await self._readable(row) for row in stored]
            self._subscribers.endpoints = {e.id: e for e in found if e is not None and e.deleted_at is None}
            self._subscribers.version = version
        return self._subscribers.endpoints

    async def _readable(self, row: Row) -> Endpoint | None:
        """Return the endpoint, or None if it can't be read: it blocks no event, and `recover` sends what it missed."""
        try:
            return endpoint_rows.endpoint_from_row(row)
        except Exception as error:
            await faults.note(self, row[0], error)
            return None

    async def read_endpoint(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint, or None if it is missing or can't be read."""
        sql = f"select {endpoint_rows.COLUMNS} from endpoints where id = ?"
        for row in await self.session.fetch(sql, (endpoint_id,)):
            endpoint = await self._readable(row)
            return self.see_endpoint(endpoint) if endpoint else None
        return None

    async def _write_deliveries(self) -> None:
        changed = [rows.delivery_to_row(self._deliveries[key]) for key in sorted(self._dirty_deliveries)]
        await self._many(rows.UPSERT_DELIVERY, changed)
        await self._many(rows.INSERT_ATTEMPT, [rows.attempt_to_row(attempt) for attempt in self._attempts])
        self._dirty_deliveries, self._attempts = set(), []  # `publish` writes without a flush after it

    async def _hold(self, lock: str = "") -> None:
        """Before the counters are locked, since rows may be waited for; and after it, for what came in between.

        Then none is waited for: whoever has it may want the counters, and what is taken is looked at again by its
        claim. An attempt asked for by hand is off: what was received or given up before is so again.
        """
        if not self._holds:
            return
        lock = lock or self.driver.for_update
        waiting = f"lane = ? and {OPEN} and status = 'pending' order by id {lock}"
        kept = f"endpoint_id = ? and {GIVEN_UP} and status <> 'failed' order by id {lock}"
        sql = f"""
        update deliveries set due_ms = null, resume_status = null, resume_due_ms = null,
          status = case when coalesce(resume_status, 'pending') = 'pending' then 'held' else resume_status end
        where id in (select id from deliveries where {waiting})
        """
        await self._many(sql, [(endpoint_id,) for endpoint_id in self._holds])
        deleted = [key for key in self._holds if (known := self.find_endpoint(key)) and known.deleted_at]
        for which in (waiting, kept):
            sql = f"""
            update deliveries set status = 'failed', due_ms = null, resume_status = null, resume_due_ms = null,
              finished_ms = ? where id in (select id from deliveries where {which})
            """
            await self._many(sql, [(to_ms(self.env.now()), key) for key in deleted])

    async def _write_pauses(self) -> None:
        sql = """
        insert into limits (name, paused_ms, used) values (?, ?, '{}') on conflict (name) do update set paused_ms =
          case when excluded.paused_ms > limits.paused_ms then excluded.paused_ms else limits.paused_ms end
        """
        await self._many(sql, sorted((pause.account, to_ms(pause.until)) for pause in self._pauses))

    async def _write_calls(self) -> None:
        """Write what calls showed about their accounts; without a change this is one read and no lock."""
        for account in sorted({call.account for call in self._calls}):
            calls = [call for call in self._calls if call.account == account]
            before = await self._answers(account, "")
            if self._learn(before, calls) != before:
                breaker, refusal = self._learn(await self._answers(account, self.driver.for_update), calls)
                await self.session.execute(rows.UPSERT_BREAKER, (account, rows.breaker_to_text(breaker)))
                await self.session.execute(rows.UPSERT_REFUSAL, (account, rows.refusal_to_text(refusal)))

    def _learn(self, before: "_Answers", calls: list[AccountCall]) -> "_Answers":
        breaker, refusal = before
        return after_calls(breaker, calls, self.env), after_submits(refusal, calls, self.env)

    async def _answers(self, account: str, lock: str) -> "_Answers":
        found = await self.session.fetch(f"select breaker, refused from limits where name = ? {lock}", (account,))
        if not found:
            return Breaker(), None
        return rows.breaker_from_text(found[0][0]), rows.refusal_from_text(found[0][1])

    async def _many(self, sql: str, values: list[tuple[Any, ...]]) -> None:
        if values:
            await self.session.execute_many(sql, values)


_Answers = tuple[Breaker, Refusal | None]


def _filters(endpoint: Endpoint | None) -> tuple[object, ...] | None:
    """Return the fields that fan-out compares."""
    if endpoint is None:
        return None
    return (endpoint.enabled, endpoint.deleted_at, endpoint.events, endpoint.filter)
