"""Where lines, bars and labels of the charts stand, in numbers for the templates to draw as SVG."""

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec

STATUSES = ("succeeded", "canceled", "failed")
"""From the bottom of a column to its top."""
WIDTH, HEIGHT, TOP, LEFT, BOTTOM = 1080, 180, 8, 36, 22
LINE_WIDTH, LINE_HEIGHT, LINE_EDGE = 480, 72, 3
GAP = 2.0
LEAST = 1.5
"""Of something that is there: so low a bar is still seen."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that ended in some minutes from `at` on, by status."""

    at: datetime
    minutes: int
    counts: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    x: float
    y: float
    width: float
    height: float
    kind: str


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A column with its bars and its hover text; its whole height reacts to the pointer."""

    x: float
    width: float
    bars: tuple[Bar, ...]
    label: str


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    label: str
    anchor: str = "middle"


class Columns(msgspec.Struct, frozen=True, kw_only=True):
    """A chart of stacked columns."""

    slots: tuple[Slot, ...]
    across: tuple[Tick, ...]
    """Times, by x."""
    up: tuple[Tick, ...]
    """Counts, by y."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    base: int = HEIGHT - BOTTOM


def draw_columns(columns: tuple[Column, ...]) -> Columns:
    """The highest fills the chart, rounded up to a number that reads well."""
    most = nice_ceiling(max((column.total for column in columns), default=0))
    step = (WIDTH - LEFT) / max(1, len(columns))
    slots = tuple(_slot(column, LEFT + index * step, step, most) for index, column in enumerate(columns))
    every = max(1, len(columns) // 6)
    across = tuple(
        Tick(at=round(LEFT + (index + 0.5) * step, 1), label=f"{columns[index].at:%H:%M}")
        for index in range(every // 2, len(columns), every)
    )
    up = tuple(
        Tick(at=round(_y(value, most), 1), label=f"{value:g}") for value in (0, most / 2, most) if value == int(value)
    )
    return Columns(slots=slots, across=across, up=up)


def nice_ceiling(value: float) -> int:
    """The next of 2, 4, 6, 10, 12, 16, 20, 24, 30, 40, 60, 80, 100, 120 ..., so that its half reads well, too."""
    if value <= 10:
        return next(step for step in (2, 4, 6, 10) if step >= value)
    size = int(10 ** math.floor(math.log10(value)))
    return next(step * size // 10 for step in (10, 12, 16, 20, 24, 30, 40, 60, 80, 100) if step * size / 10 >= value)


def _y(value: float, most: int) -> float:
    return HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP)


def _slot(column: Column, x: float, step: float, most: int) -> Slot:
    bars, base = [], float(HEIGHT - BOTTOM)
    for status in STATUSES:
        count = column.counts.get(status, 0)
        if count:
            height = max(LEAST, count / most * (HEIGHT - BOTTOM - TOP))
            base -= height
            bars.append(_bar(x, base, step, height, status))
    parts = ", ".join(f"{column.counts[status]} {status}" for status in STATUSES if column.counts.get(status))
    until = f" ({column.minutes} min)" if column.minutes > 1 else ""
    return Slot(
        x=round(x, 2), width=round(step, 2), bars=tuple(bars), label=f"{column.at:%H:%M}{until}: {parts or 'nothing'}"
    )


def _bar(x: float, y: float, step: float, height: float, kind: str) -> Bar:
    return Bar(x=round(x + GAP / 2, 2), y=round(y, 2), width=round(step - GAP, 2), height=round(height, 2), kind=kind)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """From a first to a second value on a line that starts at 0."""

    start: float
    end: float
    width: int = 120


def draw_span(start: float, end: float, most: float) -> Span:
    """Roots of the values: what is quick stays apart where something else is slow."""
    scale = 120 / math.sqrt(most) if most > 0 else 0.0
    first, last = math.sqrt(start) * scale, math.sqrt(end) * scale
    return Span(start=round(first, 1), end=round(max(last, first + 3), 1))


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line over time, with the area below it, as paths; `label` stands on hover over each part of the time."""

    path: str
    area: str
    slots: tuple[Slot, ...]
    width: int = LINE_WIDTH
    height: int = LINE_HEIGHT


def draw_line(values: Sequence[float | None], most: float, labels: Sequence[str]) -> Line:
    """Through the middle of each part of the time that has a value; what lies between two is straight."""
    step = LINE_WIDTH / max(1, len(values))
    room = LINE_HEIGHT - 2 * LINE_EDGE
    points = [
        (round((index + 0.5) * step, 1), round(LINE_HEIGHT - LINE_EDGE - value / most * room, 1))
        for index, value in enumerate(values)
        if value is not None
    ]
    slots = tuple(
        Slot(x=round(index * step, 2), width=round(step, 2), bars=(), label=label) for index, label in enumerate(labels)
    )
    if not points:
        return Line(path="", area="", slots=slots)
    if len(points) == 1:
        (x, y), half = points[0], step / 2
        points = [(round(x - half, 1), y), (round(x + half, 1), y)]
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    return Line(path=path, area=f"{path}V{LINE_HEIGHT}H{points[0][0]}Z", slots=slots)
