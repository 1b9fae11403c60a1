"""Everything that is only read: single things, listings with cursors, timelines, the event stream."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from typing import Any, Generic, TypeVar

import msgspec

from service.core.account import DEFAULT, Limits, account_key, split_key
from service.core.breaker import Breaker
from service.core.change import Entry, IdempotencyKey
from service.core.delivery import Attempt, Delivery, Endpoint, Format, Held
from service.core.event import EventType
from service.core.fault import Fault
from service.core.problems import NotFound
from service.core.refusal import Refusal
from service.core.task import Task
from service.core.times import from_ms, to_ms
from service.store import endpoint_rows, faults, figures, pulse, rows
from service.store.accounts import account_keys, read_refusals
from service.store.claims import next_due_task
from service.store.driver import Driver, Row
from service.store.figures import Charges, Load, Outcome
from service.store.gathered import PATIENCE_S, Gathered
from service.store.lanes import find_lanes
from service.store.overdue import find_overdue
from service.store.queries import (
    FINAL,
    FLYING,
    GIVEN_UP,
    OPEN,
    PAGE_BYTES,
    STATED,
    DeliveryFilter,
    TaskFilter,
    bounded,
    delivery_query,
    task_query,
)

T = TypeVar("T")
NO_EVENT = "evt_" + "0" * 32
ATTEMPTS_MAX = 500
"""Attempts of one delivery that are shown; only retries by hand make more."""
ATTEMPT_BYTES = 8_192
LARGE_ROW = 32 * 1024
"""Characters of a row that takes a turn of the event loop for itself."""
"""The size of one at most."""
NEAR = 1_000
"""Ids are made shortly before the commit that gives an event its place: so many may be in another order at most."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a listing; `last` is where the next part begins, None at the end."""

    items: list[T]
    last: str | None


class Search(Page[Task], frozen=True, kw_only=True):
    """Result of a search among the newest tasks; `looked` is how far it went."""

    looked: int


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as published; `seq` is its place in the stream."""

    seq: int
    id: str
    type: EventType
    task_id: str | None
    body: bytes


class EventPage(list[StoredEvent]):
    """Events in their order; `has_more`: there are others behind them."""

    has_more = False


class ReadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """At most so many rows are read for one answer, and a read of single things waits so long for the database."""

    searched: int = 5_000
    counted: int = pulse.COUNT_MAX
    deliveries: int = pulse.DELIVERIES_MAX
    charges: int = figures.CHARGES_MAX
    wait_s: float = PATIENCE_S


class Reads:
    """Reads what is committed, on connections of its own."""

    def __init__(self, driver: Driver, limits: ReadLimits = ReadLimits()) -> None:
        self._driver = driver
        self._limits = limits
        self._tasks = Gathered(self._find_tasks, limits.wait_s)
        self.ends = Gathered(self._find_ends, limits.wait_s)
        """The final status of tasks; there is none as long as they go on."""

    # --- single things ------------------------------------------------------------------------------------------------

    async def get_task(self, task_id: str) -> Task:
        found = await self._tasks.get(task_id)
        if found is None:
            raise NotFound("There is no such task.")
        task = rows.task_from_row(found)
        if _is_large(found):
            await asyncio.sleep(0)  # the caller encodes it in a turn of its own
        return task

    async def _find_tasks(self, ids: Collection[str]) -> dict[str, Row | None]:
        condition, named = self._driver.any_of("id", ids)
        sql = f"select {rows.TASK_COLUMNS} from tasks where {condition}"
        found = {row[0]: row for row in await self._fetch(sql, named)}
        return {task_id: found.get(task_id) for task_id in ids}

    async def _find_ends(self, ids: Collection[str]) -> dict[str, str]:
        condition, named = self._driver.any_of("id", ids)
        sql = f"select id, status from tasks where {condition} and {self._driver.aside('status')} in {FINAL}"
        return dict(await self._fetch(sql, named))

    async def get_endpoint(self, endpoint_id: str) -> Endpoint:
        found = await self._one(f"select {endpoint_rows.COLUMNS} from endpoints where id = ?", endpoint_id, "endpoint")
        endpoint = endpoint_rows.endpoint_from_row(found)
        if endpoint.deleted_at is not None:
            raise NotFound("There is no such endpoint.")
        return endpoint

    async def get_delivery(self, delivery_id: str) -> Delivery:
        sql = f"select {rows.DELIVERY_COLUMNS} from deliveries where id = ?"
        return rows.delivery_from_row(await self._one(sql, delivery_id, "delivery"))

    async def get_delivery_of(self, event_id: str, endpoint_id: str) -> Delivery:
        sql = f"select {rows.DELIVERY_COLUMNS} from deliveries where event_id = ? and endpoint_id = ?"
        found = await self._fetch(sql, event_id, endpoint_id)
        if not found:
            raise NotFound("There is no such delivery.")
        return rows.delivery_from_row(found[0])

    async def get_delivery_body(self, delivery_id: str) -> tuple[Delivery, Format, bytes]:
        """The event's stored body, and the format in which its endpoint gets it; a deleted endpoint has one, too."""
        delivery = await self.get_delivery(delivery_id)
        body: str = (await self._one("select body from events where id = ?", delivery.event_id, "event"))[0]
        found = await self._fetch(
            f"select {endpoint_rows.COLUMNS} from endpoints where id = ?", delivery.endpoint_id or ""
        )
        return delivery, endpoint_rows.endpoint_from_row(found[0]).format if found else "standard", body.encode()

    async def get_event(self, event_id: str) -> StoredEvent:
        sql = f"select {_EVENT_COLUMNS} from events where id = ? and audience_id is null"
        return _event(await self._one(sql, event_id, "event"))

    async def find_idempotency_key(self, key: str) -> IdempotencyKey | None:
        sql = f"select {rows.IDEMPOTENCY_KEY_COLUMNS} from idempotency_keys where key = ?"
        found = await self._fetch(sql, key)
        return rows.idempotency_key_from_row(found[0]) if found else None

    async def _one(self, sql: str, key: str, noun: str) -> Row:
        found = await self._fetch(sql, key)
        if not found:
            raise NotFound(f"There is no such {noun}.")
        return found[0]

    async def _fetch(self, sql: str, *params: Any) -> list[Row]:
        async with self._driver.reading() as session:
            return await session.fetch(sql, params)

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def list_tasks(self, wanted: TaskFilter, limit: int, before: str | None) -> Page[Task]:
        """Newest first; ids sort by creation, so the index of each column ends in the id."""
        return await self.list_tasks_as(_same, wanted, limit, before)

    async def list_tasks_as(
        self, make: Callable[[Task], T], wanted: TaskFilter, limit: int, before: str | None
    ) -> Page[T]:
        """The same, each task turned into something smaller before the next one is decoded."""
        ids, params = task_query(self._driver, wanted, before, limit + 1, await self._accounts_of(wanted))
        sql = bounded(self._driver, "tasks", rows.TASK_COLUMNS, ids, key="id", size_of="doc", order="desc")
        found = await self._fetch(sql, *params)
        return await _bounded_page(found, limit, rows.task_from_row, make)

    async def _accounts_of(self, wanted: TaskFilter) -> list[str | None]:
        """Return the keys of the accounts that the filter names; also of those that are configured no more."""
        if wanted.provider is None and wanted.account is None:
            return [None]
        if wanted.provider is not None and wanted.account is not None:
            return [account_key(wanted.provider, wanted.account)]
        async with self._driver.reading() as session:
            known = await account_keys(session)
        named = [(key, *split_key(key)) for key in known]
        return [
            key for key, provider, account in named if provider == wanted.provider or account == wanted.account
        ] or [wanted.provider or DEFAULT]

    async def search_tasks(self, wanted: TaskFilter, words: Sequence[str], limit: int, before: str | None) -> Search:
        """Return those of the newest few thousand tasks whose prompt has every word; the next search continues there.

        The database looks roughly, in the whole document; what it finds is looked at again here.
        """
        window, params = task_query(
            self._driver, wanted, before, self._limits.searched, await self._accounts_of(wanted)
        )
        looked, last = (await self._fetch(f"select count(*), min(id) from ({window}) as looked", *params))[0]
        has_words = " and ".join("lower(doc) like ?" for _ in words)
        ids = f"""
        with looked as materialized ({window})
        select id from tasks where id in (select id from looked) and {has_words} order by id desc limit {limit * 4:d}
        """  # materialized, or a planner might look at all tasks first
        sql = bounded(self._driver, "tasks", rows.TASK_COLUMNS, ids, key="id", size_of="doc", order="desc")
        found = await self._fetch(sql, *params, *map(_rough, words))
        read = [task async for task in _one_by_one([row[:-1] for row in found], rows.task_from_row)]
        tasks = [task for task in read if _has_words(task, words)]
        if len(tasks) > limit:
            tasks, last = tasks[:limit], tasks[limit - 1].id
        elif found and (found[0][-1] == limit * 4 or found[0][-1] > len(found)):
            last = found[-1][0]
        elif looked < self._limits.searched:
            last = None
        return Search(items=tasks, last=last, looked=int(looked))

    async def list_entries(self, task_id: str) -> list[Entry]:
        sql = "select task_id, number, at_ms, type, detail from timeline where task_id = ? order by number"
        return [rows.entry_from_row(row) for row in await self._fetch(sql, task_id)]

    # --- events -------------------------------------------------------------------------------------------------------

    async def events_after(
        self, seq: int, limit: int, *, task_id: str | None = None, types: tuple[str, ...] = ()
    ) -> "EventPage":
        """Oldest first, in the order of commits, so that no cursor ever passes a late one."""
        ids = "select seq from events where seq > ? and audience_id is null"
        params: list[Any] = [seq]
        if task_id is not None:
            ids, params = f"{ids} and task_id = ?", [*params, task_id]
        if len(types) == 1:
            ids, params = f"{ids} and {self._driver.leading('type')}", [*params, types[0]]
        elif types:  # together they are most of all events
            condition, named = self._driver.any_of(self._driver.aside("type"), types)
            ids, params = f"{ids} and {condition}", [*params, named]
        ids = f"{ids} order by {'type, seq' if len(types) == 1 else 'seq'} limit {limit + 1:d}"
        sql = bounded(self._driver, "events", _EVENT_COLUMNS, ids, key="seq", size_of="body", order="asc")
        found = await self._fetch(sql, *params)
        page = EventPage(_event(row[:-1]) for row in found[:limit])
        page.has_more = bool(found) and found[0][-1] > len(page)
        return page

    async def position_of(self, event_id: str) -> int:
        """The event's place in the stream; of one that retention has deleted, the place before what came after it."""
        found = await self._fetch("select seq from events where id = ?", event_id)
        if found:
            return int(found[0][0])
        near = "select seq from events where id > ? order by id limit ?"
        following = (await self._fetch(f"select min(seq) from ({near}) as near", event_id, NEAR))[0][0]
        return await self.last_position() if following is None else int(following) - 1

    async def newest_event_id(self) -> str:
        """The id that a stream beginning now may resume from; where there is no event, one that lies before all."""
        found = await self._fetch("select id from events order by seq desc limit 1")
        return str(found[0][0]) if found else NO_EVENT

    async def last_position(self) -> int:
        return int((await self._fetch("select value from counters where name = 'events'"))[0][0])

    # --- subscribers --------------------------------------------------------------------------------------------------

    async def list_endpoints(self) -> list[Endpoint]:
        found = _readable(
            await self._fetch(f"select {endpoint_rows.COLUMNS} from endpoints order by id"),
            endpoint_rows.endpoint_from_row,
        )
        return [endpoint for endpoint in found if endpoint.deleted_at is None]

    async def count_held(self) -> dict[str, Held]:
        """Held deliveries by endpoint."""
        sql = f"""
        select endpoint_id, count(*), min(created_ms) from deliveries
        where {GIVEN_UP} and status = 'held' and endpoint_id is not null group by endpoint_id
        """
        return {key: Held(count=int(count), since=from_ms(since)) for key, count, since in await self._fetch(sql)}

    async def list_deliveries(self, wanted: DeliveryFilter, limit: int, before: str | None) -> Page[Delivery]:
        """Newest first; a page ends where its attempts may be larger than a page."""
        sql, params = delivery_query(self._driver, wanted, before, limit + 1)
        page = _page(await self._fetch(sql, *params), limit, rows.delivery_from_row)
        sizes = accumulate(min(delivery.attempts, ATTEMPTS_MAX) * ATTEMPT_BYTES for delivery in page.items)
        fitting = max(1, sum(size <= PAGE_BYTES for size in sizes))
        if fitting >= len(page.items):
            return page
        return Page(items=page.items[:fitting], last=page.items[fitting - 1].id)

    async def attempts_of(self, delivery_ids: list[str]) -> dict[str, list[Attempt]]:
        """The newest attempts of each, in their order."""
        condition, named = self._driver.any_of("delivery_id", delivery_ids)
        sql = f"""
        select {rows.ATTEMPT_COLUMNS} from attempts a where {condition} and number > (
          select d.attempts from deliveries d where d.id = a.delivery_id
        ) - {ATTEMPTS_MAX} order by delivery_id, number
        """
        found: dict[str, list[Attempt]] = {delivery_id: [] for delivery_id in delivery_ids}
        for row in await self._fetch(sql, named):
            found[row[0]].append(rows.attempt_from_row(row))
        return found

    # --- the state of the whole ---------------------------------------------------------------------------------------

    async def oldest_due_ms(self) -> int | None:
        """The earliest due time in the store: a worker that died silently lets it grow old."""
        async with self._driver.reading() as session:
            times = [await next_due_task(session, account) for account in await account_keys(session)]
            lanes = await find_lanes(session)
        known = [at for at in (*times, *(lane.due_at for lane in lanes[:1])) if at is not None]
        return to_ms(min(known)) if known else None

    async def count_open(self) -> dict[str, dict[str, int]]:
        """Open tasks by status and open deliveries by status."""
        return {
            "tasks": await self._count_each("tasks", ("queued", "running")),
            "deliveries": await self._count_each(
                "deliveries", ("pending", "sending", "held", "failed"), f"and {STATED}"
            ),
        }

    async def _count_each(self, table: str, statuses: Sequence[str], also: str = "") -> dict[str, int]:
        """A count of its own for each status: to group them takes two to three times as long."""
        counts = [f"(select count(*) from {table} where status = '{status}' {also})" for status in statuses]
        found = (await self._fetch(f"select {', '.join(counts)}"))[0]
        return dict(zip(statuses, found, strict=True))

    async def count_due(self, now: datetime) -> dict[str, int]:
        """Count the due work that has not begun, by kind."""
        sql = f"""
        select (select count(*) from tasks where step = 'submit' and due_ms <= ?),
          (select count(*) from tasks where {FLYING} and due_ms <= ?),
          (select count(*) from deliveries where {OPEN} and due_ms <= ?)
        """
        found = (await self._fetch(sql, *[to_ms(now)] * 3))[0]
        return dict(zip(("submit", "poll", "delivery"), found, strict=True))

    async def accounts(self) -> dict[str, tuple[int, Breaker]]:
        """Until when each account rests, in milliseconds, and whether it answers."""
        found = await self._fetch("select name, paused_ms, breaker from limits")
        return {name: (paused_ms, rows.breaker_from_text(state)) for name, paused_ms, state in found}

    async def refusals(self) -> dict[str, Refusal]:
        async with self._driver.reading() as session:
            return await read_refusals(session)

    async def list_faults(self) -> list[Fault]:
        async with self._driver.reading() as session:
            return await faults.list_all(session)

    async def find_overdue(self, accounts: Mapping[str, Limits], now: datetime) -> datetime | None:
        async with self._driver.reading() as session:
            return await find_overdue(session, accounts, now)

    async def count_parked(self) -> int:
        async with self._driver.reading() as session:
            return await faults.count_parked(session)

    async def count_waiting(self) -> pulse.Waiting:
        async with self._driver.reading() as session:
            return await pulse.count_waiting(session, self._limits.counted)

    async def count_endings(self, provider: str, since: datetime, until: datetime) -> list[tuple[int, str, int]]:
        async with self._driver.reading() as session:
            return await pulse.count_endings(session, provider, since, until)

    async def count_created(self, since: datetime, until: datetime) -> list[tuple[int, int]]:
        async with self._driver.reading() as session:
            return await pulse.count_created(session, since, until)

    async def times_to_result(self, provider: str, since: datetime, limit: int) -> Sequence[float]:
        async with self._driver.reading() as session:
            return await pulse.times_to_result(session, provider, since, limit)

    async def count_deliveries(self, since: datetime) -> dict[str, int]:
        async with self._driver.reading() as session:
            return await pulse.count_deliveries(session, since, self._limits.deliveries)

    async def recent_outcomes(self, endpoint_ids: Iterable[str], limit: int) -> dict[str, list[Outcome]]:
        """By endpoint, the newest first."""
        async with self._driver.reading() as session:
            return {one: await figures.recent_outcomes(session, one, limit) for one in endpoint_ids}

    async def account_loads(self, accounts: Mapping[str, Limits], now: datetime) -> dict[str, Load]:
        async with self._driver.reading() as session:
            return {
                name: await figures.account_load(session, name, limits, now, self._limits.counted)
                for name, limits in accounts.items()
            }

    async def recent_charges(self, since: datetime) -> Charges:
        async with self._driver.reading() as session:
            return await figures.recent_charges(session, since, self._limits.charges)


_EVENT_COLUMNS = "seq, id, type, task_id, body"


def _event(row: Row) -> StoredEvent:
    seq, event_id, kind, task_id, body = row
    return StoredEvent(seq=seq, id=event_id, type=kind, task_id=task_id, body=body.encode())


async def _bounded_page(
    found: list[Row], limit: int, read: Callable[[Row], Task], make: Callable[[Task], T]
) -> Page[T]:
    """From rows whose last column counts all that were asked for, one more than the limit at most."""
    del found[limit:]
    last = found[-1][0] if found and found[0][-1] > len(found) else None
    return Page(items=[make(item) async for item in _one_by_one(found, lambda row: read(row[:-1]))], last=last)


async def _one_by_one(found: list[Row], read: Callable[[Row], T]) -> AsyncIterator[T]:
    """Read each row and drop it, since it may be large; the event loop has a turn before and after a large one."""
    found.reverse()
    while found:
        row = found.pop()
        items = _readable([row], read)
        if _is_large(row):
            await asyncio.sleep(0)
        for item in items:
            yield item
        if _is_large(row):
            await asyncio.sleep(0)


def _is_large(row: Row) -> bool:
    return sum(len(column) for column in row if isinstance(column, str)) > LARGE_ROW


def _same(task: Task) -> Task:
    return task


def _page(found: list[Row], limit: int, read: Callable[[Row], T]) -> Page[T]:
    """From one row more than was asked for; the first column is the id."""
    return Page(items=_readable(found[:limit], read), last=found[limit - 1][0] if len(found) > limit else None)


def _readable(found: list[Row], read: Callable[[Row], T]) -> list[T]:
    """Return the readable ones. The worker quarantines the others and logs them."""
    items = []
    for row in found:
        with suppress(msgspec.MsgspecError):
            items.append(read(row))
    return items


def _rough(word: str) -> str:
    """A pattern that finds the word in any case; what JSON or a database writes in its own way is anything."""
    return f"%{''.join(char if _is_plain(char) else '%' for char in word.lower())}%"


def _is_plain(char: str) -> bool:
    """Letters and digits of ASCII, and of scripts that have no cases."""
    return char.isalnum() and (char.isascii() or char.lower() == char.upper())


def _has_words(task: Task, words: Sequence[str]) -> bool:
    prompt = task.input.prompt.lower()
    return all(word.lower() in prompt for word in words)
