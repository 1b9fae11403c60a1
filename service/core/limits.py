"""Rate limit: a sliding window of ten slots, small enough for one row."""

from datetime import datetime

import msgspec

from service.core.times import to_ms

SLOTS = 10


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` calls in any `window_s`; `used` counts them by slot, so it is up to one slot stricter."""

    limit: int
    window_s: float
    used: dict[int, int] = {}

    @property
    def _slot_ms(self) -> float:
        return self.window_s * 1000 / SLOTS

    def _current(self, now: datetime) -> dict[int, int]:
        oldest = int(to_ms(now) / self._slot_ms) - SLOTS
        newest = oldest + 2 * SLOTS  # a clock that was ahead blocks for one window at most
        return {slot: count for slot, count in self.used.items() if oldest <= slot <= newest}

    def room(self, now: datetime) -> int:
        return max(0, self.limit - sum(self._current(now).values()))

    def take(self, count: int, now: datetime) -> "Window":
        used = self._current(now)
        slot = int(to_ms(now) / self._slot_ms)
        if count:
            used = {**used, slot: used.get(slot, 0) + count}
        return msgspec.structs.replace(self, used=used)

    def opens_in_s(self, now: datetime) -> float:
        """Return the seconds until there is room for one more call."""
        used = self._current(now)
        if sum(used.values()) < self.limit:
            return 0.0
        leaves_ms = (min(used) + SLOTS + 1) * self._slot_ms
        return max(0.001, (leaves_ms - to_ms(now)) / 1000)
