"""The first page: how the whole goes, what failed of late, and how each provider does."""

from typing import Any

from service.core.views import TaskView
from service.dashboard.drawing import draw_columns, draw_span
from service.dashboard.statistics import DAY_MIN, HOUR_MIN, Figures
from service.dashboard.visit import Visit
from service.store.pulse import COUNT_MAX
from service.web.calls import Answer
from service.web.operations import ProviderList, ProviderView
from service.web.tasks import TaskList

RANGES = {"hour": HOUR_MIN, "day": DAY_MIN}
FAILURES = 6
NEWEST = 6


async def show(visit: Visit) -> Answer:
    """Each part for those whose key may see it."""
    name = visit.query.get("range", "hour")
    minutes = RANGES.get(name, HOUR_MIN)
    figures = await visit.site.statistics.read(minutes, visit.now)
    values: dict[str, Any] = {"range": "day" if minutes == DAY_MIN else "hour", "figures": figures, "most": COUNT_MAX}
    if visit.may("tasks:read"):
        values |= await _tasks(visit, figures)
    return visit.render("overview.html", **values)


async def _tasks(visit: Visit, figures: Figures) -> dict[str, Any]:
    failed = await _list(visit, {"status": "failed", "limit": FAILURES})
    newest = await _list(visit, {"limit": NEWEST})
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
        "failed": failed,
        "newest": newest,
        "states": [(provider, *state_of(provider)) for provider in providers],
        "spans": spans,
    }


async def _list(visit: Visit, query: dict[str, Any]) -> list[TaskView]:
    return (await visit.ask("GET /v1/tasks", TaskList, query=query)).data


def state_of(provider: ProviderView) -> tuple[str, str]:
    """A word and the tone of its badge."""
    if not provider.configured:
        return "not configured", "off"
    if provider.circuit.state != "closed":
        return ("not answering", "bad") if provider.circuit.state == "open" else ("being tried", "wait")
    return ("resting", "wait") if provider.paused_until else ("answering", "ok")
