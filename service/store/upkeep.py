"""Work on many rows, in small steps so that nobody waits for it: erasing, recovering, deleting what is old."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from service.core import delivering, lifecycle
from service.core.account import DEFAULT
from service.core.change import Change
from service.core.delivery import Delivery, Endpoint, fan_out
from service.core.event import Envelope, Event
from service.core.problems import Conflict, Unavailable
from service.core.times import from_ms, to_ms
from service.core.views import erase_told, view_task
from service.store import faults
from service.store.accounts import account_keys
from service.store.batch import Batch, Keys
from service.store.bus import DELIVERIES, tasks_of
from service.store.driver import Row, Session
from service.store.writer import Writer

STEP = 500


# --- erase ------------------------------------------------------------------------------------------------------------


async def erase_task(writer: Writer, task_id: str) -> None:
    """Takes prompts, results and bodies of a final task out of every table; raises Conflict when it is not final."""

    async def work(batch: Batch) -> None:
        await batch.load([Keys(tasks=(task_id,))])
        task = lifecycle.erase(batch.task(task_id), batch.env)
        batch.apply(Change(tasks=(task,)))
        erase = partial(erase_told, erased=view_task(task))
        batch.forget(task_id, erase)
        await _erase_traces(batch.session, task_id, erase)

    await writer.run(work)
    with suppress(Unavailable):  # the log is busy: the next upkeep empties it
        await writer.scrub()


async def _erase_traces(session: Session, task_id: str, erase: Callable[[bytes], bytes]) -> None:
    """Erase the content of events; their ids, types, times and task states stay."""
    await session.execute("delete from labels where task_id = ?", (task_id,))
    await session.execute("update timeline set detail = '{}' where task_id = ?", (task_id,))
    of_task = "delivery_id in (select id from deliveries where task_id = ?)"
    gone = "excerpt = '', error = null, location = null"
    await session.execute(f"update attempts set {gone} where {of_task}", (task_id,))
    for seq, body in await session.fetch("select seq, body from events where task_id = ?", (task_id,)):
        envelope = msgspec.json.decode(body, type=Envelope)
        envelope = replace(envelope, data=msgspec.Raw(erase(bytes(envelope.data))))
        await session.execute("update events set body = ? where seq = ?", (msgspec.json.encode(envelope).decode(), seq))


# --- recover ----------------------------------------------------------------------------------------------------------


class _Facts(msgspec.Struct):
    """The fields of a task or endpoint that a filter compares."""

    id: str
    provider: str | None = None
    model: str | None = None
    account: str = DEFAULT
    metadata: dict[str, str] = {}


async def recover(
    writer: Writer, endpoint_id: str, since: datetime, until: datetime, *, dry_run: bool, step_max: int = STEP
) -> int:
    """Queues every event of that time that the endpoint's filter lets through and that it has not received; how many.

    Each step is a transaction of its own and does nothing twice, so after a kill it can be asked for again.
    """
    seq, count = 0, 0
    while True:
        step = _RecoverStep(endpoint_id, seq, to_ms(since), to_ms(until), step_max, dry_run=dry_run)
        found = await writer.run(step.work)
        count += found
        if step.seq == seq:
            return count
        seq = step.seq


class _RecoverStep:
    def __init__(self, endpoint_id: str, seq: int, since_ms: int, until_ms: int, limit: int, *, dry_run: bool) -> None:
        self._endpoint_id = endpoint_id
        self._bounds = (seq, since_ms, until_ms, limit)
        self._dry_run = dry_run
        self.seq = seq

    async def work(self, batch: Batch) -> int:
        await batch.load([Keys(endpoints=(self._endpoint_id,))])
        endpoint = batch.endpoint(self._endpoint_id)
        if not (endpoint.enabled or self._dry_run):
            raise Conflict("The endpoint is disabled; enable it first, or ask with dry_run.")
        sql = """
        select e.seq, e.id, e.type, e.task_id, e.created_ms, e.body, d.id
        from events e left join deliveries d on d.event_id = e.id and d.endpoint_id = ?
        where e.seq > ? and e.created_ms >= ? and e.created_ms < ? and e.audience_id is null order by e.seq limit ?
        """
        found = await batch.session.fetch(sql, (self._endpoint_id, *self._bounds))
        await batch.load([Keys(deliveries=tuple(row[6] for row in found if row[6] is not None))])
        self.seq = found[-1][0] if found else self.seq
        return sum(self._recover(batch, endpoint, row) for row in found)

    def _recover(self, batch: Batch, endpoint: Endpoint, row: Row) -> bool:
        delivery = self._unreceived(batch, endpoint, row)
        if delivery is None:
            return False
        if not self._dry_run:
            batch.put_delivery(delivering.recover(delivery, batch.env))
        return True

    def _unreceived(self, batch: Batch, endpoint: Endpoint, row: Row) -> Delivery | None:
        event = _stored_event(row)
        if row[6] is None:
            return next(fan_out(event, (endpoint,), batch.env), None)
        delivery = batch.delivery(row[6])
        return delivery if delivering.is_recoverable(delivery) else None


def _stored_event(row: Row) -> Event:
    _, event_id, kind, task_id, created_ms, body = row[:6]
    data = msgspec.json.decode(body, type=Envelope).data
    facts = msgspec.json.decode(data, type=_Facts)
    return Event(
        id=event_id,
        type=kind,
        at=from_ms(created_ms),
        data=bytes(data),
        task_id=task_id,
        provider=facts.provider,
        model=facts.model,
        account=facts.account,
        metadata=facts.metadata,
        subject_id=None if task_id else facts.id,
    )


# --- clock ------------------------------------------------------------------------------------------------------------

_SET_BACK = {
    "tasks": "due_ms = due_ms - ?, deadline_ms = deadline_ms - ? where due_ms >= ?",
    "deliveries": "due_ms = due_ms - ?, resume_due_ms = resume_due_ms - ? where due_ms >= ?",
}
_NOTICED_S = 5.0


async def set_back(writer: Writer, now: datetime, by_s: float) -> None:
    """The clock was set back: what was due in a minute must not become due in that much more."""
    by_ms = round(by_s * 1000)
    since_ms = to_ms(now) + by_ms - round(_NOTICED_S * 1000)

    async def work(batch: Batch) -> None:
        for table, shift in _SET_BACK.items():
            await batch.session.execute(f"update {table} set {shift}", (by_ms, by_ms, since_ms))
        rest = "update limits set paused_ms = paused_ms - ? where paused_ms >= ?"
        await batch.session.execute(rest, (by_ms, since_ms))
        batch.topics |= {DELIVERIES, *map(tasks_of, await account_keys(batch.session))}

    await writer.run(work)


# --- retention --------------------------------------------------------------------------------------------------------


_WAITS = "coalesce(d.status, '') in ('pending', 'sending', 'held', 'parked')"
"""Not for an index: with it, and without the offset below, a planner may begin with all that waits."""
OLD_TASKS = f"""
select id from tasks t where finished_ms < ? and not exists
  (select 1 from deliveries d where d.task_id = t.id and {_WAITS} limit 1 offset 0)
order by finished_ms limit {STEP}
"""
OLD_EVENTS = f"""
select id from events e where task_id is null and created_ms < ? and not exists
  (select 1 from deliveries d where d.event_id = e.id and {_WAITS} limit 1 offset 0)
order by created_ms limit {STEP}
"""


async def delete_old(writer: Writer, now: datetime, days: float) -> int:
    """Delete a batch of old final tasks and their data, unless something is still to be delivered."""
    until_ms = to_ms(now - timedelta(days=days))

    async def work(batch: Batch) -> int:
        if not await batch.driver.take_turn(batch.session, "retention"):
            return 0
        old = [row[0] for row in await batch.session.fetch(OLD_TASKS, (until_ms,))]
        await _delete(batch, "tasks", old)
        events = [row[0] for row in await batch.session.fetch(OLD_EVENTS, (until_ms,))]
        await faults.forget(batch.session, batch.env)
        return len(old) + await _delete(batch, "events", events)

    return await writer.run(work)


async def _delete(batch: Batch, table: str, ids: Iterable[Any]) -> int:
    gone = list(ids)
    if gone:
        condition, named = batch.driver.any_of("id", gone)
        await batch.session.execute(f"delete from {table} where {condition}", (named,))
    return len(gone)
