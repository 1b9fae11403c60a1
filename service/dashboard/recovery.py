"""Sending again what an endpoint has not received: counted first, then sent for the very same time."""

from datetime import UTC, datetime, timedelta

import msgspec

from service.core.problems import InvalidRequest
from service.core.times import rfc3339
from service.core.views import EndpointView
from service.dashboard.endpoint import get_endpoint
from service.dashboard.forms import errors_by_field
from service.dashboard.pages import read_time
from service.dashboard.visit import Visit
from service.web.calls import Answer
from service.web.endpoints import Recovered

RECOVER = "POST /v1/endpoints/{id}/recover"
LOOK_BACK = timedelta(hours=24)
FIELD = "%Y-%m-%dT%H:%M:%S"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The fields as they are shown, in UTC, and the exact times that they stand for."""

    since: str
    until: str
    since_exact: str
    until_exact: str


async def show(visit: Visit) -> Answer:
    """The events are counted once a time is given; nothing changes by that."""
    endpoint = await get_endpoint(visit)
    span = _read_span(visit, endpoint)
    if "since" not in visit.query:
        return _render(visit, endpoint, span, None, {})
    try:
        found = await _recover(visit, span, dry_run=True)
    except InvalidRequest as problem:
        return _render(visit, endpoint, span, None, errors_by_field(problem), 422)
    return _render(visit, endpoint, span, found, {})


async def recover(visit: Visit) -> Answer:
    span = Span(since="", until="", since_exact=visit.form.get("since", ""), until_exact=visit.form.get("until", ""))
    found = await _recover(visit, span, dry_run=False)
    text = "1 event is" if found == 1 else f"{found} events are"
    return visit.redirect(f"/endpoints/{visit.path_id('endpoint')}", f"{text} queued again.")


async def _recover(visit: Visit, span: Span, *, dry_run: bool) -> int:
    body = {"since": span.since_exact, "until": span.until_exact, "dry_run": dry_run}
    return (await visit.ask(RECOVER, Recovered, id=visit.path_id("endpoint"), body=body)).events


def _read_span(visit: Visit, endpoint: EndpointView) -> Span:
    """By default what one would most likely recover: all that is held, or the last day."""
    start = read_time(endpoint.held_since).replace(microsecond=0) if endpoint.held_since else visit.now - LOOK_BACK
    since, until = visit.query.get("since", _field(start)).strip(), visit.query.get("until", "").strip()
    return Span(since=since, until=until, since_exact=_utc(since), until_exact=_utc(until) or rfc3339(visit.now))


def _field(at: datetime) -> str:
    return at.astimezone(UTC).strftime(FIELD)


def _utc(text: str) -> str:
    """A field of a page has no zone, and leaves out seconds that are zero."""
    if "T" not in text or not text[-1:].isdigit():
        return text
    return f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def _render(
    visit: Visit, endpoint: EndpointView, span: Span, found: int | None, errors: dict[str, str], status: int = 200
) -> Answer:
    return visit.render("endpoint_recover.html", status, endpoint=endpoint, entered=span, found=found, errors=errors)
