"""Figures for the people who look after it: each is a bounded look at the newest rows, through an index."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime

import msgspec

from service.core.account import Limits
from service.core.breaker import Breaker
from service.core.delivery import DeliveryStatus
from service.core.event import EventType
from service.core.refusal import Refusal
from service.core.times import from_ms, to_ms
from service.store import rows
from service.store.accounts import IN_FLIGHT, WAITING, read_account
from service.store.driver import ReadSession, Row
from service.store.overdue import find_overdue_task
from service.store.pulse import COUNT_MAX

CHARGES_MAX = 5_000


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one delivery stands, with its last attempt; `at` is None before the first."""

    delivery_id: str
    event_type: EventType
    status: DeliveryStatus
    attempts: int
    created_at: datetime
    at: datetime | None
    status_code: int | None
    duration_ms: int | None
    error: str | None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Load of an account: submits in its window, tasks in flight, waiting tasks, and since when some are late."""

    used: int
    in_flight: int
    waiting: int
    paused_until: datetime
    breaker: Breaker
    refusal: Refusal | None
    late_since: datetime | None


class Charges(msgspec.Struct, frozen=True, kw_only=True):
    """Credits by provider and day (UTC), and how many tasks they were charged for, if the provider reports it.

    `complete_since` is later than was asked for where too many tasks ended to look at all of them.
    """

    credits: Mapping[str, Mapping[date, float]]
    tasks: Mapping[str, int]
    complete_since: datetime


async def recent_outcomes(session: ReadSession, endpoint_id: str, limit: int) -> list[Outcome]:
    """Of the newest deliveries to an endpoint, newest first."""
    sql = """
    select d.id, d.event_type, d.status, d.attempts, d.created_ms, a.at_ms, a.status_code, a.duration_ms, a.error
    from deliveries d left join attempts a on a.delivery_id = d.id and a.number = d.attempts
    where d.endpoint_id = ? order by d.id desc limit ?
    """
    return [_outcome(row) for row in await session.fetch(sql, (endpoint_id, limit))]


def _outcome(row: Row) -> Outcome:
    delivery_id, kind, status, attempts, created_ms, at_ms, status_code, duration_ms, error = row
    return Outcome(
        delivery_id=delivery_id,
        event_type=kind,
        status=status,
        attempts=attempts,
        created_at=from_ms(created_ms),
        at=rows.time_or_null(at_ms),
        status_code=status_code,
        duration_ms=duration_ms,
        error=error,
    )


async def account_load(
    session: ReadSession, provider: str, limits: Limits, now: datetime, at_most: int = COUNT_MAX
) -> Load:
    account = await read_account(session, provider, limits)
    return Load(
        used=limits.submits - account.window.room(now),
        in_flight=await _count(session, IN_FLIGHT, provider, at_most),
        waiting=await _count(session, WAITING, provider, at_most),
        paused_until=account.paused_until,
        breaker=account.breaker,
        refusal=account.refusal,
        late_since=await find_overdue_task(session, provider, limits, now),
    )


async def _count(session: ReadSession, which: str, provider: str, at_most: int) -> int:
    sql = f"select count(*) from (select 1 from tasks where {which} limit ?) as counted"
    return int((await session.fetch(sql, (provider, at_most)))[0][0])


async def recent_charges(session: ReadSession, since: datetime, at_most: int = CHARGES_MAX) -> Charges:
    """Of the newest finished tasks since then."""
    sql = "select finished_ms, provider, doc from tasks where finished_ms >= ? order by finished_ms desc limit ?"
    found = await session.fetch(sql, (to_ms(since), at_most))
    credits: dict[str, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    tasks: Counter[str] = Counter()
    for finished_ms, provider, doc in found:
        cost = _cost(doc)
        if cost is not None:
            credits[provider][from_ms(finished_ms).date()] += cost
            tasks[provider] += 1
    complete_since = from_ms(found[-1][0]) if len(found) == at_most else since
    return Charges(credits=credits, tasks=tasks, complete_since=complete_since)


class _Result(msgspec.Struct):
    cost: float | None = None


class _Document(msgspec.Struct):
    result: _Result | None = None


_read = msgspec.json.Decoder(_Document).decode


def _cost(doc: str) -> float | None:
    """Return None also for a row that can't be read: the worker reports it."""
    with suppress(msgspec.MsgspecError):
        result = _read(doc).result
        return result.cost if result else None
    return None
