"""Takes what is due and leases it, within the limits of accounts and endpoints, which hold over all replicas."""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from service.core import breaker, delivering, lifecycle
from service.core.account import Account, Limits
from service.core.breaker import Breaker
from service.core.delivery import WEBHOOK_MAX_IN_FLIGHT, Delivery, Endpoint
from service.core.limits import Window
from service.core.refusal import retry
from service.core.schedule import Policy
from service.core.task import Task
from service.core.times import after, from_ms, to_ms
from service.core.trace import TraceContext
from service.store import faults, rows
from service.store.accounts import IN_FLIGHT, WAITING, AccountState, read_account, read_used, save_refusal
from service.store.batch import Batch, Keys
from service.store.driver import ReadSession, Row, Session
from service.store.lanes import (
    URL_PART,
    WALK_S,
    Lane,
    UrlShares,
    UrlWalk,
    read_url_shares,
)
from service.store.queries import OPEN

EXPIRE_MAX = 200
MOVE_MAX = 500
TURN_S = 0.02
"""When another process is claiming under the same limit: about the time it takes. Nobody waits with rows locked."""


ROOM_S = 0.25
"""Seconds until the next look for room: the end of a task in flight notifies no submit loop."""
REST_S = 0.25
"""Until the next look at a lane of deliveries that something was taken of: what else it holds was not looked at."""


class TaskClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks to call the provider for, and when to look again; None when nothing is due later."""

    tasks: list[Task]
    next_due_at: datetime | None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an attempt needs; without an endpoint it goes to the delivery's own url."""

    delivery: Delivery
    endpoint: Endpoint | None
    body: bytes


class DeliveryClaim(msgspec.Struct, frozen=True, kw_only=True):
    """`is_short`: more is due than was taken, and can be when one of those in flight has ended."""

    parcels: list[Parcel]
    next_due_at: datetime | None
    is_short: bool


# --- tasks ------------------------------------------------------------------------------------------------------------

EXPIRING = f"{WAITING} and deadline_ms >= 0"
"""All that wait, in the words of the index of their deadlines."""
_SELECT = f"select {rows.TASK_COLUMNS} from tasks where"
_DUE_FLYING = f"{_SELECT} {IN_FLIGHT} and due_ms <= ? order by due_ms limit ?"
_DUE_UNPOLLED = f"""
{_SELECT} {IN_FLIGHT} and due_ms <= ? and (step <> 'tracking' or deadline_ms <= ?) order by due_ms limit ?
"""
_DUE_SUBMITS = f"{_SELECT} {WAITING} and due_ms <= ? order by due_ms limit ?"
_EXPIRED_SUBMITS = f"{_SELECT} {EXPIRING} and deadline_ms <= ? order by deadline_ms limit ?"
_PROBE_POLL = f"{_SELECT} {IN_FLIGHT} and step = 'tracking' order by due_ms limit 1"
_NEXT_SUBMIT = f"select due_ms from tasks where {WAITING} order by due_ms limit 1"
"""Not `min`: a planner that takes them for few would gather all of them from another index."""
_NEXT_DEADLINE = f"select deadline_ms from tasks where {EXPIRING} order by deadline_ms limit 1"
_NEXT_FLYING = f"select due_ms from tasks where {IN_FLIGHT} order by due_ms limit 1"
_NEXT = f"select ({_NEXT_SUBMIT}), ({_NEXT_DEADLINE}), ({_NEXT_FLYING})"
_LAST_POLL = f"select min(deadline_ms) from tasks where {IN_FLIGHT}"


async def next_due_task(session: ReadSession, account: str) -> datetime | None:
    """When this account's earliest task is due: a look at two indexes, so that an idle worker writes nothing."""
    found = await session.fetch(f"select ({_NEXT_SUBMIT}), ({_NEXT_FLYING})", (account, account))
    submit_ms, flying_ms = found[0]
    return _earliest(submit_ms, flying_ms)


async def claim_due_tasks(
    batch: Batch, name: str, policy: Policy, limits: Limits, free: int, others: Sequence[Account] = ()
) -> TaskClaim:
    """Begins what is due, at most `free` tasks. Polls come first: they end tasks and so make room for submits."""
    now = batch.env.now()
    if not await batch.driver.take_turn(batch.session, name):
        return TaskClaim(tasks=[], next_due_at=after(now, TURN_S))
    account = await read_account(batch.session, name, limits)
    claim = _Claim(batch, name, policy, account)
    if account.breaker.is_due(now) and account.paused_until <= now:
        await claim.probe(limits)
    await claim.begin_flying(free)
    if account.refusal is not None:
        await claim.move_unsent(others)
    room = 0 if claim.account.shuts("submit", now) else await _submit_room(batch.session, claim.account, limits, claim)
    await claim.begin_submits(free, min(room, 1) if account.refusal else room)
    if account.refusal is not None and any(task.step == "sending" for task in claim.begun):
        await save_refusal(batch.session, name, retry(account.refusal, batch.env))
    await batch.flush()
    return TaskClaim(
        tasks=[task for task in claim.begun if task.step in ("sending", "tracking")],
        next_due_at=now if claim.taken >= free else await claim.next_due_at(is_full=room <= 0),
    )


class _Claim:
    """A claim in progress. A row that fails is quarantined and blocks no other."""

    def __init__(self, batch: Batch, name: str, policy: Policy, account: AccountState) -> None:
        self.account = account
        self.name = name
        self.begun: list[Task] = []
        self.taken = 0
        self.now = batch.env.now()
        self._batch = batch
        self._policy = policy

    async def probe(self, limits: Limits) -> None:
        """Let one task probe an account that did not answer, by a poll if possible, since it costs nothing."""
        found: list[Row] = []
        if self.account.breaker.polls and self._policy.polling:
            found = await self._fetch(_PROBE_POLL)
        if not found and await _submit_room(self._batch.session, self.account, limits, self) > 0:
            found = await self._fetch(_DUE_SUBMITS, to_ms(self.now), 1)
        if found and await self._begin(found):
            tried = breaker.probe(self.account.breaker, self._batch.env)
            self.account = replace(self.account, breaker=tried)
            await save_breaker(self._batch.session, self.name, tried)

    async def begin_flying(self, free: int) -> None:
        """While the account rests, the only polls are the last ones of their tasks."""
        if self.account.shuts("poll", self.now):
            found = await self._fetch(_DUE_UNPOLLED, to_ms(self.now), to_ms(self.now), free - self.taken)
        else:
            found = await self._fetch(_DUE_FLYING, to_ms(self.now), free - self.taken)
        await self._begin(found)

    async def move_unsent(self, others: Sequence[Account]) -> None:
        """Tasks that were never sent go to other accounts, as long as those have room for them."""
        await self._batch.load([Keys(rooms=tuple(others))])
        found = await self._fetch(_DUE_SUBMITS, to_ms(self.now), MOVE_MAX) if others else []
        for row in found:
            task = self._batch.see_task(row)
            best = max(others, key=lambda one: self._batch.rooms[one.key])
            if self._batch.rooms[best.key] <= 0:
                break
            if self._batch.apply(lifecycle.move(task, best.id, self._batch.env)).tasks:
                self._batch.rooms[best.key] -= 1
        await self._batch.flush()

    async def begin_submits(self, free: int, room: int) -> None:
        """Begin submits; end tasks whose deadline passed while the account was at its limits."""
        now_ms = to_ms(self.now)
        limit = min(free - self.taken, room)
        if limit > 0:
            await self._begin(await self._fetch(_DUE_SUBMITS, now_ms, limit))
        sent = sum(task.step == "sending" for task in self.begun)
        if sent:
            self.account = replace(self.account, window=self.account.window.take(sent, self.now))
            await _save_window(self._batch.session, self.name, self.account.window)
        if room < free:
            taken = self.taken
            await self._begin(await self._fetch(_EXPIRED_SUBMITS, now_ms, EXPIRE_MAX))
            self.taken = taken

    async def next_due_at(self, *, is_full: bool) -> datetime | None:
        """When to look again: submits wait for the account to open, and its flying tasks for their time."""
        now, account = self.now, self.account
        polls_at = account.opens_at("poll", now)
        submits_at = max(account.opens_at("submit", now), after(now, account.window.opens_in_s(now)))
        submits_at = max(submits_at, after(now, ROOM_S)) if is_full else submits_at
        found = await self._batch.session.fetch(_NEXT, (self.name,) * 3)
        due_ms, deadline_ms, flying_ms = found[0]
        if due_ms is not None:
            due_ms = min(max(due_ms, to_ms(submits_at)), deadline_ms)
        if flying_ms is not None and account.shuts("poll", now):
            last_ms = (await self._batch.session.fetch(_LAST_POLL, (self.name,)))[0][0]
            flying_ms = max(flying_ms, min(last_ms, to_ms(max(polls_at, after(now, ROOM_S)))))
        return _earliest(due_ms, flying_ms)

    async def _fetch(self, sql: str, *params: int) -> list[Row]:
        sql = f"{sql} {self._batch.driver.skip_locked('tasks')}"
        return await self._batch.session.fetch(sql, (self.name, *params))

    async def _begin(self, found: list[Row]) -> int:
        """How many of them began. One that a probe took is still due in the database, and is not taken twice."""
        begun = {task.id for task in self.begun}
        found = [row for row in found if row[0] not in begun]
        self.taken += len(found)
        before, hindrance = len(self.begun), self.account.hindrance(self.now)
        for row in found:
            try:
                task = self._batch.see_task(row)
                change = self._batch.apply(lifecycle.begin(task, self._batch.env, self._policy, hindrance))
            except Exception as error:
                await faults.note(self._batch, row[0], error)
            else:
                self.begun += change.tasks
        return len(self.begun) - before


async def save_breaker(session: Session, name: str, state: Breaker) -> None:
    await session.execute(rows.UPSERT_BREAKER, (name, rows.breaker_to_text(state)))


async def _read_window(session: ReadSession, name: str, window: Window) -> Window:
    found = await session.fetch("select used from limits where name = ?", (name,))
    return replace(window, used=read_used(found[0][0])) if found else window


async def _save_window(session: Session, name: str, window: Window) -> None:
    sql = """
    insert into limits (name, paused_ms, used) values (?, 0, ?) on conflict (name) do update set used = excluded.used
    """
    await session.execute(sql, (name, msgspec.json.encode(window.used).decode()))


async def _submit_room(session: ReadSession, account: AccountState, limits: Limits, claim: _Claim) -> int:
    """How many may be sent now. Counts no further than the limit, so its cost is bounded by it."""
    room = account.window.room(claim.now)
    if room == 0:
        return 0
    sql = f"select count(*) from (select 1 from tasks where {IN_FLIGHT} and step <> 'unconfirmed' limit ?) as flying"
    in_flight = (await session.fetch(sql, (claim.name, limits.max_in_flight)))[0][0]
    return min(room, limits.max_in_flight - int(in_flight))


# --- deliveries -------------------------------------------------------------------------------------------------------

_PARCEL_COLUMNS = ", ".join([*(f"d.{column}" for column in rows.DELIVERY_COLUMNS.split(", ")), "e.body"])


async def find_next_delivery(session: ReadSession, walk: UrlWalk, now: datetime) -> datetime | None:
    """When the earliest is due; now where a look does not take in all lanes, so that a claim goes on with the rest."""
    lanes = await walk.look(session)
    if not lanes.is_whole:
        return now
    return min((lane.due_at for lane in [*lanes.endpoints, *lanes.urls]), default=None)


async def claim_due_deliveries(
    batch: Batch, free: int, lease_s: float, capacity: int, walk: UrlWalk | None = None
) -> DeliveryClaim:
    """Leases what is due, at most `free`, lane by lane within the limits of each; the rest of a full lane waits.

    No lane has more in flight than its part of the places of its kind, or many slow ones would hold up the fast.
    Endpoints come first, and webhook_urls have `capacity // URL_PART` places of their own.
    """
    walk = walk or UrlWalk()
    for_urls = max(1, capacity // URL_PART)
    claim = _Deliveries(batch, lease_s)
    lanes = await walk.look(batch.session)
    walk.go_on(lanes.urls)
    await claim.take(lanes.endpoints, free, capacity - for_urls)
    claim.next_due += [lane.due_at for lane in lanes.urls if lane.due_at > claim.now]
    if due := [lane for lane in lanes.urls if lane.due_at <= claim.now]:
        shares = await read_url_shares(batch.session, for_urls, claim.now)
        await claim.take(due, free - len(claim.parcels), for_urls, shares)
    if not lanes.is_whole:
        claim.next_due.append(after(claim.now, WALK_S))
    return DeliveryClaim(parcels=claim.parcels, next_due_at=min(claim.next_due, default=None), is_short=claim.is_short)


class _Deliveries:
    """A claim of deliveries in progress."""

    def __init__(self, batch: Batch, lease_s: float) -> None:
        self.now = batch.env.now()
        self.parcels: list[Parcel] = []
        self.next_due: list[datetime] = []
        self.is_short = False
        self._batch = batch
        self._lease_s = lease_s

    async def take(self, lanes: list[Lane], free: int, places: int, shares: UrlShares | None = None) -> None:
        share = max(1, free // max(1, sum(lane.due_at <= self.now for lane in lanes)))
        at_once = max(1, places // max(1, len(lanes)))
        taken = 0
        for lane in lanes:
            if lane.due_at > self.now:
                self.next_due.append(lane.due_at)
                continue
            limit = min(share, free - taken, free if shares is None else shares.room(lane))
            if limit <= 0:
                self.is_short = True
                continue
            found, again_at = await _claim_lane(self._batch, lane, limit, self._lease_s, at_once, shares)
            taken += len(found)
            self.parcels += found
            self.next_due += [again_at] if again_at else []
            self.is_short |= again_at is None
            if shares is not None:
                shares.take(lane, len(found))


async def find_trace(session: ReadSession, task_id: str) -> TraceContext | None:
    """The trace that the events of this task belong to."""
    found = await session.fetch("select doc from tasks where id = ?", (task_id,))
    return rows.trace_from_document(found[0][0]) if found else None


async def _claim_lane(
    batch: Batch, lane: Lane, limit: int, lease_s: float, at_once: int, shares: UrlShares | None
) -> tuple[list[Parcel], datetime | None]:
    """None for the time means: when one of this lane in flight has ended."""
    now = batch.env.now()
    if not await batch.driver.take_turn(batch.session, lane.name):
        return [], after(now, TURN_S)
    endpoint = None if shares is not None else await batch.read_endpoint(lane.name)
    max_in_flight = endpoint.max_in_flight if endpoint else WEBHOOK_MAX_IN_FLIGHT
    in_flight = await _count_in_flight(batch, lane) if shares is None else shares.in_flight(lane)
    limit = min(limit, min(max_in_flight, at_once) - in_flight)
    if limit <= 0:
        return [], None
    if endpoint is None or endpoint.rate_per_s is None:
        taken = await _take(batch, lane.name, endpoint, limit, lease_s)
        return taken, None if len(taken) >= limit else after(now, REST_S)
    return await _take_at_rate(batch, endpoint, endpoint.rate_per_s, limit, lease_s)


async def _count_in_flight(batch: Batch, lane: Lane) -> int:
    sql = "select count(*) from deliveries where lane = ? and status = 'sending' and due_ms > ?"
    return int((await batch.session.fetch(sql, (lane.name, to_ms(batch.env.now()))))[0][0])


async def _take_at_rate(
    batch: Batch, endpoint: Endpoint, rate_per_s: float, limit: int, lease_s: float
) -> tuple[list[Parcel], datetime | None]:
    now = batch.env.now()
    slow = rate_per_s < 1
    window = Window(limit=1 if slow else int(rate_per_s), window_s=1 / rate_per_s if slow else 1.0)
    window = await _read_window(batch.session, endpoint.id, window)
    taken = await _take(batch, endpoint.id, endpoint, min(limit, window.room(now)), lease_s)
    window = window.take(len(taken), now)
    await _save_window(batch.session, endpoint.id, window)
    opens_in_s = window.opens_in_s(now)
    return taken, after(now, opens_in_s) if opens_in_s else None


async def _take(batch: Batch, lane: str, endpoint: Endpoint | None, limit: int, lease_s: float) -> list[Parcel]:
    sql = f"""
    select {_PARCEL_COLUMNS} from deliveries d join events e on e.id = d.event_id
    where d.lane = ? and d.{OPEN} and d.due_ms <= ? order by d.due_ms limit ?
    {batch.driver.skip_locked("d")}
    """
    found = await batch.session.fetch(sql, (lane, to_ms(batch.env.now()), limit))
    parcels = [await _parcel(batch, row, endpoint, lease_s) for row in found]
    return [parcel for parcel in parcels if parcel is not None]


async def _parcel(batch: Batch, row: Row, endpoint: Endpoint | None, lease_s: float) -> Parcel | None:
    """Return None for a row that can't be read, which is quarantined, and for a disabled endpoint."""
    try:
        known = batch.see_delivery(row[:-1])
        delivery, body = delivering.begin(known, batch.env, lease_s, endpoint), row[-1].encode()
    except Exception as error:
        await faults.note(batch, row[0], error)
        return None
    batch.put_delivery(delivery)
    if delivery.status != "sending":
        return None
    return Parcel(delivery=delivery, endpoint=endpoint, body=body)


def _earliest(*times_ms: int | None) -> datetime | None:
    known = [ms for ms in times_ms if ms is not None]
    return from_ms(min(known)) if known else None
