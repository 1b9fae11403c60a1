"""Checking a receiver: the events of `taskhook check-receiver`, sent from here under the same guard as deliveries."""

import structlog

from service.core.problems import Conflict, Unavailable
from service.core.receiver_plan import Finding, Report, summarize
from service.dashboard.endpoint import get_endpoint
from service.dashboard.visit import Visit
from service.outbound.client import Poster
from service.outbound.receiver_check import Receiver, check_receiver
from service.store.vault import Unopened
from service.web.calls import Answer, first_of

log = structlog.get_logger()
LIMIT_S = 50.0
"""With what comes before and after it less than the 60 s after which common proxies cut off an answer."""


async def show(visit: Visit) -> Answer:
    return visit.render("endpoint_check.html", endpoint=await get_endpoint(visit), report=None, is_whole=True)


async def check(visit: Visit) -> Answer:
    endpoint = await get_endpoint(visit)
    receiver = await _receiver(visit, endpoint.id)
    with visit.site.checks.one(endpoint.id):
        report, is_whole = await _check(visit, receiver)
    log.info("endpoint.checked", endpoint_id=endpoint.id, outcome=report.grade, caller=visit.caller.name)
    return visit.render("endpoint_check.html", endpoint=endpoint, report=report, is_whole=is_whole)


async def _receiver(visit: Visit, endpoint_id: str) -> Receiver:
    endpoint, vault = await visit.web.store.reads.get_endpoint(endpoint_id), visit.web.trust.vault
    try:
        secret, headers = vault.open(endpoint.secret, "secret"), vault.open_headers(endpoint.headers)
    except Unopened as problem:
        raise Conflict(f"The secret of this endpoint is {problem}.") from None
    return Receiver(url=endpoint.url, secret=secret, format=endpoint.format, headers=headers)


async def _check(visit: Visit, receiver: Receiver) -> tuple[Report, bool]:
    """Return the findings of the time limit, and whether they are complete. No shutdown waits for it."""
    web, found = visit.web, list[Finding]()
    poster = Poster(web.trust.guard)
    checking = check_receiver(poster, receiver, web.env, source=web.running.source, on_finding=found.append)
    try:
        with web.requests.lent():
            ended = await first_of(LIMIT_S, checking, web.running.stopping.wait())
    finally:
        await poster.close()
    if not found:
        raise Unavailable("The check could not begin.")
    return summarize(receiver.mask(receiver.url), found), ended == 0
