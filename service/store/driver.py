"""What the store needs of a database, and the few words in which the dialects differ."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

Row = tuple[Any, ...]
Params = Sequence[Any]


class Session(Protocol):
    """Statements inside a transaction, or reads outside of one. Placeholders are `?` in both dialects."""

    async def fetch(self, sql: str, params: Params = ()) -> list[Row]: ...

    async def execute(self, sql: str, params: Params = ()) -> int:
        """The number of rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Params]) -> None: ...


class Driver(Protocol):
    """One database. Its errors that pass by themselves (locked, full, away) are raised as `Unavailable`."""

    for_update: str
    """Locks the rows of a select until the transaction ends."""
    skip_locked: str
    """The same, leaving out rows that somebody else has locked."""

    def any_of(self, column: str) -> str:
        """A condition: the column is one of the values of one parameter, which `many` makes."""
        ...

    def many(self, values: Iterable[str]) -> Any: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """The one write connection of this process, from begin to durable commit; rolled back when the block raises."""
        ...

    def reading(self) -> AbstractAsyncContextManager[Session]:
        """A read connection, seeing all that is committed."""
        ...

    async def notify(self, session: Session, topics: Iterable[str]) -> None:
        """Tells other processes with the commit of this transaction."""
        ...

    def listen(self) -> AsyncIterator[str]:
        """Topics told by other processes; an empty one stands for all of them."""
        ...
