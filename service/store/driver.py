"""The dialect seam: connections, transactions, and the SQL that differs between databases."""

from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from service.core.problems import Unavailable

Row = tuple[Any, ...]
Params = Sequence[Any]
T = TypeVar("T")


class Contended(Unavailable):
    """Another transaction was in the way, or the connection broke before the commit: nothing is written, try again."""


class ReadSession(Protocol):
    """Reads, each seeing all that is committed by then. Placeholders are `?` in both dialects."""

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]: ...


class Session(ReadSession, Protocol):
    """Statements inside a transaction."""

    async def execute(self, sql: str, params: Params = ()) -> int:
        """The number of rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None: ...


class Driver(Protocol):
    """A database. Its temporary errors (locked, full, away) are raised as `Unavailable`."""

    name: str
    """A migration file whose name ends in it is for this database alone."""
    is_alone: bool
    """Whether a process that has both web and worker is the only one that writes."""
    text: str
    """The type of text that compares by its bytes: ids and lanes are stepped through in that order."""
    for_update: str
    """Locks the rows of a select until the transaction ends."""
    begin_to_migrate: str
    """Begins a transaction that may take its time, but waits for locks only shortly: others would wait behind it."""
    lock_table: str
    """Keeps all others from writing to a table until the transaction ends; empty where that is so from its begin."""
    columns_of: str
    """Selects the names of the columns of the table that is the one parameter; none when there is no such table."""

    def skip_locked(self, table: str) -> str:
        """The same for the rows of one table of the select, leaving out those that somebody else has locked."""
        ...

    async def take_turn(self, session: Session, name: str) -> bool:
        """Whether nobody else has the turn of this name; it is kept until the transaction ends."""
        ...

    def any_of(self, column: str, values: Collection[str]) -> tuple[str, Any]:
        """A condition with its one parameter: the column is one of the values."""
        ...

    def aside(self, column: str) -> str:
        """The column in a condition whose index leads to too many rows, for a planner that can't know that."""
        ...

    def size_of(self, column: str) -> str:
        """The number of bytes of a text; its content goes nowhere."""
        ...

    def leading(self, column: str) -> str:
        """A condition, the column has the value of one parameter: its index leads in a listing, whatever the value.

        Where the listing is sorted by the column first, too, no planner that takes the value for a common one walks
        through the whole table in the order of its ids instead.
        """
        ...

    async def check_usable(self, session: ReadSession) -> None:
        """Raise Unavailable if no service can run on this database: its encoding, or rights that are missing."""
        ...

    async def check_may_migrate(self, session: ReadSession) -> None:
        """Raise Unavailable if our user may not create and change tables."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def write(self, work: Callable[[Session], Coroutine[Any, Any, T]]) -> T:
        """Run a transaction on the write connection of this process; return its result once it is durable.

        Rolled back when `work` raises. It waits for nothing but its statements: SQLite's thread runs the whole of it,
        beside the event loop.
        """
        ...

    def migrating(self) -> AbstractAsyncContextManager[Session]:
        """A session outside of any transaction, after every other process that migrates is done, or begins anew."""
        ...

    def alone(self) -> AbstractAsyncContextManager[Session]:
        """A transaction without a limit of time, while the driver is not open, on a database that no service uses.

        Raises Unavailable if one does.
        """
        ...

    def reading(self) -> AbstractAsyncContextManager[ReadSession]:
        """A read connection."""
        ...

    async def scrub(self) -> None:
        """Takes what was erased or deleted out of the database's files, as far as that is ours to do."""
        ...

    async def notify(self, session: Session, topics: Iterable[str]) -> None:
        """The last statement of a transaction: its commit notifies other processes."""
        ...

    def listen(self) -> AsyncIterator[str]:
        """Yield topics notified by other processes; an empty one stands for all."""
        ...
