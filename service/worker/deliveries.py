"""Deliveries: render, sign, post, record."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from itertools import count

import msgspec
import structlog
from msgspec.structs import replace

from service.core import delivering
from service.core.change import Change
from service.core.delivery import MEDIA_TYPES, Endpoint, Format, render_for
from service.core.env import Env
from service.core.masking import mask, secrets_in_url
from service.core.problems import NotFound, Unavailable
from service.core.signing import sign
from service.core.trace import TraceContext
from service.outbound.client import Attempted, Poster
from service.outbound.failures import kind_of
from service.store import claims
from service.store.batch import Batch, Keys
from service.store.claims import Parcel
from service.store.driver import Driver
from service.store.lanes import UrlWalk
from service.store.vault import Unopened, Vault
from service.store.writer import Writer
from service.telemetry import Metrics
from service.telemetry.tracing import OFF, Tracing, current_span
from service.worker.faults import again_s, putting_aside
from service.worker.loop import Claimed

log = structlog.get_logger()
AT_ONCE = 1_024
"""Attempts of this process; what is more waits for its turn in the database."""
LEASE_S = 40.0
"""Longer than an attempt and the time to write it down."""


class _Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Where a delivery goes, with what, signed by whom: readable for the time of one attempt."""

    url: str
    headers: dict[str, str]
    secrets: tuple[str, ...]

    def __repr__(self) -> str:
        return "_Opened()"

    def mask(self, outcome: delivering.Outcome) -> delivering.Outcome:
        """A subscriber may send back what it got; most say nothing."""
        texts = {name: text for name in ("excerpt", "error", "location") if (text := getattr(outcome, name))}
        if not texts:
            return outcome
        known = [*self.headers.values(), *self.secrets, *secrets_in_url(self.url)]
        return replace(outcome, **{name: mask(text, known) for name, text in texts.items()})


class DeliveryWork:
    """Delivers due events to their endpoints."""

    def __init__(
        self,
        driver: Driver,
        writer: Writer,
        poster: Poster,
        env: Env,
        metrics: Metrics,
        *,
        url_poster: Poster | None = None,
        vault: Vault,
        signing_secret: str,
        schedule: Sequence[float],
        source: str,
        tracing: Tracing = OFF,
    ) -> None:
        self._driver = driver
        self._writer = writer
        self._poster = poster
        self._url_poster = url_poster or poster
        self._env = env
        self._metrics = metrics
        self._vault = vault
        self._signing_secret = signing_secret
        self._schedule = schedule
        self._source = source
        self._tracing = tracing
        self._walk = UrlWalk()

    async def find_next_due(self) -> datetime | None:
        async with self._driver.reading() as session:
            return await claims.find_next_delivery(session, self._walk, self._env.now())

    async def claim(self, batch: Batch, free: int) -> Claimed[tuple[Parcel, float]]:
        """Claim due deliveries, each with the time of its claim."""
        claimed_at = self._env.monotonic()
        claim = await claims.claim_due_deliveries(batch, free, LEASE_S, AT_ONCE, self._walk)
        items = [(parcel, claimed_at) for parcel in claim.parcels]
        return Claimed(items=items, next_due_at=claim.next_due_at, is_short=claim.is_short)

    async def run(self, item: tuple[Parcel, float]) -> datetime | None:
        """The delivery's next due time."""
        parcel, claimed_at = item
        if self._env.monotonic() - claimed_at > LEASE_S / 2:
            return None  # this process was frozen: another one may hold it by now
        async with putting_aside(self._writer, parcel.delivery.id):
            with self._tracing.delivery(parcel.delivery, await self._find_trace(parcel.delivery.task_id)):
                return await self._attempt(parcel)

    async def _find_trace(self, task_id: str | None) -> TraceContext | None:
        """Rather none than no attempt."""
        if not self._tracing.is_on or task_id is None:
            return None
        with suppress(Unavailable):
            async with self._driver.reading() as session:
                return await claims.find_trace(session, task_id)
        return None

    async def _attempt(self, parcel: Parcel) -> datetime | None:
        at = self._env.now()
        try:
            opened = self._open(parcel, at)
        except Unopened as problem:
            return await self._record(parcel, _not_sent(f"not sent: its secrets are {problem}", at))
        form: Format = parcel.endpoint.format if parcel.endpoint else "standard"
        body = render_for(form, parcel.body, self._source, parcel.delivery.task_id)
        signed = sign(opened.secrets, parcel.delivery.event_id, int(at.timestamp()), body)
        headers = {**opened.headers, "Content-Type": MEDIA_TYPES[form], **signed}
        attempted = await self._post(parcel.endpoint, opened.url, headers, body)
        return await self._record(parcel, opened.mask(_outcome(attempted, at)))

    async def _post(self, endpoint: Endpoint | None, url: str, headers: dict[str, str], body: bytes) -> Attempted:
        span = current_span()
        span.record_call("POST", url)
        given = {name.lower() for name in headers}
        joining = {name: value for name, value in span.headers().items() if name not in given}
        if endpoint is None:
            attempted = await self._url_poster.post(url, {**headers, **joining}, body)
        else:
            attempted = await self._poster.post(url, {**headers, **joining}, body, endpoint.timeout_s)
        span.record_result(
            "received" if attempted.received else "failed", attempted.status_code, _error_type(attempted)
        )
        return attempted

    def _open(self, parcel: Parcel, at: datetime) -> _Opened:
        """Raises Unopened. An old secret that can't be read no longer signs."""
        endpoint = parcel.endpoint
        if endpoint is None:
            url = self._vault.open_url(parcel.delivery.url or "")
            return _Opened(url=url, headers={}, secrets=(self._signing_secret,))
        newest, *older = endpoint.secrets_at(at)
        secrets = [self._vault.open(newest, "secret")]
        for secret in older:
            with suppress(Unopened):
                secrets.append(self._vault.open(secret, "secret"))
        headers = self._vault.open_headers(endpoint.headers)
        return _Opened(url=endpoint.url, headers=headers, secrets=tuple(secrets))

    async def _record(self, parcel: Parcel, outcome: delivering.Outcome) -> datetime | None:
        """Until it is stored, as long as this process lives; after that the lease runs out and it is sent again."""
        delivery_id, endpoint_id = parcel.delivery.id, parcel.delivery.endpoint_id

        def decide(batch: Batch) -> Change:
            delivery, endpoint = batch.delivery(delivery_id), batch.find_endpoint(endpoint_id)
            lease, schedule = parcel.delivery.lease, self._schedule
            if endpoint is not None and endpoint.retry_schedule_s is not None:
                schedule = endpoint.retry_schedule_s
            return delivering.after_attempt(delivery, endpoint, outcome, lease, self._env, schedule)

        keys = Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,) if endpoint_id else ())
        for tries in count():
            try:
                change = await self._writer.change(keys, decide)
            except Unavailable:
                await asyncio.sleep(again_s(tries))
            except NotFound:
                return None
            else:
                break
        return self._told(change, outcome)

    def _told(self, change: Change, outcome: delivering.Outcome) -> datetime | None:
        delivery = change.deliveries[0]
        result = "received" if outcome.received else "failed"
        self._metrics.attempts.labels(result).inc()
        self._metrics.attempt_seconds.observe(outcome.duration_ms / 1000, current_span().find_exemplar())
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
        for event in change.events:
            self._metrics.endpoint_events.labels(event.type).inc()
            log.warning(event.type, endpoint_id=event.subject_id, event_id=event.id, error=outcome.error)
        return delivery.due_at


def _error_type(attempted: Attempted) -> str | None:
    if attempted.error is None:
        return None
    answered = attempted.status_code is not None and not 200 <= attempted.status_code < 300
    return str(attempted.status_code) if answered else kind_of(attempted.error)


def _not_sent(error: str, at: datetime) -> delivering.Outcome:
    return delivering.Outcome(at=at, received=False, status_code=None, duration_ms=0, error=error)


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
