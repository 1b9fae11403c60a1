"""Concurrency limits: what exceeds them is refused at once instead of waiting."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.problems import Unavailable

RETRY_AFTER_S = 1


class Slots:
    """A concurrency limit: `with` takes a slot, and raises Unavailable if none is left."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._taken = 0

    def __enter__(self) -> None:
        if self._taken >= self._limit:
            raise Unavailable(f"Too many {self._what} at once.", retry_after_s=RETRY_AFTER_S, cause="full")
        self._taken += 1

    def __exit__(self, *_: object) -> None:
        self._taken -= 1

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Its own place is free for others while it only waits."""
        self._taken -= 1
        try:
            yield
        finally:
            self._taken += 1


class Limited:
    """An application of its own under ours, such as the sandbox; it takes none of the places of others."""

    def __init__(self, app: ASGIApp, slots: Slots) -> None:
        self._app = app
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slots:
            await self._app(scope, receive, send)
