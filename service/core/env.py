"""Clock, ids and jitter, injected so that tests control them."""

from datetime import datetime
from typing import Protocol


class Env(Protocol):
    def now(self) -> datetime:
        """Return the time: aware, UTC, in whole milliseconds, as the database stores it."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that nobody sets: for durations and for what is cached for a while."""
        ...

    def new_id(self, prefix: str) -> str:
        """Return a new id that sorts after all earlier ids of this Env."""
        ...

    def jitter(self, seconds: float) -> float:
        """Vary the duration by up to 10 %, so that calls that failed together are not retried together."""
        ...
