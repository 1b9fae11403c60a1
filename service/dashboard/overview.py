"""The first page: how the whole goes, what failed of late, and how each provider does."""

from collections.abc import Sequence
from typing import Any

from service.core.views import TaskView, view_task
from service.dashboard.attention import find_concerns
from service.dashboard.drawing import Column, Line, draw_columns, draw_line, draw_span, nice_ceiling
from service.dashboard.pages import percent
from service.dashboard.providers import standing_of
from service.dashboard.statistics import DAY_MIN, HOUR_MIN, Figures
from service.dashboard.visit import Visit
from service.store.pulse import COUNT_MAX
from service.store.queries import TaskFilter
from service.web.calls import Answer
from service.web.operations import ProviderList

RANGES = {"hour": HOUR_MIN, "day": DAY_MIN}
FAILURES = 6
NEWEST = 6
POINTS = 12
"""Of the line of an hour: a minute alone has too few endings for a rate."""


async def show(visit: Visit) -> Answer:
    """Each part for those whose key may see it."""
    name = visit.query.get("range", "hour")
    minutes = RANGES.get(name, HOUR_MIN)
    figures = await visit.site.statistics.read(minutes, visit.now)
    values: dict[str, Any] = {"range": "day" if minutes == DAY_MIN else "hour", "figures": figures, "most": COUNT_MAX}
    values["concerns"] = await find_concerns(visit, figures)
    if visit.may("tasks:read"):
        values |= await _tasks(visit, figures)
    return visit.render("overview.html", **values)


async def _tasks(visit: Visit, figures: Figures) -> dict[str, Any]:
    failed = await _list(visit, TaskFilter(status="failed"), FAILURES)
    newest = await _list(visit, TaskFilter(), NEWEST)
    providers = (await visit.ask("GET /v1/providers", ProviderList)).data
    speeds = [one.speed for one in figures.providers.values() if one.speed]
    slowest = max((speed.slow for speed in speeds), default=0.0)
    spans = {
        name: draw_span(one.speed.middle, one.speed.slow, slowest)
        for name, one in figures.providers.items()
        if one.speed
    }
    return {
        "chart": draw_columns(figures.columns),
        "rates": _draw_rates(figures.columns),
        "open": _draw_open(figures),
        "deepest": max((load.waiting for load in figures.loads.values()), default=0),
        "failed": failed,
        "newest": newest,
        "states": [(provider, *standing_of(provider)) for provider in providers],
        "spans": spans,
    }


def _draw_rates(columns: Sequence[Column]) -> Line:
    size = max(1, len(columns) // POINTS) if columns[0].minutes == 1 else 1
    parts = [columns[start : start + size] for start in range(0, len(columns), size)]
    rates = [_rate(part) for part in parts]
    labels = [
        f"{part[0].at:%H:%M}: {'nothing ended' if rate is None else percent(rate)}"
        for part, rate in zip(parts, rates, strict=True)
    ]
    return draw_line(rates, 1.0, labels)


def _rate(columns: Sequence[Column]) -> float | None:
    succeeded, failed = (sum(one.counts.get(status, 0) for one in columns) for status in ("succeeded", "failed"))
    return succeeded / (succeeded + failed) if succeeded + failed else None


def _draw_open(figures: Figures) -> Line:
    labels = [f"{column.at:%H:%M}: {count} open" for column, count in zip(figures.columns, figures.open, strict=True)]
    return draw_line(figures.open, nice_ceiling(max(figures.open)), labels)


async def _list(visit: Visit, wanted: TaskFilter, limit: int) -> list[TaskView]:
    page = await visit.web.store.reads.list_tasks(wanted, limit, None)
    return list(map(view_task, page.items))
