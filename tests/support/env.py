"""An Env whose clock is moved by hand, whose ids count, and which has no jitter."""

from datetime import UTC, datetime, timedelta

from service.core.ids import prefixed_uuid7
from service.core.times import to_ms

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeEnv:
    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._passed_s = 0.0
        self._count = 0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return 1_000.0 + self._passed_s

    def new_id(self, prefix: str) -> str:
        self._count += 1
        return prefixed_uuid7(prefix, to_ms(self._now), self._count)

    def jitter(self, seconds: float) -> float:
        return seconds

    def pass_time(self, seconds: float) -> datetime:
        self._now += timedelta(seconds=seconds)
        self._passed_s += seconds
        return self._now
