"""The picture of docs/performance.md: what was measured last, beside what its peers reached on a machine like it."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from bench.figures import Figure

OURS, THEIRS, AIM = "#1f6feb", "#9aa4b2", "#c2410c"
ACCEPTED = {"Outpost": 0.20, "Svix": 0.11, "Convoy": 0.055}
"""A second, the API process alone, of a bare route."""
COST = {"Outpost, tuned": 21.0, "Outpost": 44.0, "Svix": 35.0, "Convoy": 136.0}
"""Processor time of all processes for one delivered event, in bare requests."""
LATENCY = {"Outpost": (30.0, 52.0), "Svix": (1.9, 5.1), "Convoy": (700.0, 1_540.0)}
"""Milliseconds from publishing to the subscriber at 100 a second: half of all, and 99 of 100."""


class Bar(msgspec.Struct, frozen=True):
    """`low` and `high` are the ends of its whisker."""

    name: str
    value: float
    low: float
    high: float
    target: float | None = None
    is_ours: bool = True


def draw(loads: Mapping[str, Sequence[Figure]], path: Path) -> None:
    figures = {figure.name: figure for found in loads.values() for figure in found}
    mpl.rcParams.update(
        {"svg.hashsalt": "taskhook", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    )
    canvas = Canvas(figsize=(9, 7.2), layout="constrained")
    accepting, costing, hearing = canvas.subplots(3, 1, height_ratios=(7, 6, 6))
    _panel(accepting, "Accepted a second, of a bare route on the same core (more is better)", _accepted(figures))
    _panel(costing, "Processor time of a delivered event, in bare requests (less is better)", _costs(figures))
    _panel(hearing, "Milliseconds to the subscriber at 100 a second: p50 to p99 (less is better)", _latencies(figures))
    hearing.set_xscale("log")
    canvas.supxlabel("blue: Taskhook; grey: peers; upright mark: target; line: least to most, below p50 to p99", size=8)
    canvas.savefig(path, metadata={"Date": None})


def _accepted(figures: Mapping[str, Figure]) -> list[Bar]:
    names = ("callbacks, SQLite", "callbacks, PostgreSQL", "tasks accepted, SQLite", "tasks accepted, PostgreSQL")
    return [*_ours(figures, names), *_theirs(ACCEPTED)]


def _costs(figures: Mapping[str, Figure]) -> list[Bar]:
    ours = []
    for on in ("SQLite", "PostgreSQL"):
        for bar in _ours(figures, [f"end to end, {on}: the same in bare requests"]):
            ours.append(msgspec.structs.replace(bar, name=f"whole task, {on}"))
    return [*ours, *_theirs(COST)]


def _latencies(figures: Mapping[str, Figure]) -> list[Bar]:
    names = [f"callback to subscriber at 100/s, {at}" for at in ("p50", "p99")]
    if not all(name in figures for name in names):
        return []
    p50, p99 = (statistics.median(figures[name].values) for name in names)
    theirs = [Bar(name, low, low, high, None, False) for name, (low, high) in LATENCY.items()]
    return [Bar("callback to subscriber", p50, p50, p99, figures[names[1]].target), *theirs]


def _ours(figures: Mapping[str, Figure], names: Sequence[str]) -> list[Bar]:
    found = [figures[name] for name in names if name in figures]
    return [
        Bar(figure.name, statistics.median(figure.judged), min(figure.judged), max(figure.judged), figure.target)
        for figure in found
    ]


def _theirs(known: Mapping[str, float]) -> list[Bar]:
    return [Bar(name, value, value, value, None, False) for name, value in known.items()]


def _panel(axes: Axes, title: str, bars: Sequence[Bar]) -> None:
    axes.set_title(title, loc="left", size=10)
    for row, bar in enumerate(reversed(bars)):
        axes.barh(row, bar.value, color=OURS if bar.is_ours else THEIRS, height=0.62)
        axes.hlines(row, bar.low, bar.high, color="black", linewidth=1.2)
        if bar.target is not None:
            axes.vlines(bar.target, row - 0.42, row + 0.42, color=AIM, linewidth=2)
        end = max(bar.high, bar.target or 0)
        axes.annotate(_text(bar), (end, row), (5, 0), textcoords="offset points", va="center", size=8)
    axes.set_yticks(range(len(bars)), [bar.name for bar in reversed(bars)])
    axes.margins(x=0.18)
    axes.spines[["top", "right"]].set_visible(False)


def _text(bar: Bar) -> str:
    ends = f" ({bar.low:,.4g} to {bar.high:,.4g})" if bar.low < bar.high else ""
    return f"{bar.value:,.3g}{ends}"
