"""Event streams as iterators; closing one closes its connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Self

import httpx

from taskhook._callers import AsyncCaller, Caller
from taskhook._stream import Place
from taskhook.events import Event


class EventStream:
    """Iterate over it, and close it or use it with `with`. `last_event_id` is where another stream could go on."""

    def __init__(self, caller: Caller, place: Place) -> None:
        self._caller = caller
        self._place = place
        self._events = self._follow()

    @property
    def last_event_id(self) -> str | None:
        return self._place.last_event_id

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._events.close()

    def _follow(self) -> Generator[Event, None, None]:
        while True:
            response = self._caller.run(self._place.open(), stream=True)
            try:
                for chunk in response.iter_bytes():
                    yield from self._place.feed(chunk)
            except httpx.TransportError:
                self._place.lost()
            else:
                self._place.lost()
            finally:
                response.close()


class AsyncEventStream:
    """Iterate over it with `async for`, and close it or use it with `async with`."""

    def __init__(self, caller: AsyncCaller, place: Place) -> None:
        self._caller = caller
        self._place = place
        self._events = self._follow()

    @property
    def last_event_id(self) -> str | None:
        return self._place.last_event_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._events.aclose()

    async def _follow(self) -> AsyncGenerator[Event, None]:
        while True:
            response = await self._caller.run(self._place.open(), stream=True)
            try:
                async for chunk in response.aiter_bytes():
                    for event in self._place.feed(chunk):
                        yield event
            except httpx.TransportError:
                self._place.lost()
            else:
                self._place.lost()
            finally:
                await response.aclose()
