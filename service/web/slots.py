"""How much goes on at once: bounded, and what comes on top is told so at once instead of waiting."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.core.problems import Unavailable

RETRY_AFTER_S = 1


class Slots:
    """Places for what goes on at the same time."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Raises Unavailable when there is none left."""
        if self._taken >= self._limit:
            raise Unavailable(f"Too many {self._what} at once.", retry_after_s=RETRY_AFTER_S, cause="full")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Its own place is free for others while it only waits."""
        self._taken -= 1
        try:
            yield
        finally:
            self._taken += 1
