"""Small charts as plain numbers, for the templates to draw: what came of deliveries, and what was charged by day."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Literal

import msgspec

from service.store.figures import Outcome

Tone = Literal["good", "bad", "waiting", "empty"]
TONES: dict[str, Tone] = {"succeeded": "good", "failed": "bad", "parked": "bad"}
SLOT, GAP, HEIGHT, LEAST = 10, 2, 48, 4
SLOWEST_MS = 15_000


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar, in the units of the chart; `label` is shown on hover."""

    x: int
    y: int
    width: int
    height: int
    tone: Tone
    label: str


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    width: int
    height: int
    bars: tuple[Bar, ...]
    summary: str


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the newest finished deliveries that were received; `percent` is None without any."""

    received: int
    decided: int

    @property
    def percent(self) -> float | None:
        return 100 * self.received / self.decided if self.decided else None


def rate_of(outcomes: Sequence[Outcome]) -> Rate:
    """A delivery counts from its first attempt; one that failed so far has not been received."""
    tried = [one for one in outcomes if one.at is not None]
    return Rate(received=sum(one.status == "succeeded" for one in tried), decided=len(tried))


def draw_outcomes(outcomes: Sequence[Outcome], slots: int) -> Chart:
    """Draw a bar for each delivery, the newest at the right; height is the log of the last attempt's duration."""
    shown = list(reversed(outcomes[:slots]))
    first = slots - len(shown)
    bars = tuple(_outcome_bar(first + index, one) for index, one in enumerate(shown))
    rate = rate_of(outcomes[:slots])
    summary = f"{rate.received} of the last {rate.decided} deliveries were received."
    return Chart(width=slots * SLOT - GAP, height=HEIGHT, bars=bars, summary=summary)


def _outcome_bar(slot: int, one: Outcome) -> Bar:
    part = math.log1p(min(one.duration_ms or 0, SLOWEST_MS)) / math.log1p(SLOWEST_MS)
    tone = TONES.get(one.status) or ("bad" if one.at is not None else "waiting")
    answer = one.status_code or one.error or "no attempt yet"
    label = f"{one.event_type}: {one.status}, {answer}" + (f", {one.duration_ms} ms" if one.at else "")
    return _bar(slot, part, tone, label)


def draw_days(by_day: Mapping[date, float], last: date, days: int) -> Chart:
    """Draw a bar for each day, including the last."""
    dates = [last - timedelta(days=back) for back in reversed(range(days))]
    most = max((by_day.get(one, 0.0) for one in dates), default=0.0) or 1.0
    bars = tuple(_day_bar(slot, one, by_day.get(one, 0.0), most) for slot, one in enumerate(dates))
    total = sum(by_day.get(one, 0.0) for one in dates)
    return Chart(width=days * SLOT - GAP, height=HEIGHT, bars=bars, summary=f"{total:g} credits in {days} days.")


def _day_bar(slot: int, day: date, amount: float, most: float) -> Bar:
    return _bar(slot, amount / most, "good" if amount else "empty", f"{day.isoformat()}: {amount:g} credits")


def _bar(slot: int, part: float, tone: Tone, label: str) -> Bar:
    height = max(LEAST, round(part * HEIGHT))
    return Bar(x=slot * SLOT, y=HEIGHT - height, width=SLOT - GAP, height=height, tone=tone, label=label)
