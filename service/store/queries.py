"""The statements of the listings: each filter finds its page through an index that is in the order of the ids."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from service.core.ids import first_id_at
from service.store import rows
from service.store.driver import Driver

FINAL = "('succeeded', 'failed', 'canceled')"
OPEN = "status in ('pending', 'sending')"
STATED = "length(status) > 0"
GIVEN_UP = "(status = 'failed' or status = 'held' or status = 'parked')"
FLYING = "(step = 'sending' or step = 'unconfirmed' or step = 'tracking')"
"""In the words of the partial indexes: a planner goes by them, since it can't know what a parameter will be."""

COMMON_TYPE = "task.succeeded"
"""Most deliveries are of this type, so the index of types leaves it out."""
PAGE_BYTES = 3 << 20
"""A page has no more, unless its first row alone does: a row may have a mebibyte or two."""
AFTER_EVERY_ID = "~"
"""A bound for a listing without one: PostgreSQL plans a statement anew only where it has a parameter."""


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a listing of tasks; None matches everything."""

    status: str | None = None
    provider: str | None = None
    account: str | None = None
    model: str | None = None
    provider_task_id: str | None = None
    metadata: dict[str, str] = {}
    created_after: datetime | None = None
    created_before: datetime | None = None


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of a listing of deliveries; None matches everything."""

    status: str | None = None
    endpoint_id: str | None = None
    task_id: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def task_query(
    driver: Driver, wanted: TaskFilter, before: str | None, limit: int, accounts: Sequence[str | None] = (None,)
) -> tuple[str, list[Any]]:
    """The ids of the newest tasks of these accounts: a page of each, merged. None stands for all accounts."""
    pages = [_page(driver, wanted, account, before, limit) for account in accounts]
    ids = " union all ".join(f"select id from ({sql}) as page{n}" for n, (sql, _) in enumerate(pages))
    if len(pages) > 1:
        ids = f"select id from ({ids}) as pages order by id desc limit {limit:d}"
    return ids, [param for _, params in pages for param in params]


def bounded(driver: Driver, table: str, columns: str, ids: str, *, key: str, size_of: str, order: str) -> str:
    """The rows with these ids, as many as fit into a page; the last column counts the ids.

    Sizes come first: what does not fit is never read into this process.
    """
    size = driver.size_of(size_of)
    return f"""
    with page as materialized ({ids}),
    sized as (
      select {key}, {size} as size, sum({size}) over (order by {key} {order}) as total from {table}
      where {key} in (select {key} from page)
    )
    select {columns}, (select count(*) from page) from {table}
    where {key} in (select {key} from sized where total <= {PAGE_BYTES:d} or total = size) order by {key} {order}
    """


def _page(
    driver: Driver, wanted: TaskFilter, account: str | None, before: str | None, limit: int
) -> tuple[str, list[Any]]:
    """The ids, from the one index that leads; the limit is in the text, so that a planner knows it."""
    wanted = replace(wanted, provider=account)
    tables, task_id, leads = _leading(wanted)
    after, until = wanted.created_after, wanted.created_before
    ends = [end for end in (before, first_id_at("task", until) if until else None) if end is not None]
    bounds = _Bounds(low=first_id_at("task", after) if after else None, high=min(ends, default=AFTER_EVERY_ID))
    if wanted.status is None or not leads or "t.status" in leads:
        conditions, params, order = _walk(driver, leads, task_id, bounds)
    else:
        conditions, params, order = _walk_to_status(driver, leads, task_id, bounds, wanted.status)
    if "l.key" in leads:
        conditions.append("t.id = l.task_id")
    if wanted.provider_task_id is not None:
        conditions, params = [*conditions, "t.provider_task_id = ?"], [*params, wanted.provider_task_id]
    for column in ("t.status", "t.provider", "t.model"):
        value = getattr(wanted, column[2:])
        if value is not None and column not in leads:
            conditions, params = [*conditions, f"{driver.aside(column)} = ?"], [*params, value]
    for label in list(wanted.metadata.items())["l.key" in leads :]:
        conditions.append("exists (select 1 from labels x where x.key = ? and x.value = ? and x.task_id = t.id)")
        params += label
    return f"select {task_id} as id from {tables} {_where(conditions)} order by {order} limit {limit:d}", params


def delivery_query(driver: Driver, wanted: DeliveryFilter, before: str | None, limit: int) -> tuple[str, list[Any]]:
    """The newest deliveries, from the one index that leads."""
    columns = ("event_id", "task_id", "endpoint_id", "status", "event_type")
    given = {column: value for column in columns if (value := getattr(wanted, column)) is not None}
    names, words = _delivery_index(given)
    leads = {name: given.pop(name) for name in names}
    after, until = wanted.created_after, wanted.created_before
    ends = [end for end in (before, first_id_at("delivery", until) if until else None) if end is not None]
    bounds = _Bounds(low=first_id_at("delivery", after) if after else None, high=min(ends) if ends else None)
    conditions, params, order = _walk(driver, leads, "id", bounds)
    conditions += [*words, *(f"{driver.aside(column)} = ?" for column in given)]
    sql = f"select {rows.DELIVERY_COLUMNS} from deliveries {_where(conditions)} order by {order} limit ?"
    return sql, [*params, *given.values(), limit]


# --- which index ------------------------------------------------------------------------------------------------------


def _leading(wanted: TaskFilter) -> tuple[str, str, dict[str, str]]:
    """The tables, the id, and the columns whose index leads: few tasks share it, since most succeed."""
    if wanted.provider_task_id is not None:
        return "tasks t", "t.id", {}  # hardly ever more than one
    if wanted.metadata:
        key, value = next(iter(wanted.metadata.items()))
        return "labels l cross join tasks t", "l.task_id", {"l.key": key, "l.value": value}
    origin = {"t.provider": wanted.provider, "t.model": wanted.model}
    known = {column: value for column, value in origin.items() if value is not None}
    if known and wanted.status in (None, "succeeded"):
        return "tasks t", "t.id", known
    return "tasks t", "t.id", {"t.status": wanted.status} if wanted.status else {}


def _delivery_index(given: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Its columns, and the words of its condition: what a partial index holds can't depend on a parameter."""
    if "event_id" in given:
        return ("event_id",), ()  # as many as there are endpoints
    if "task_id" in given:
        return ("task_id",), ("task_id is not null",)
    if given.get("event_type", COMMON_TYPE) != COMMON_TYPE:
        return ("event_type",), (f"event_type <> '{COMMON_TYPE}'",)
    return _state_index(given)


def _state_index(given: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The index by endpoint and status, as far as these are given."""
    match given.get("status"):
        case "succeeded" if "endpoint_id" in given:
            return ("endpoint_id", "status"), ("status = 'succeeded'",)
        case "failed" | "held" | "parked" if "endpoint_id" in given:
            return ("endpoint_id", "status"), (GIVEN_UP,)
        case None:
            return tuple(column for column in given if column == "endpoint_id"), ()
        case _:
            return ("status",), (STATED,)


# --- the walk through it ----------------------------------------------------------------------------------------------


class _Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Ids from the low one up to the high one, without it."""

    low: str | None = None
    high: str | None = None


_Walk = tuple[list[str], list[Any], str]


def _walk(driver: Driver, leads: Mapping[str, str], row_id: str, bounds: _Bounds) -> _Walk:
    """Conditions, their parameters and the order, newest first."""
    conditions = [driver.leading(column) if n == 0 else f"{column} = ?" for n, column in enumerate(leads)]
    ends = {f"{row_id} >= ?": bounds.low, f"{row_id} < ?": bounds.high}
    conditions += [condition for condition, end in ends.items() if end is not None]
    params = [*leads.values(), *(end for end in ends.values() if end is not None)]
    return conditions, params, ", ".join(f"{column} desc" for column in (*list(leads)[:1], row_id))


def _walk_to_status(driver: Driver, leads: Mapping[str, str], row_id: str, bounds: _Bounds, status: str) -> _Walk:
    """Bound the walk by status: final tasks lie behind all open ones, open tasks before the many final ones."""
    conditions, params, order = _walk(driver, leads, row_id, bounds)
    found, ends, _ = _walk(driver, {"status": status}, "id", bounds)
    sign, way = (">=", "asc") if status in ("queued", "running") else ("<=", "desc")
    end = f"select id from tasks {_where(found)} order by status {way}, id {way} limit 1"
    return [*conditions, f"{row_id} {sign} ({end})"], [*params, *ends], order


def _where(conditions: Sequence[str]) -> str:
    return f"where {' and '.join(conditions)}" if conditions else ""
