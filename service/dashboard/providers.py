"""Providers: whether each can be used and answers, how much of its limits is taken, and what it charged."""

from datetime import UTC, datetime, timedelta

import msgspec

from service.core.breaker import Breaker
from service.core.times import from_ms
from service.dashboard.charts import Chart, draw_days
from service.dashboard.visit import Visit
from service.store.figures import Charges, Load
from service.web.calls import Answer
from service.web.operations import ProviderList, ProviderView

DAYS = 14
IDLE = Load(used=0, in_flight=0, waiting=0, paused_until=from_ms(0), breaker=Breaker(), late_since=None)


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider charged, where it tells."""

    chart: Chart
    credits: float
    tasks: int


class State(msgspec.Struct, frozen=True, kw_only=True):
    provider: ProviderView
    load: Load
    spend: Spend | None


async def show(visit: Visit) -> Answer:
    found = (await visit.ask("GET /v1/providers", ProviderList)).data
    reads, since = visit.web.store.reads, _midnight(visit.now) - timedelta(days=DAYS - 1)
    loads = await reads.account_loads({one.id: one.limits for one in found if one.configured}, visit.now)
    charges = await visit.site.spending.since(since)
    states = [
        State(provider=one, load=loads.get(one.id, IDLE), spend=_spend(charges, one.id, visit.now)) for one in found
    ]
    complete_since = charges.complete_since if charges.complete_since > since else None
    return visit.render(
        "providers.html", states=states, days=DAYS, complete_since=complete_since, standing_of=standing_of
    )


def standing_of(provider: ProviderView) -> tuple[str, str]:
    """A word and the tone of its badge."""
    if not provider.configured:
        return "not configured", "off"
    if provider.circuit.state != "closed":
        return ("not answering", "bad") if provider.circuit.state == "open" else ("trying again", "wait")
    return ("resting", "wait") if provider.paused_until else ("healthy", "ok")


def _spend(charges: Charges, provider: str, now: datetime) -> Spend | None:
    by_day = charges.credits.get(provider)
    if by_day is None:
        return None
    chart = draw_days(by_day, now.astimezone(UTC).date(), DAYS)
    return Spend(chart=chart, credits=sum(by_day.values()), tasks=charges.tasks[provider])


def _midnight(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
