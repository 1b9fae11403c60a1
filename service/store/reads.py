"""Everything that is only read: single things, listings with cursors, timelines, the event stream."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from service.core.breaker import Breaker
from service.core.change import Entry
from service.core.delivery import Attempt, Delivery, Endpoint, Held
from service.core.event import EventType
from service.core.fault import Fault
from service.core.ids import first_id_at
from service.core.problems import NotFound
from service.core.task import Task
from service.core.times import from_ms
from service.providers.base import Limits
from service.store import faults, rows
from service.store.driver import Driver, Row
from service.store.overdue import find_overdue

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a listing; `last` is where the next part begins, None at the end."""

    items: list[T]
    last: str | None


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing of tasks is narrowed to; None narrows nothing."""

    status: str | None = None
    provider: str | None = None
    model: str | None = None
    provider_task_id: str | None = None
    metadata: dict[str, str] = {}
    created_after: datetime | None = None
    created_before: datetime | None = None


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as published; `seq` is its place in the stream."""

    seq: int
    id: str
    type: EventType
    task_id: str | None
    body: bytes


class Reads:
    """Reads what is committed, on connections of its own."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    # --- single things ------------------------------------------------------------------------------------------------

    async def get_task(self, task_id: str) -> Task:
        found = await self._one(f"select {rows.TASK_COLUMNS} from tasks where id = ?", task_id, "task")
        return rows.task_from_row(found)

    async def get_endpoint(self, endpoint_id: str) -> Endpoint:
        found = await self._one("select id, doc from endpoints where id = ?", endpoint_id, "endpoint")
        endpoint = rows.endpoint_from_row(found)
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

    async def get_event(self, event_id: str) -> StoredEvent:
        sql = f"select {_EVENT_COLUMNS} from events where id = ? and audience_id is null"
        return _event(await self._one(sql, event_id, "event"))

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
        conditions, params = _task_conditions(wanted, before)
        where = f"where {' and '.join(conditions)}" if conditions else ""
        sql = f"select {rows.TASK_COLUMNS} from tasks t {where} order by t.id desc limit ?"
        return _page(await self._fetch(sql, *params, limit + 1), limit, rows.task_from_row)

    async def list_entries(self, task_id: str) -> list[Entry]:
        sql = "select task_id, number, at_ms, type, detail from timeline where task_id = ? order by number"
        return [rows.entry_from_row(row) for row in await self._fetch(sql, task_id)]

    # --- events -------------------------------------------------------------------------------------------------------

    async def events_after(
        self, seq: int, limit: int, *, task_id: str | None = None, types: tuple[str, ...] = ()
    ) -> list[StoredEvent]:
        """Oldest first, in the order of commits, so that no cursor ever passes a late one."""
        sql = f"select {_EVENT_COLUMNS} from events where seq > ? and audience_id is null"
        params: list[Any] = [seq]
        if task_id is not None:
            sql, params = f"{sql} and task_id = ?", [*params, task_id]
        if types:
            sql, params = f"{sql} and {self._driver.any_of('type')}", [*params, self._driver.many(types)]
        return [_event(row) for row in await self._fetch(f"{sql} order by seq limit ?", *params, limit)]

    async def position_of(self, event_id: str) -> int:
        """The event's place in the stream; of one that retention has deleted, the place before what came after it."""
        found = await self._fetch("select seq from events where id = ?", event_id)
        if found:
            return int(found[0][0])
        following = (await self._fetch("select min(seq) from events where id > ?", event_id))[0][0]
        return await self.last_position() if following is None else int(following) - 1

    async def last_position(self) -> int:
        return int((await self._fetch("select value from counters where name = 'events'"))[0][0])

    # --- subscribers --------------------------------------------------------------------------------------------------

    async def list_endpoints(self) -> list[Endpoint]:
        found = _readable(await self._fetch("select id, doc from endpoints order by id"), rows.endpoint_from_row)
        return [endpoint for endpoint in found if endpoint.deleted_at is None]

    async def count_held(self) -> dict[str, Held]:
        """Held deliveries by endpoint."""
        sql = "select endpoint_id, count(*), min(created_ms) from deliveries where status = 'held' group by endpoint_id"
        return {key: Held(count=int(count), since=from_ms(since)) for key, count, since in await self._fetch(sql)}

    async def list_deliveries(
        self, status: str | None, endpoint_id: str | None, task_id: str | None, limit: int, before: str | None
    ) -> Page[Delivery]:
        """Newest first."""
        columns = {"status": status, "endpoint_id": endpoint_id, "task_id": task_id}
        conditions = [f"{column} = ?" for column, value in columns.items() if value is not None]
        params: list[Any] = [value for value in columns.values() if value is not None]
        if before is not None:
            conditions, params = [*conditions, "id < ?"], [*params, before]
        where = f"where {' and '.join(conditions)}" if conditions else ""
        sql = f"select {rows.DELIVERY_COLUMNS} from deliveries {where} order by id desc limit ?"
        return _page(await self._fetch(sql, *params, limit + 1), limit, rows.delivery_from_row)

    async def attempts_of(self, delivery_ids: list[str]) -> dict[str, list[Attempt]]:
        condition = self._driver.any_of("delivery_id")
        sql = f"select {rows.ATTEMPT_COLUMNS} from attempts where {condition} order by delivery_id, number"
        found: dict[str, list[Attempt]] = {delivery_id: [] for delivery_id in delivery_ids}
        for row in await self._fetch(sql, self._driver.many(delivery_ids)):
            found[row[0]].append(rows.attempt_from_row(row))
        return found

    # --- the state of the whole ---------------------------------------------------------------------------------------

    async def oldest_due_ms(self) -> int | None:
        """The earliest due time in the store: a worker that died silently lets it grow old."""
        sql = """
        select min(due_ms) from (select min(due_ms) as due_ms from tasks where step = 'submit'
          union all select min(due_ms) from tasks where step in ('sending', 'unconfirmed', 'tracking')
          union all select min(due_ms) from deliveries where status in ('pending', 'sending')) as due
        """
        found = (await self._fetch(sql))[0][0]
        return None if found is None else int(found)

    async def count_open(self) -> dict[str, dict[str, int]]:
        """Open tasks by status and open deliveries by status."""
        tasks = await self._fetch(
            "select status, count(*) from tasks where status in ('queued', 'running') group by status"
        )
        deliveries = await self._fetch(
            "select status, count(*) from deliveries where status <> 'succeeded' group by status"
        )
        return {"tasks": dict(tasks), "deliveries": dict(deliveries)}

    async def accounts(self) -> dict[str, tuple[int, Breaker]]:
        """Until when each account rests, in milliseconds, and whether it answers."""
        found = await self._fetch("select name, paused_ms, breaker from limits")
        return {name: (paused_ms, rows.breaker_from_text(state)) for name, paused_ms, state in found}

    async def list_faults(self) -> list[Fault]:
        async with self._driver.reading() as session:
            return await faults.list_all(session)

    async def find_overdue(self, accounts: Mapping[str, Limits], now: datetime) -> datetime | None:
        async with self._driver.reading() as session:
            return await find_overdue(session, accounts, now)

    async def count_parked(self) -> int:
        async with self._driver.reading() as session:
            return await faults.count_parked(session)


_EVENT_COLUMNS = "seq, id, type, task_id, body"


def _event(row: Row) -> StoredEvent:
    seq, event_id, kind, task_id, body = row
    return StoredEvent(seq=seq, id=event_id, type=kind, task_id=task_id, body=body.encode())


def _page(found: list[Row], limit: int, read: Callable[[Row], T]) -> Page[T]:
    """From one row more than was asked for; the first column is the id."""
    return Page(items=_readable(found[:limit], read), last=found[limit - 1][0] if len(found) > limit else None)


def _readable(found: list[Row], read: Callable[[Row], T]) -> list[T]:
    """One that can't be read hides no other; what works on it puts it aside and tells."""
    items = []
    for row in found:
        with suppress(msgspec.MsgspecError):
            items.append(read(row))
    return items


def _task_conditions(wanted: TaskFilter, before: str | None) -> tuple[list[str], list[Any]]:
    bounds = {
        "t.status = ?": wanted.status,
        "t.provider = ?": wanted.provider,
        "t.model = ?": wanted.model,
        "t.provider_task_id = ?": wanted.provider_task_id,
        "t.id >= ?": first_id_at("task", wanted.created_after) if wanted.created_after else None,
        "t.id < ?": first_id_at("task", wanted.created_before) if wanted.created_before else None,
        "t.id < ? ": before,
    }
    conditions = [condition for condition, value in bounds.items() if value is not None]
    params: list[Any] = [value for value in bounds.values() if value is not None]
    for key, value in wanted.metadata.items():
        conditions.append("exists (select 1 from labels l where l.key = ? and l.value = ? and l.task_id = t.id)")
        params += [key, value]
    return conditions, params
