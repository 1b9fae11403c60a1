"""Counts what a load makes the service do: whatever the machine and however busy, the numbers are the same."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any, TypeVar

import pytest

from service.store.driver import Driver

T = TypeVar("T")


class CountingDriver:
    """A driver that counts its transactions, and the statements in them; else it is the driver it was given."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.transactions = 0
        self.statements: Counter[str] = Counter()
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def reset(self) -> None:
        self.transactions = self.reads = 0
        self.statements.clear()

    async def write(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        self.transactions += 1
        return await self._driver.write(lambda session: work(_CountingSession(session, self.statements)))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Any]:
        self.reads += 1
        async with self._driver.reading() as session:
            yield session


class _CountingSession:
    """Each call of the session is a statement, by its first words."""

    def __init__(self, session: Any, statements: Counter[str]) -> None:
        self._session = session
        self._statements = statements

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._session, name)
        if not callable(found):
            return found

        def counted(sql: str, *rest: Any) -> Any:
            self._statements[" ".join(sql.split()[:4])] += 1
            return found(sql, *rest)

        return counted


@contextmanager
def hops() -> Iterator[Callable[[], int]]:
    """Count how often another thread woke this event loop: once per answer of the database's thread."""
    loop, count = asyncio.get_running_loop(), 0
    wake = loop.call_soon_threadsafe

    def counted(*given: Any, **named: Any) -> asyncio.Handle:
        nonlocal count
        count += 1
        return wake(*given, **named)

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign]
    try:
        yield lambda: count
    finally:
        del loop.call_soon_threadsafe  # type: ignore[method-assign]


@contextmanager
def calls_of(*places: tuple[ModuleType, str]) -> Iterator[Counter[str]]:
    """Count the calls of that function by that module, in any thread."""
    found: Counter[str] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in places:
            patch.setattr(module, name, _counted(found, name, getattr(module, name)))
        yield found


def _counted(found: Counter[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def counted(*given: Any, **named: Any) -> Any:
        found[name] += 1
        return function(*given, **named)

    return counted
