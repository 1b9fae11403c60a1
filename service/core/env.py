"""The three impurities every decision may need, injected so that tests own them."""

from datetime import datetime
from typing import Protocol


class Env(Protocol):
    def now(self) -> datetime:
        """The time: aware, UTC, cut to milliseconds, so that a database gives back what it got."""
        ...

    def new_id(self, prefix: str) -> str:
        """A new id that sorts after every id this Env gave before."""
        ...

    def jitter(self, seconds: float) -> float:
        """The duration moved by up to a tenth either way, so that what failed together does not return together."""
        ...
