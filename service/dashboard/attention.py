"""Problems that need action, the most blocking first; each links to its fix."""

from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from service.core.delivery import Endpoint
from service.dashboard.pages import number as show_number
from service.dashboard.statistics import Figures
from service.dashboard.visit import Visit
from service.store.pulse import COUNT_MAX


class Concern(msgspec.Struct, frozen=True, kw_only=True):
    """`to` is the page about it, `verb` the text of the link; `since` stands behind the text where it is known."""

    text: str
    to: str
    verb: str
    tone: Literal["bad", "wait"] = "bad"
    since: datetime | None = None


async def find_concerns(visit: Visit, figures: Figures) -> list[Concern]:
    """Return the problems that this visitor may see."""
    found: list[Concern] = []
    if visit.may("tasks:read"):
        found += _work(figures, visit.now)
    if visit.may("endpoints"):
        found += _deliveries(figures)
        found += _endpoints(await visit.web.store.reads.list_endpoints())
    if visit.may("admin") and (parked := await visit.web.store.reads.count_parked()):
        text = f"{_count(parked, 'piece of work is', 'pieces of work are')} parked after a mistake of this service"
        found.append(Concern(text=text, to="/faults", verb="Look and retry"))
    return found


def _work(figures: Figures, now: datetime) -> Iterator[Concern]:
    if figures.late_since is not None:
        text = "Work is due that nobody takes. Is a worker running?"
        yield Concern(text=text, to="/providers", verb="Look at the providers", since=figures.late_since)
    for name, load in figures.loads.items():
        if load.breaker.since is not None:
            text = f"{name} does not answer, so its tasks wait"
            yield Concern(text=text, to="/providers", verb="Look at it", since=load.breaker.since)
        elif load.paused_until > now:
            text = f"{name} asked for a rest, so its tasks wait"
            yield Concern(text=text, to="/providers", verb="Look at it", tone="wait")


def _deliveries(figures: Figures) -> Iterator[Concern]:
    waiting = figures.waiting.deliveries
    if waiting["failed"]:
        text = f"{_count(waiting['failed'], 'delivery was', 'deliveries were')} not received, and no retry is left"
        yield Concern(text=text, to="/deliveries?status=failed", verb="Look and send again")


def _endpoints(endpoints: list[Endpoint]) -> Iterator[Concern]:
    """Link to the endpoint's page, or to the list for several."""
    failing = [one for one in endpoints if one.enabled and one.failing]
    given_up = [one for one in endpoints if not one.enabled and one.failing]
    for found, is_what in ((failing, "failing"), (given_up, "disabled after failures")):
        if found:
            to = f"/endpoints/{found[0].id}" if len(found) == 1 else "/endpoints"
            text = f"{_count(len(found), 'endpoint is', 'endpoints are')} {is_what}"
            since = min((one.first_failed_at for one in found if one.first_failed_at), default=None)
            yield Concern(text=text, to=to, verb="Look at it" if len(found) == 1 else "Look at them", since=since)


def _count(number: int, one: str, more: str) -> str:
    if number == 1:
        return f"1 {one}"
    return f"{show_number(number)}{'+' if number >= COUNT_MAX else ''} {more}"
