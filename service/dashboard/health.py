"""How an endpoint is doing, from its newest deliveries: how many it received, and when it last did and did not."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from service.core.delivery import Endpoint
from service.dashboard.charts import Chart, Rate, draw_outcomes, rate_of
from service.store.figures import Outcome
from service.web.context import Web

RECENT = 60


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`failing_since` is the first failure since the last success; None while all is received."""

    rate: Rate
    chart: Chart
    received_at: datetime | None
    failed_at: datetime | None
    failing_since: datetime | None


async def healths(web: Web, endpoints: Iterable[Endpoint]) -> dict[str, Health]:
    """By the endpoint's id."""
    shown = list(endpoints)
    outcomes = await web.store.reads.recent_outcomes([endpoint.id for endpoint in shown], RECENT)
    return {endpoint.id: judge(endpoint, outcomes[endpoint.id]) for endpoint in shown}


def judge(endpoint: Endpoint, outcomes: Sequence[Outcome]) -> Health:
    received = [one.at for one in outcomes if one.at is not None and one.status == "succeeded"]
    failed = [one.at for one in outcomes if one.at is not None and one.status != "succeeded"]
    return Health(
        rate=rate_of(outcomes),
        chart=draw_outcomes(outcomes, RECENT),
        received_at=max(received, default=None),
        failed_at=max((*failed, *([endpoint.last_failed_at] if endpoint.last_failed_at else [])), default=None),
        failing_since=endpoint.first_failed_at,
    )
