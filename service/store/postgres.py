"""The PostgreSQL driver: one connection that writes, a few that read, one that listens, made again when they break."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import asyncpg
import msgspec
import structlog
from asyncpg import Connection

from service.core.problems import Unavailable
from service.store import postgres_url
from service.store.driver import Contended, ReadSession, Session
from service.store.postgres_dial import dial
from service.store.postgres_rights import check_may_migrate, check_usable
from service.store.postgres_session import (
    ANY_ERROR,
    BEGIN_TO_READ,
    PostgresSession,
    Reader,
    passing_errors,
    roll_back,
    storable,
)

T = TypeVar("T")
log = structlog.get_logger()

READERS = 4
STATEMENTS = 200
CONNECT_S = 5.0
COMMAND_S = 30.0
"""Longer than the server's own limits below: only a server that no longer answers gets here."""
HEARTBEAT_S = 10.0
LOOK_AGAIN_S = 1.0
RECONNECT_S = 0.2
NOTICE_MAX_BYTES = 7_900
CHANNEL = "taskhook"
MIGRATION_LOCK = 7_235_081_930_241
TURNS = 7_235
_BEGIN = """
begin isolation level read committed; set local statement_timeout = '20s'; set local lock_timeout = '10s';
set local idle_in_transaction_session_timeout = {idle_ms}
"""
_PLANNING = {
    "writer": "set enable_seqscan = off; set jit = off",
    "reader": "set enable_seqscan = off; set jit = off; set plan_cache_mode = force_custom_plan",
}
"""Against plans that are cached while a table is small and scan it until autovacuum analyzes it, minutes after it grew.

Every statement finds its rows by an index, so scans are off, and so is the JIT compiler, which their added cost would
start. A listing can choose among indexes, so readers plan it each time; without parameters it stays cached.
"""
_COMMIT_SOMETHING = "select pg_logical_emit_message(true, 'taskhook', '')"
"""The smallest transaction that is written to the log; answered once standbys have all the log before it, too."""
_BEGIN_TO_MIGRATE = """
begin isolation level read committed; set local statement_timeout = 0; set local lock_timeout = {lock_ms}
"""
_BEGIN_TO_GUARD = """
begin isolation level read committed; set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0
"""
_BEGIN_ALONE = """
begin isolation level repeatable read; set local statement_timeout = 0; set local lock_timeout = '10s';
set local idle_in_transaction_session_timeout = 0
"""
_OTHERS = """
select count(*) from pg_stat_activity
where datname = current_database() and application_name ~ '(^| )taskhook (writer|listener)$'
"""
_LOOKS = 10
"""A connection that was closed is seen a little longer."""


class PostgresTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Times of the driver, in seconds.

    A process that is frozen inside a transaction loses it after `idle_transaction_s`, before those who wait for its
    rows lose patience. After a lost commit its outcome is asked for during `outcome_wait_s`, about as long as a
    server takes to restart; those who wait for an answer have not gone away by then.
    """

    reader_wait_s: float = 5.0
    idle_transaction_s: float = 5.0
    outcome_wait_s: float = 4.0
    migration_lock_wait_s: float = 2.0


class PostgresDriver:
    """A server, or the primary among several. Broken connections are replaced when needed."""

    name = "postgresql"
    is_alone = False
    text = 'text collate "C"'
    for_update = "for no key update"  # foreign keys that point to the row do not wait for it
    lock_table = "lock table {} in exclusive mode"
    columns_of = """
    select column_name::text from information_schema.columns
    where table_schema = current_schema() and table_name = ? order by 1
    """

    def __init__(self, url: str, times: PostgresTimes = PostgresTimes()) -> None:
        self._times = times
        self._begin_sql = _BEGIN.format(idle_ms=round(times.idle_transaction_s * 1000))
        self.begin_to_migrate = _BEGIN_TO_MIGRATE.format(lock_ms=round(times.migration_lock_wait_s * 1000))
        self.target = postgres_url.parse(url)
        self._own = secrets.token_hex(6)
        self._writer: Connection | None = None
        self._pool: list[Reader] = []
        self._readers: asyncio.Queue[Reader] = asyncio.Queue()
        self._types: dict[str, str] = {}
        self._xid: str | None = None
        self._timeline: str | None = None
        self._closed = True
        self.pooled = True

    def skip_locked(self, table: str) -> str:
        return f"for no key update of {table} skip locked"

    async def take_turn(self, session: Session, name: str) -> bool:
        found = await session.fetch("select pg_try_advisory_xact_lock(?, hashtext(?))", (TURNS, name))
        return bool(found[0][0])

    def any_of(self, column: str, values: Collection[str]) -> tuple[str, Any]:
        return f"{column} = any(?)", storable(list(values))

    def aside(self, column: str) -> str:
        return column

    def size_of(self, column: str) -> str:
        return f"octet_length({column})"

    def leading(self, column: str) -> str:
        return f"{column} = any(array[?])"  # to a planner not a constant, by which nothing need be sorted

    async def check_usable(self, session: ReadSession) -> None:
        await check_usable(session)

    async def check_may_migrate(self, session: ReadSession) -> None:
        await check_may_migrate(session)

    # --- connections --------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        self._closed = False
        if self.target.unmet:
            log.warning("store.parameters_ignored", names=self.target.unmet, reason="asyncpg has no such protection")
        first = await self.connect("writer")
        self.pooled = await _is_pooled(first)
        await _close(first)  # the next ones keep their prepared statements, when there is no pooler
        if self.pooled:
            log.warning("store.pooled", reason="LISTEN needs a direct connection: other processes are heard of later")
        self._pool = [Reader(partial(self.connect, "reader"), lambda: self.pooled) for _ in range(READERS)]
        for reader in self._pool:
            self._readers.put_nowait(reader)

    async def close(self) -> None:
        self._closed = True
        for connection in (self._writer, *(reader.connection for reader in self._pool)):
            if connection is not None:
                await _close(connection)

    async def connect(self, role: str, command_s: float | None = COMMAND_S) -> Connection:
        """Raises Unavailable; no message names the password."""
        if self._closed:
            raise Unavailable("The database is closed.")
        return await self._connect(role, command_s)

    async def _connect(self, role: str, command_s: float | None) -> Connection:
        connection = await dial(self.target, role, command_s, 0 if self.pooled else STATEMENTS)
        if role in _PLANNING and not self.pooled:  # a pooler would lend the setting to others; it caches no plans
            with passing_errors(connection):
                await connection.execute(_PLANNING[role])
        return connection

    # --- writing ------------------------------------------------------------------------------------------------------

    async def write(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        async with self.transaction() as session:
            return await work(session)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresSession]:
        connection = await self._begin()
        self._xid = None
        try:
            yield PostgresSession(connection, self._types)
        except BaseException:
            await roll_back(connection)
            raise
        await self._commit(connection)

    async def _begin(self) -> Connection:
        """A connection that broke since its last use is made again, once."""
        writer = self._writer
        if writer is not None and not writer.is_closed():
            with suppress(Contended):
                await PostgresSession(writer, self._types).execute(self._begin_sql)
                return writer
        writer = await self._connect_writer()
        await PostgresSession(writer, self._types).execute(self._begin_sql)
        return writer

    async def _connect_writer(self) -> Connection:
        self._writer, self._timeline = await self.connect("writer"), None
        self._timeline = await _timeline(self._writer)
        return self._writer

    async def _commit(self, connection: Connection) -> None:
        try:
            with passing_errors(connection):
                status = await connection.execute("commit")
        except Unavailable as problem:
            if not connection.is_closed():
                raise
            if not await self._was_committed():
                raise Contended("The connection was lost before the commit.", cause=problem.cause) from problem
        except BaseException:
            connection.terminate()
            raise
        else:
            if status != "COMMIT":
                raise Contended("The transaction had failed.", cause=status)

    async def _was_committed(self) -> bool:
        """Asks the server again when a commit was not answered; Unavailable when that can't be known in time.

        After a failover the transaction's number may be another's, so only the same timeline can tell. A commit whose
        wait for its standbys was broken off is made on the primary alone, so a later one has to reach them, too.
        """
        xid, timeline, status = self._xid, self._timeline, "in progress"
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.outcome_wait_s):
                while xid and timeline and status == "in progress":
                    await asyncio.sleep(RECONNECT_S)
                    status = await self._status(xid, timeline)
        if status not in ("committed", "aborted"):
            raise Unavailable("It is not known whether this was stored.", cause="commit unanswered")
        return status == "committed"

    async def _status(self, xid: str, timeline: str) -> str:
        try:
            session = PostgresSession(await self._connect_writer(), {})
            found = await session.fetch("select pg_xact_status(?::text::xid8)", (xid,))
            if found[0][0] == "committed":
                await session.execute(_COMMIT_SOMETHING)
        except Unavailable:
            return "in progress"
        except asyncpg.PostgresError:  # a server that never saw this number
            return "unknown"
        return str(found[0][0]) if self._timeline == timeline else "unknown"

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[PostgresSession]:
        """The guard is a transaction of its own, so that it holds through a pooler too."""
        guard = await self.connect("migration guard", command_s=None)
        try:
            await _wait_for_turn(PostgresSession(guard, {}))
            async with self._connected("migration") as session:
                yield session
        finally:
            await _close(guard)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[PostgresSession]:
        async with self._connected("alone") as session:
            await _check_alone(session)
            await session.execute(_BEGIN_ALONE)
            yield session
            await session.execute("commit")

    @asynccontextmanager
    async def _connected(self, role: str) -> AsyncIterator[PostgresSession]:
        connection = await self._connect(role, None)
        try:
            yield PostgresSession(connection, {})
        finally:
            await _close(connection)

    # --- reading ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Reader]:
        try:
            async with asyncio.timeout(self._times.reader_wait_s):
                reader = await self._readers.get()
        except TimeoutError:
            raise Unavailable("Too much is being read.", cause="readers busy") from None
        try:
            yield reader
        except asyncio.CancelledError:
            reader.drop()  # nobody knows what its connection still waits for
            raise
        finally:
            self._readers.put_nowait(reader)

    async def scrub(self) -> None:
        """The server's own vacuum does it."""

    # --- news of other processes --------------------------------------------------------------------------------------

    async def notify(self, session: Session, topics: Iterable[str]) -> None:
        """Send one notification per transaction, with its number, in case the answer to its commit is lost."""
        notice = "\n".join([self._own, *sorted(topics)])
        if len(notice.encode()) > NOTICE_MAX_BYTES:
            notice = f"{self._own}\n"
        if "\n" in notice:
            found = await session.fetch("select pg_current_xact_id()::text, pg_notify(?, ?)", (CHANNEL, notice))
        else:
            found = await session.fetch("select pg_current_xact_id_if_assigned()::text")
        self._xid = found[0][0]

    async def listen(self) -> AsyncIterator[str]:
        """After each gap comes the empty topic, which stands for all that may have been missed."""
        while True:
            if self.pooled:
                yield ""
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            with suppress(Unavailable):
                async with self._listening() as (connection, heard):
                    yield ""
                    while True:
                        for topic in await self._hear(connection, heard):
                            yield topic
            await asyncio.sleep(RECONNECT_S)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[tuple[Connection, "asyncio.Queue[str | None]"]]:
        heard: asyncio.Queue[str | None] = asyncio.Queue()
        connection = await self.connect("listener")
        try:
            connection.add_termination_listener(lambda _: heard.put_nowait(None))
            with passing_errors(connection):
                await connection.add_listener(CHANNEL, lambda _c, _pid, _channel, notice: heard.put_nowait(notice))
            yield connection, heard
        finally:
            connection.terminate()

    async def _hear(self, connection: Connection, heard: "asyncio.Queue[str | None]") -> list[str]:
        """The next notice's topics, none of its own. A silent connection is tried, since a dead one is silent too."""
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                notice = await heard.get()
        except TimeoutError:
            with passing_errors(connection):
                await connection.execute("select 1", timeout=CONNECT_S)
            return []
        if notice is None:
            raise Unavailable("The connection to the database was lost.")
        sender, *topics = notice.split("\n")
        return [] if sender == self._own else topics


async def _is_pooled(connection: Connection) -> bool:
    """A pooler gives its clients a made-up process id."""
    with passing_errors(connection):
        pid = await connection.fetchval("select pg_backend_pid()")
    return bool(pid != connection.get_server_pid())


async def _timeline(connection: Connection) -> str | None:
    """The timeline, which changes with each failover. None if a managed server hides it."""
    try:
        found = await connection.fetchval("select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
    except ANY_ERROR:
        return None
    return str(found)


async def _wait_for_turn(session: PostgresSession) -> None:
    """Looks again and again: a statement that waits has a snapshot, and `create index concurrently` waits for those."""
    while True:
        await session.execute(_BEGIN_TO_GUARD)
        found = await session.fetch("select pg_try_advisory_xact_lock(?)", (MIGRATION_LOCK,))
        if found[0][0]:
            await session.execute("select 1")  # ends the statement before, and with it its snapshot
            return
        await session.execute("rollback")
        await asyncio.sleep(RECONNECT_S)


async def _check_alone(session: PostgresSession) -> None:
    """Each look is a transaction of its own, since one sees the same activity for as long as it lasts."""
    for _ in range(_LOOKS):
        if not await _count_others(session):
            return
        await asyncio.sleep(RECONNECT_S)
    raise Unavailable("A service uses this database; stop it first.", cause="connected as taskhook")


async def _count_others(session: PostgresSession) -> int:
    await session.execute(BEGIN_TO_READ)
    found = await session.fetch(_OTHERS)
    await session.execute("rollback")
    return int(found[0][0])


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=CONNECT_S)
    except ANY_ERROR:
        connection.terminate()
