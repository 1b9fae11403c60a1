"""One due delivery: render, sign, post, record."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

import structlog

from service.core import delivering
from service.core.change import Change
from service.core.delivery import Endpoint
from service.core.env import Env
from service.core.event import render_cloudevent
from service.core.problems import NotFound, Unavailable
from service.core.signing import sign
from service.outbound.client import Attempted, Poster
from service.store import claims
from service.store.batch import Batch, Keys
from service.store.claims import Parcel
from service.store.driver import Driver
from service.store.writer import Writer
from service.telemetry import Metrics

log = structlog.get_logger()
LEASE_S = 40.0
"""Longer than an attempt and the time to write it down."""
AGAIN_S = 0.5
CONTENT_TYPES = {"standard": "application/json", "cloudevents": "application/cloudevents+json"}


class DeliveryWork:
    """Delivers what is due to whoever it is for."""

    def __init__(
        self,
        driver: Driver,
        writer: Writer,
        poster: Poster,
        env: Env,
        metrics: Metrics,
        *,
        signing_secret: str,
        schedule: Sequence[float],
        source: str,
    ) -> None:
        self._driver = driver
        self._writer = writer
        self._poster = poster
        self._env = env
        self._metrics = metrics
        self._signing_secret = signing_secret
        self._schedule = schedule
        self._source = source

    async def claim(self, free: int) -> tuple[list[tuple[Parcel, float]], datetime | None]:
        """What is due, each with the moment of its claim; asks the writer only when something is."""
        async with self._driver.reading() as session:
            lanes = await claims.find_lanes(session)
        if not lanes or lanes[0][1] > self._env.now():
            return [], lanes[0][1] if lanes else None
        claimed_at = time.monotonic()

        async def work(batch: Batch) -> claims.DeliveryClaim:
            return await claims.claim_due_deliveries(batch, free, LEASE_S)

        claim = await self._writer.run(work)
        return [(parcel, claimed_at) for parcel in claim.parcels], claim.next_due_at

    async def run(self, item: tuple[Parcel, float]) -> datetime | None:
        """The delivery's next due time."""
        parcel, claimed_at = item
        if time.monotonic() - claimed_at > LEASE_S / 2:
            return None  # this process was frozen: another one may hold it by now
        at = self._env.now()
        body, headers, secrets = self._render(parcel, at)
        headers |= sign(secrets, parcel.delivery.event_id, int(at.timestamp()), body)
        url = parcel.endpoint.url if parcel.endpoint else parcel.delivery.url or ""
        attempted = await self._poster.post(url, headers, body)
        return await self._record(parcel, _outcome(attempted, at))

    def _render(self, parcel: Parcel, at: datetime) -> tuple[bytes, dict[str, str], tuple[str, ...]]:
        endpoint = parcel.endpoint
        if endpoint is None:
            return parcel.body, {"Content-Type": CONTENT_TYPES["standard"]}, (self._signing_secret,)
        headers = {**endpoint.headers, "Content-Type": CONTENT_TYPES[endpoint.format]}
        return self._body(parcel, endpoint), headers, endpoint.secrets_at(at)

    def _body(self, parcel: Parcel, endpoint: Endpoint) -> bytes:
        if endpoint.format == "standard":
            return parcel.body
        return render_cloudevent(parcel.body, self._source, parcel.delivery.task_id)

    async def _record(self, parcel: Parcel, outcome: delivering.Outcome) -> datetime | None:
        """Until it is stored, as long as this process lives; after that the lease runs out and it is sent again."""
        delivery_id, endpoint_id = parcel.delivery.id, parcel.delivery.endpoint_id

        def decide(batch: Batch) -> Change:
            delivery, endpoint = batch.delivery(delivery_id), batch.find_endpoint(endpoint_id)
            lease = parcel.delivery.lease
            return delivering.after_attempt(delivery, endpoint, outcome, lease, self._env, self._schedule)

        keys = Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,) if endpoint_id else ())
        while True:
            try:
                change = await self._writer.change(keys, decide)
            except Unavailable:
                await asyncio.sleep(AGAIN_S)
            except NotFound:
                return None
            else:
                return self._told(change, outcome)

    def _told(self, change: Change, outcome: delivering.Outcome) -> datetime | None:
        delivery = change.deliveries[0]
        result = "received" if outcome.received else "failed"
        self._metrics.attempts.labels(result).inc()
        self._metrics.attempt_seconds.observe(outcome.duration_ms / 1000)
        log.info(
            "delivery.attempted",
            delivery_id=delivery.id,
            event_id=delivery.event_id,
            task_id=delivery.task_id,
            endpoint_id=delivery.endpoint_id,
            outcome=result,
            status=delivery.status,
            status_code=outcome.status_code,
            error=outcome.error,
            duration_ms=outcome.duration_ms,
        )
        for endpoint in change.endpoints:
            if change.holds:
                self._metrics.endpoints_disabled.inc()
                log.warning("endpoint.disabled", endpoint_id=endpoint.id, reason=endpoint.disabled_reason)
        return delivery.due_at


def _outcome(attempted: Attempted, at: datetime) -> delivering.Outcome:
    return delivering.Outcome(
        at=at,
        received=attempted.received,
        status_code=attempted.status_code,
        duration_ms=attempted.duration_ms,
        error=attempted.error,
        location=attempted.location,
        excerpt=attempted.excerpt,
        retry_after=attempted.retry_after,
    )
