"""Pages of lists: one page at hand, and iteration over the items of all that follow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from taskhook._callers import AsyncCaller, Caller
from taskhook._plan import Listing

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _AnyPage(Generic[T]):
    data: list[T]
    next_cursor: str | None
    _listing: Listing[T] = field(repr=False)

    @property
    def has_next_page(self) -> bool:
        """An empty page is the last, whatever it says: nobody goes in circles."""
        return self.next_cursor is not None and bool(self.data)


@dataclass(frozen=True, kw_only=True)
class Page(_AnyPage[T]):
    """A page in `data`. Iterating continues through all following pages, fetching each when it is needed."""

    _caller: Caller = field(repr=False)

    def next_page(self) -> Page[T] | None:
        return fetch(self._caller, self._listing, self.next_cursor) if self.has_next_page else None

    def pages(self) -> Iterator[Page[T]]:
        page: Page[T] | None = self
        while page is not None:
            yield page
            page = page.next_page()

    def __iter__(self) -> Iterator[T]:
        for page in self.pages():
            yield from page.data


def fetch(caller: Caller, listing: Listing[T], cursor: str | None = None) -> Page[T]:
    data, following = caller.run(listing.page(cursor))
    return Page(data=data, next_cursor=following, _listing=listing, _caller=caller)


@dataclass(frozen=True, kw_only=True)
class AsyncPage(_AnyPage[T]):
    """A page in `data`. `async for` continues through all following pages."""

    _caller: AsyncCaller = field(repr=False)

    async def next_page(self) -> AsyncPage[T] | None:
        return await fetch_async(self._caller, self._listing, self.next_cursor) if self.has_next_page else None

    async def pages(self) -> AsyncIterator[AsyncPage[T]]:
        page: AsyncPage[T] | None = self
        while page is not None:
            yield page
            page = await page.next_page()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.data:
                yield item


async def fetch_async(caller: AsyncCaller, listing: Listing[T], cursor: str | None = None) -> AsyncPage[T]:
    data, following = await caller.run(listing.page(cursor))
    return AsyncPage(data=data, next_cursor=following, _listing=listing, _caller=caller)


class AsyncPages(Generic[T]):
    """A list that is not fetched yet: `await` it for its first page, or go over all items with `async for`."""

    def __init__(self, caller: AsyncCaller, listing: Listing[T]) -> None:
        self._caller = caller
        self._listing = listing

    def __await__(self) -> Generator[Any, None, AsyncPage[T]]:
        return fetch_async(self._caller, self._listing).__await__()

    async def __aiter__(self) -> AsyncIterator[T]:
        async for item in await self:
            yield item
