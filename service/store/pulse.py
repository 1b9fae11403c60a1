"""How the whole goes, for a page that is looked at: every query is bounded, by an index and a number of rows."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from service.core.ids import created_at, first_id_at
from service.core.times import to_ms
from service.store.driver import ReadSession
from service.store.queries import STATED

COUNT_MAX = 10_000
"""Nobody needs to know how many more wait."""
DELIVERIES_MAX = 5_000
MINUTE_MS = 60_000


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Open work, each count up to `COUNT_MAX`; `oldest` is the task that has been queued longest.

    Failed deliveries of a deleted endpoint are not counted: nothing can be done about them.
    """

    queued: int
    running: int
    deliveries: dict[str, int]
    oldest_id: str | None
    oldest_at: datetime | None


async def count_waiting(session: ReadSession, at_most: int = COUNT_MAX) -> Waiting:
    async def count(status: str, table: str, also: str = "") -> int:
        """In the order of an index, or a planner might look for them among all others."""
        rows = f"select 1 from {table} where status >= ? and status <= ? {also} order by status, id limit ?"
        found = await session.fetch(f"select count(*) from ({rows}) as counted", (status, status, at_most))
        return int(found[0][0])

    open_deliveries = ("pending", "sending", "held", "parked")
    first = "select id from tasks where status >= 'queued' and status <= 'queued' order by status, id limit 1"
    oldest = await session.fetch(first)
    return Waiting(
        queued=await count("queued", "tasks"),
        running=await count("running", "tasks"),
        deliveries={status: await count(status, "deliveries", f"and {STATED}") for status in open_deliveries}
        | {"failed": await _count_failed(session)},
        oldest_id=oldest[0][0] if oldest else None,
        oldest_at=created_at(oldest[0][0]) if oldest else None,
    )


async def _count_failed(session: ReadSession) -> int:
    """Count among the newest `COUNT_MAX`, so that what is left out costs no more than what is counted."""
    newest = f"""
    select endpoint_id from deliveries where status >= 'failed' and status <= 'failed' and {STATED}
    order by status desc, id desc limit ?
    """
    sql = f"""
    select count(*) from ({newest}) as newest where not exists
      (select 1 from endpoints e where e.id = newest.endpoint_id and e.doc like '%"deleted_at":"%')
    """
    return int((await session.fetch(sql, (COUNT_MAX,)))[0][0])


async def count_endings(
    session: ReadSession, provider: str, since: datetime, until: datetime
) -> list[tuple[int, str, int]]:
    """Tasks of the provider that ended in that time, as minute (since 1970), status, count."""
    sql = f"""
    select finished_ms / {MINUTE_MS}, status, count(*) from tasks
    where provider = ? and finished_ms >= ? and finished_ms < ? group by finished_ms / {MINUTE_MS}, status
    """
    found = await session.fetch(sql, (provider, to_ms(since), to_ms(until)))
    return [(int(minute), status, int(count)) for minute, status, count in found]


async def count_created(session: ReadSession, since: datetime, until: datetime) -> list[tuple[int, int]]:
    """Tasks created then, as minute (since 1970), count; to four seconds, as the digits of an id divide them."""
    sql = "select substr(id, 6, 9), count(*) from tasks where id >= ? and id < ? group by substr(id, 6, 9)"
    found = await session.fetch(sql, (first_id_at("task", since), first_id_at("task", until)))
    return [(int(digits + "000", 16) // MINUTE_MS, int(count)) for digits, count in found]


async def times_to_result(session: ReadSession, provider: str, since: datetime, limit: int) -> Sequence[float]:
    """Seconds from creation to result, of the newest that many since then."""
    sql = """
    select id, finished_ms from tasks where provider = ? and finished_ms >= ? and status = 'succeeded'
    order by finished_ms desc limit ?
    """
    found = await session.fetch(sql, (provider, to_ms(since), limit))
    return [max(0.0, (finished_ms - to_ms(created_at(task_id))) / 1000) for task_id, finished_ms in found]


async def count_deliveries(session: ReadSession, since: datetime, at_most: int = DELIVERIES_MAX) -> dict[str, int]:
    """Of the newest since then, by status."""
    sql = """
    select status, count(*) from (select status from deliveries where id >= ? order by id desc limit ?) as recent
    group by status
    """
    return dict(await session.fetch(sql, (first_id_at("delivery", since), at_most)))
