"""Quarantine of rows that make a loop fail: listed, and retried on request."""

from datetime import timedelta
from typing import TYPE_CHECKING

from service.core.env import Env
from service.core.fault import FORGET_S, Fault, Kind, fail_again
from service.core.problems import Conflict, NotFound
from service.core.times import from_ms, to_ms
from service.store.driver import ReadSession, Row, Session
from service.store.queries import OPEN
from service.store.rows import ms_or_null, time_or_null

if TYPE_CHECKING:
    from service.store.batch import Batch

LIST_MAX = 200
_COLUMNS = "id, failures, first_ms, last_ms, parked_ms, reason"
_UPSERT = f"""
insert into faults ({_COLUMNS}, step) values (?, ?, ?, ?, ?, ?, ?)
on conflict (id) do update set failures = excluded.failures, first_ms = excluded.first_ms, last_ms = excluded.last_ms,
  parked_ms = excluded.parked_ms, reason = excluded.reason, step = excluded.step
"""
_STILL_PARKED: dict[Kind, str] = {
    "task": "select 1 from tasks where id = ? and step = 'parked'",
    "delivery": "select 1 from deliveries where id = ? and status = 'parked'",
}
_IS_OVER = """
delete from faults where parked_ms is not null
  and not exists (select 1 from tasks t where t.id = faults.id and t.step = 'parked')
  and not exists (select 1 from deliveries d where d.id = faults.id and d.status = 'parked')
  and not exists (select 1 from endpoints e where e.id = faults.id)
"""


async def note(batch: "Batch", subject_id: str, error: Exception) -> None:
    """Record a failure of a row: it is retried later, or parked. Other rows are not affected.

    Work that was under way when the row was parked adds nothing: what its retry needs would be lost.
    """
    found = await batch.session.fetch(f"select {_COLUMNS} from faults where id = ?", (subject_id,))
    known = _fault(found[0]) if found else None
    if known is not None and known.parked_at and await _is_still_parked(batch.session, known):
        return
    fault = fail_again(known, subject_id, error, batch.env)
    step = await _put_aside(batch, fault)
    await batch.session.execute(_UPSERT, (*_row(fault), step))
    batch.faults.append(fault)


async def retry(batch: "Batch", subject_id: str) -> Fault:
    """Due at once, with a clean record. Raises NotFound, and Conflict for one that is not parked."""
    sql = f"select {_COLUMNS}, step from faults where id = ? {batch.driver.for_update}"
    found = await batch.session.fetch(sql, (subject_id,))
    if not found:
        raise NotFound("Nothing of this id has failed.")
    fault, step = _fault(found[0][:-1]), found[0][-1]
    if fault.parked_at is None:
        raise Conflict("It is not parked: it is tried again by itself.")
    if fault.kind == "endpoint":
        batch.reread_endpoints()  # what it missed is sent by its own recover
    else:
        await _take_up(batch.session, fault, step, to_ms(batch.env.now()))
    await batch.session.execute("delete from faults where id = ?", (subject_id,))
    return fault


async def list_all(session: ReadSession) -> list[Fault]:
    """Return rows that are parked or failed recently, newest first."""
    sql = f"select {_COLUMNS} from faults order by last_ms desc limit ?"
    return [_fault(row) for row in await session.fetch(sql, (LIST_MAX,))]


async def count_parked(session: ReadSession) -> int:
    return int((await session.fetch("select count(*) from faults where parked_ms is not null"))[0][0])


async def forget(session: Session, env: Env) -> None:
    """Forget old failures, and rows that are gone or final, such as a parked task that its callback ended."""
    long_ago = to_ms(env.now() - timedelta(seconds=FORGET_S))
    await session.execute("delete from faults where parked_ms is null and last_ms < ?", (long_ago,))
    await session.execute(_IS_OVER)


async def _is_still_parked(session: Session, fault: Fault) -> bool:
    """Return whether the row is still parked. Deliveries of an unreadable endpoint are held, so it never is."""
    sql = _STILL_PARKED.get(fault.kind)
    return sql is not None and bool(await session.fetch(sql, (fault.id,)))


async def _put_aside(batch: "Batch", fault: Fault) -> str | None:
    """Due again later, or parked, which takes it out of the due indexes; gives back a task's own step.

    A delivery that another process works on is left: its next claim puts it aside.
    """
    session = batch.session
    if fault.kind == "endpoint":
        sql = f"""
        update deliveries set status = 'held', due_ms = null where id in (select id from deliveries
          where lane = ? and {OPEN} order by id {batch.driver.skip_locked("deliveries")})
        """
        await session.execute(sql, (fault.id,))
    elif fault.kind == "delivery":
        sql = f"update deliveries set status = ?, due_ms = ? where id = ? and {OPEN}"
        await session.execute(sql, ("parked" if fault.parked_at else "pending", ms_or_null(fault.due_at), fault.id))
    else:
        return await _put_task_aside(session, fault)
    return None


async def _put_task_aside(session: Session, fault: Fault) -> str | None:
    found = await session.fetch("select step from tasks where id = ? and step not in ('parked', 'done')", (fault.id,))
    if not found:
        return None
    step = str(found[0][0])
    sql = "update tasks set step = ?, due_ms = ? where id = ?"
    await session.execute(sql, ("parked" if fault.parked_at else step, ms_or_null(fault.due_at), fault.id))
    return step


async def _take_up(session: Session, fault: Fault, step: str | None, now_ms: int) -> None:
    if fault.kind == "delivery":
        sql = "update deliveries set status = 'pending', due_ms = ? where id = ? and status = 'parked'"
        await session.execute(sql, (now_ms, fault.id))
    elif step is not None:
        sql = "update tasks set step = ?, due_ms = ? where id = ? and step = 'parked'"
        await session.execute(sql, (step, now_ms, fault.id))


def _row(fault: Fault) -> Row:
    first_ms, last_ms = to_ms(fault.first_at), to_ms(fault.last_at)
    return (fault.id, fault.failures, first_ms, last_ms, ms_or_null(fault.parked_at), fault.reason)


def _fault(row: Row) -> Fault:
    subject_id, failures, first_ms, last_ms, parked_ms, reason = row
    return Fault(
        id=subject_id,
        failures=failures,
        first_at=from_ms(first_ms),
        last_at=from_ms(last_ms),
        parked_at=time_or_null(parked_ms),
        reason=reason,
    )
