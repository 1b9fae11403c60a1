"""Sessions of the dashboard that were signed out. Every replica asks here, so that a copied cookie ends too."""

from datetime import datetime

from service.core.times import to_ms
from service.store.batch import Batch
from service.store.driver import Driver
from service.store.writer import Writer


class EndedSessions:
    """The table of ended sessions: `id` is a hash that names the session and opens nothing."""

    def __init__(self, driver: Driver, writer: Writer) -> None:
        self._driver = driver
        self._writer = writer

    async def add(self, session_id: str, until: datetime, now: datetime) -> None:
        """Refuse the session from now on. `until` is when it would have ended; rows past theirs are deleted."""

        async def work(batch: Batch) -> None:
            await batch.session.execute("delete from ended_sessions where until_ms < ?", (to_ms(now),))
            sql = "insert into ended_sessions (id, until_ms) values (?, ?) on conflict (id) do nothing"
            await batch.session.execute(sql, (session_id, to_ms(until)))

        await self._writer.run(work)

    async def has(self, session_id: str) -> bool:
        """Raise Unavailable if the database can't be read."""
        async with self._driver.reading() as session:
            return bool(await session.fetch("select 1 from ended_sessions where id = ?", (session_id,)))
