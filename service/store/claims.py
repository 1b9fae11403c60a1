"""Takes what is due and leases it, within the limits of accounts and endpoints, which hold over all replicas."""

from datetime import datetime

import msgspec
from msgspec.structs import replace

from service.core import delivering, lifecycle
from service.core.delivery import WEBHOOK_MAX_IN_FLIGHT, Delivery, Endpoint
from service.core.limits import Window
from service.core.schedule import Policy
from service.core.task import Task
from service.core.times import after, from_ms, to_ms
from service.providers.base import Limits
from service.store import rows
from service.store.batch import Batch
from service.store.driver import ReadSession, Session

EXPIRE_MAX = 200
TURN_S = 0.02
"""When another process is claiming under the same limit: about the time it takes. Nobody waits with rows locked."""


class TaskClaim(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks to call the provider for, and when to look again; None when nothing is due later."""

    tasks: list[Task]
    next_due_at: datetime | None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """All that one attempt needs; without an endpoint it goes to the delivery's own url."""

    delivery: Delivery
    endpoint: Endpoint | None
    body: bytes


class DeliveryClaim(msgspec.Struct, frozen=True, kw_only=True):
    parcels: list[Parcel]
    next_due_at: datetime | None


# --- tasks ------------------------------------------------------------------------------------------------------------

_FLYING = "provider = ? and step in ('sending', 'unconfirmed', 'tracking')"
_WAITING = "provider = ? and step = 'submit'"


async def next_due_task(session: ReadSession, provider: str) -> datetime | None:
    """When this provider's earliest task is due: a look at two indexes, so that an idle worker writes nothing."""
    sql = f"select (select min(due_ms) from tasks where {_WAITING}), (select min(due_ms) from tasks where {_FLYING})"
    submit_ms, flying_ms = (await session.fetch(sql, (provider, provider)))[0]
    return _earliest(submit_ms, flying_ms)


async def claim_due_tasks(batch: Batch, provider: str, policy: Policy, limits: Limits, free: int) -> TaskClaim:
    """Begins what is due, at most `free` tasks. Polls come first: they end tasks and so make room for submits."""
    now = batch.env.now()
    if not await batch.driver.take_turn(batch.session, provider):
        return TaskClaim(tasks=[], next_due_at=after(now, TURN_S))
    paused_until, window = await _account(batch, provider, limits)
    paused = paused_until > now
    flying = await _due_flying(batch, provider, now, free, only_expired=paused)
    room = 0 if paused else await _submit_room(batch.session, provider, window, limits, now)
    submits = await _due_submits(batch, provider, now, min(free - len(flying), room))
    expired = await _expired_submits(batch, provider, now) if room < free else []
    begun = [_begin(batch, task, policy) for task in flying + submits + expired]
    sent = [task for task in begun if task.step == "sending"]
    if sent:
        await _save_window(batch.session, provider, window.take(len(sent), now))
    await batch.flush()
    busy = len(flying) + len(submits) >= free
    opens_at = max(paused_until, after(now, window.take(len(sent), now).opens_in_s(now)))
    return TaskClaim(
        tasks=[task for task in begun if task.step in ("sending", "tracking")],
        next_due_at=now if busy else await _next_claim(batch.session, provider, opens_at, paused=paused),
    )


async def _account(batch: Batch, provider: str, limits: Limits) -> tuple[datetime, Window]:
    return await _limit_row(batch, provider, Window(limit=limits.submits, window_s=limits.window_s))


async def _limit_row(batch: Batch, name: str, window: Window) -> tuple[datetime, Window]:
    found = await batch.session.fetch("select paused_ms, used from limits where name = ?", (name,))
    if not found:
        return from_ms(0), window
    paused_ms, used = found[0]
    return from_ms(paused_ms), replace(window, used=msgspec.json.decode(used, type=dict[int, int]))


async def _save_window(session: Session, name: str, window: Window) -> None:
    sql = """
    insert into limits (name, paused_ms, used) values (?, 0, ?) on conflict (name) do update set used = excluded.used
    """
    await session.execute(sql, (name, msgspec.json.encode(window.used).decode()))


async def _due_flying(batch: Batch, provider: str, now: datetime, limit: int, *, only_expired: bool) -> list[Task]:
    """While the account rests only a task's last poll is made."""
    until = "deadline_ms" if only_expired else "due_ms"
    sql = f"""
    select {rows.TASK_COLUMNS} from tasks where {_FLYING} and due_ms <= ? and {until} <= ? order by due_ms limit ?
    {batch.driver.skip_locked("tasks")}
    """
    now_ms = to_ms(now)
    return await _tasks(batch, sql, (provider, now_ms, now_ms, limit))


async def _due_submits(batch: Batch, provider: str, now: datetime, limit: int) -> list[Task]:
    if limit <= 0:
        return []
    sql = f"""
    select {rows.TASK_COLUMNS} from tasks where {_WAITING} and due_ms <= ? order by due_ms, id limit ?
    {batch.driver.skip_locked("tasks")}
    """
    return await _tasks(batch, sql, (provider, to_ms(now), limit))


async def _expired_submits(batch: Batch, provider: str, now: datetime) -> list[Task]:
    """Those that no room was found for in time."""
    sql = f"""
    select {rows.TASK_COLUMNS} from tasks where {_WAITING} and deadline_ms <= ? order by deadline_ms limit ?
    {batch.driver.skip_locked("tasks")}
    """
    return await _tasks(batch, sql, (provider, to_ms(now), EXPIRE_MAX))


async def _tasks(batch: Batch, sql: str, params: tuple[object, ...]) -> list[Task]:
    return [batch.see_task(rows.task_from_row(row)) for row in await batch.session.fetch(sql, params)]


def _begin(batch: Batch, task: Task, policy: Policy) -> Task:
    change = batch.apply(lifecycle.begin(task, batch.env, policy))
    return change.tasks[0] if change.tasks else task


async def _submit_room(session: Session, provider: str, window: Window, limits: Limits, now: datetime) -> int:
    """How many may be sent now. Counts no further than the limit, so its cost is bounded by it."""
    room = window.room(now)
    if room == 0:
        return 0
    sql = f"select count(*) from (select 1 from tasks where {_FLYING} and step <> 'unconfirmed' limit ?) as flying"
    in_flight = (await session.fetch(sql, (provider, limits.max_in_flight)))[0][0]
    return min(room, limits.max_in_flight - int(in_flight))


async def _next_claim(session: Session, provider: str, opens_at: datetime, *, paused: bool) -> datetime | None:
    """When to look again: submits wait for the account to open, and the account's flying tasks for their time."""
    sql = f"""
    select (select min(due_ms) from tasks where {_WAITING}), (select min(deadline_ms) from tasks where {_WAITING}),
      (select min({"deadline_ms" if paused else "due_ms"}) from tasks where {_FLYING})
    """
    due_ms, deadline_ms, flying_ms = (await session.fetch(sql, (provider, provider, provider)))[0]
    if due_ms is not None:
        due_ms = min(max(due_ms, to_ms(opens_at)), deadline_ms)
    if paused and flying_ms is not None:
        flying_ms = min(flying_ms, to_ms(opens_at))
    return _earliest(due_ms, flying_ms)


# --- deliveries -------------------------------------------------------------------------------------------------------

_OPEN = "status in ('pending', 'sending')"
_LANES = f"""
with recursive lanes (lane) as (
  select min(lane) from deliveries where {_OPEN}
  union all
  select (select min(n.lane) from deliveries n where n.{_OPEN} and n.lane > lanes.lane) from lanes
  where lanes.lane is not null
)
select lane, (select min(d.due_ms) from deliveries d where d.lane = lanes.lane and d.{_OPEN}) from lanes
where lane is not null
"""
"""Each lane with its earliest due time, one step in the index a lane: what waits in one lane costs no other."""


async def find_lanes(session: ReadSession) -> list[tuple[str, datetime]]:
    """The lanes with open deliveries, those due longest first."""
    found = [(lane, from_ms(due_ms)) for lane, due_ms in await session.fetch(_LANES)]
    return sorted(found, key=lambda lane: lane[1])


async def claim_due_deliveries(batch: Batch, free: int, lease_s: float) -> DeliveryClaim:
    """Leases what is due, at most `free`, lane by lane within the limits of each; the rest of a full lane waits."""
    now = batch.env.now()
    parcels: list[Parcel] = []
    next_due: list[datetime] = []
    lanes = await find_lanes(batch.session)
    share = max(1, free // max(1, sum(due_at <= now for _, due_at in lanes)))
    for lane, due_at in lanes:
        if due_at > now:
            next_due.append(due_at)
        elif len(parcels) < free:
            taken, again_at = await _claim_lane(batch, lane, min(share, free - len(parcels)), lease_s)
            parcels += taken
            next_due += [again_at] if again_at else []
    return DeliveryClaim(parcels=parcels, next_due_at=min(next_due, default=None))


async def _claim_lane(batch: Batch, lane: str, limit: int, lease_s: float) -> tuple[list[Parcel], datetime | None]:
    """None for the time means: when one of this lane in flight has ended."""
    now = batch.env.now()
    if not await batch.driver.take_turn(batch.session, lane):
        return [], after(now, TURN_S)
    endpoint = await _endpoint(batch, lane)
    max_in_flight = endpoint.max_in_flight if endpoint else WEBHOOK_MAX_IN_FLIGHT
    sql = "select count(*) from deliveries where lane = ? and status = 'sending' and due_ms > ?"
    in_flight = (await batch.session.fetch(sql, (lane, to_ms(now))))[0][0]
    limit = min(limit, max_in_flight - int(in_flight))
    if limit <= 0:
        return [], None
    if endpoint is None or endpoint.rate_per_s is None:
        return await _take(batch, lane, endpoint, limit, lease_s), None
    return await _take_at_rate(batch, endpoint, endpoint.rate_per_s, limit, lease_s)


async def _endpoint(batch: Batch, lane: str) -> Endpoint | None:
    found = await batch.session.fetch("select doc from endpoints where id = ?", (lane,))
    return batch.see_endpoint(rows.endpoint_from_row(found[0])) if found else None


async def _take_at_rate(
    batch: Batch, endpoint: Endpoint, rate_per_s: float, limit: int, lease_s: float
) -> tuple[list[Parcel], datetime | None]:
    now = batch.env.now()
    slow = rate_per_s < 1
    window = Window(limit=1 if slow else int(rate_per_s), window_s=1 / rate_per_s if slow else 1.0)
    _, window = await _limit_row(batch, endpoint.id, window)
    taken = await _take(batch, endpoint.id, endpoint, min(limit, window.room(now)), lease_s)
    window = window.take(len(taken), now)
    await _save_window(batch.session, endpoint.id, window)
    opens_in_s = window.opens_in_s(now)
    return taken, after(now, opens_in_s) if opens_in_s else None


async def _take(batch: Batch, lane: str, endpoint: Endpoint | None, limit: int, lease_s: float) -> list[Parcel]:
    columns = ", ".join(f"d.{column.strip()}" for column in rows.DELIVERY_COLUMNS.split(","))
    sql = f"""
    select {columns}, e.body from deliveries d join events e on e.id = d.event_id
    where d.lane = ? and d.{_OPEN} and d.due_ms <= ? order by d.due_ms limit ?
    {batch.driver.skip_locked("d")}
    """
    found = await batch.session.fetch(sql, (lane, to_ms(batch.env.now()), limit))
    return [_parcel(batch, rows.delivery_from_row(row[:-1]), endpoint, row[-1], lease_s) for row in found]


def _parcel(batch: Batch, delivery: Delivery, endpoint: Endpoint | None, body: str, lease_s: float) -> Parcel:
    delivery = delivering.begin(batch.see_delivery(delivery), batch.env, lease_s)
    batch.put_delivery(delivery)
    return Parcel(delivery=delivery, endpoint=endpoint, body=body.encode())


def _earliest(*times_ms: int | None) -> datetime | None:
    known = [ms for ms in times_ms if ms is not None]
    return from_ms(min(known)) if known else None
