"""Overdue work: it shows a dead or hanging worker, wherever it ran."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from service.core.account import Limits
from service.core.times import from_ms, to_ms
from service.store.accounts import IN_FLIGHT, WAITING, read_account
from service.store.claims import EXPIRING
from service.store.driver import ReadSession
from service.store.lanes import find_lanes, has_urls_in_flight

LATE_S = 60.0
LANES_MAX = 50


async def find_overdue(session: ReadSession, accounts: Mapping[str, Limits], now: datetime) -> datetime | None:
    """The oldest; what waits for an account that rests, or for its own limits, is not late."""
    times = [await find_overdue_task(session, name, limits, now) for name, limits in accounts.items()]
    known = [at for at in (*times, await _oldest_delivery(session, now)) if at is not None]
    return min(known, default=None)


async def find_overdue_task(session: ReadSession, name: str, limits: Limits, now: datetime) -> datetime | None:
    """The oldest of one account."""
    until_ms = to_ms(now - timedelta(seconds=LATE_S))
    account = await read_account(session, name, limits)
    unpolled = "(step <> 'tracking' or deadline_ms <= ?)" if account.shuts("poll", now) else "due_ms <= ?"
    flying = f"select due_ms from tasks where {IN_FLIGHT} and due_ms <= ? and {unpolled} order by due_ms limit 1"
    expiring = f"select deadline_ms from tasks where {EXPIRING} and deadline_ms <= ? order by deadline_ms limit 1"
    queries = {flying: (until_ms, until_ms), expiring: (until_ms,)}
    if not account.shuts("submit", now) and account.window.room(now) == limits.submits:
        in_flight = f"select count(*) from (select 1 from tasks where {IN_FLIGHT} limit ?) as flying"
        if (await session.fetch(in_flight, (name, limits.max_in_flight)))[0][0] < limits.max_in_flight:
            queries[f"select due_ms from tasks where {WAITING} and due_ms <= ? order by due_ms limit 1"] = (until_ms,)
    found = [row for sql, params in queries.items() for row in await session.fetch(sql, (name, *params))]
    return min((from_ms(ms) for (ms,) in found), default=None)


async def _oldest_delivery(session: ReadSession, now: datetime) -> datetime | None:
    """Of a lane in which nothing is in flight: an endpoint that is slow, or has a rate, may well have some waiting."""
    until = now - timedelta(seconds=LATE_S)
    late = [lane for lane in await find_lanes(session) if lane.due_at <= until]
    if any(lane.is_url for lane in late) and await has_urls_in_flight(session, now):
        late = [lane for lane in late if not lane.is_url]  # they share places, so one may wait for another
    busy = """
    select (select count(*) from limits where name = ?)
      + (select count(*) from deliveries where lane = ? and status = 'sending' and due_ms > ?)
    """
    for lane in late[:LANES_MAX]:
        if (await session.fetch(busy, (lane.name, lane.name, to_ms(now))))[0][0] == 0:
            return lane.due_at
    return None
