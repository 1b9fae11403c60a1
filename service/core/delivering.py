"""The life of a delivery and the health of its endpoint: what an attempt, a retry by hand or a ping changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from service.core.change import Change
from service.core.delivery import DISABLE_AFTER_DAYS, FAILING_AFTER, Attempt, Delivery, Endpoint, Resume
from service.core.env import Env
from service.core.event import Event, EventType
from service.core.problems import Conflict
from service.core.schedule import parse_retry_after
from service.core.times import after, rfc3339
from service.core.views import view_endpoint_facts

GONE = 410
SECRET_OVERLAP_S = 86_400.0
OLD_SECRETS_MAX = 5
"""Each is one more signature on every attempt."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an attempt; `received` if a 2xx arrived in time."""

    at: datetime
    received: bool
    status_code: int | None
    duration_ms: int
    error: str | None = None
    location: str | None = None
    excerpt: str = ""
    retry_after: str | None = None


def begin(delivery: Delivery, env: Env, lease_s: float, endpoint: Endpoint | None = None) -> Delivery:
    """A worker takes it; found again after the lease, it is sent again, unless its endpoint was turned off since."""
    if endpoint is not None and endpoint.deleted_at is not None:
        return replace(delivery, status="failed", due_at=None, finished_at=env.now(), resume=None)
    if endpoint is not None and not endpoint.enabled and delivery.resume is None:
        return replace(delivery, status="held", due_at=None)
    return replace(delivery, status="sending", lease=delivery.lease + 1, due_at=after(env.now(), lease_s))


def after_attempt(
    delivery: Delivery, endpoint: Endpoint | None, outcome: Outcome, lease: int, env: Env, schedule: Sequence[float]
) -> Change:
    """Writes an attempt down and decides what comes next for the delivery and its endpoint.

    One whose lease is over is written down; only that the event was received counts then.
    """
    delivery = replace(delivery, attempts=delivery.attempts + 1)
    attempts = (_attempt(delivery, outcome),)
    if outcome.received:
        done = replace(delivery, status="succeeded", due_at=None, finished_at=env.now(), resume=None)
        return _with_health(Change(deliveries=(done,), attempts=attempts), _recovered(endpoint, env))
    if delivery.status != "sending" or delivery.lease != lease:
        return Change(outcome="stale", deliveries=(delivery,), attempts=attempts)
    if endpoint is not None and endpoint.deleted_at is not None:
        ended = replace(delivery, status="failed", due_at=None, finished_at=env.now(), resume=None)
        return Change(deliveries=(ended,), attempts=attempts)
    gone = outcome.status_code == GONE
    health = _failed(endpoint, outcome, env, gone=gone)
    usable = not gone if endpoint is None else health.endpoints[0].enabled
    delivery = _next(
        delivery, outcome, env, schedule, usable=usable, can_wait=endpoint is not None and endpoint.deleted_at is None
    )
    return _with_health(Change(deliveries=(delivery,), attempts=attempts), health)


def retry(delivery: Delivery, env: Env) -> Change:
    """Queue one attempt now. A running schedule stays as it is, and so does a delivery in flight."""
    if delivery.status == "sending" or delivery.resume is not None:
        return Change(outcome="noted", deliveries=(delivery,))
    resume = Resume(status=delivery.status, due_at=delivery.due_at)
    return Change(deliveries=(replace(delivery, status="pending", due_at=env.now(), resume=resume),))


def is_recoverable(delivery: Delivery) -> bool:
    """Return whether `recover` sends it: not if it is in flight, received, or queued without a failure."""
    if delivery.status == "pending":
        was_received = delivery.resume is not None and delivery.resume.status == "succeeded"
        return delivery.failures > 0 and not was_received
    return delivery.status in ("failed", "held", "parked")


def recover(delivery: Delivery, env: Env) -> Delivery:
    """Queued again with the full schedule."""
    return replace(delivery, status="pending", due_at=env.now(), failures=0, resume=None, finished_at=None)


def ping(endpoint: Endpoint, env: Env) -> Event:
    """An event for this endpoint alone, to try it."""
    facts = view_endpoint_facts(endpoint, last_error=None)
    now = env.now()
    return Event(
        id=env.new_id("event"),
        type="taskhook.ping",
        at=now,
        data=msgspec.json.encode(facts),
        subject_id=endpoint.id,
        audience_id=endpoint.id,
    )


def rotate(endpoint: Endpoint, new_secret: str, env: Env) -> Endpoint:
    """For a day the replaced secret signs too, whatever replaces the new one meanwhile. Raises Conflict."""
    now = env.now()
    old = endpoint.old_secrets_at(now)
    if len(old) >= OLD_SECRETS_MAX:
        until = rfc3339(min(one.until for one in old))
        often = f"The secret was rotated {len(old)} times within 24 hours"
        raise Conflict(f"{often}; it can be rotated again from {until} on.")
    return replace(
        endpoint,
        secret=new_secret,
        old_secret=endpoint.secret,
        old_secret_until=after(now, SECRET_OVERLAP_S),
        older_secrets=old,
    )


def enable(endpoint: Endpoint) -> Endpoint:
    """Starts afresh; what was held stays held until it is recovered."""
    return replace(_healthy(endpoint), enabled=True, disabled_reason=None, disabled_at=None)


def disable(endpoint: Endpoint, reason: str, env: Env) -> Endpoint:
    return replace(endpoint, enabled=False, disabled_reason=reason, disabled_at=env.now())


def remove(endpoint: Endpoint, env: Env) -> Endpoint:
    """Gone for the outside; the row stays for the deliveries that name it, without its secrets."""
    if endpoint.deleted_at is not None:
        raise Conflict("The endpoint is deleted.")
    disabled = disable(endpoint, "deleted", env)
    return replace(disabled, secret="", old_secret=None, older_secrets=(), headers={}, deleted_at=env.now())


def _attempt(delivery: Delivery, outcome: Outcome) -> Attempt:
    return Attempt(
        delivery_id=delivery.id,
        number=delivery.attempts,
        at=outcome.at,
        status_code=outcome.status_code,
        duration_ms=outcome.duration_ms,
        error=outcome.error,
        location=outcome.location,
        excerpt=outcome.excerpt,
    )


def _next(
    delivery: Delivery, outcome: Outcome, env: Env, schedule: Sequence[float], *, usable: bool, can_wait: bool
) -> Delivery:
    resume = delivery.resume
    if resume is not None and (usable or resume.status != "pending"):
        return replace(delivery, status=resume.status, due_at=resume.due_at, resume=None)
    failures = delivery.failures + 1
    if not usable:
        status, finished_at = ("held", None) if can_wait else ("failed", env.now())
        return replace(delivery, status=status, due_at=None, failures=failures, finished_at=finished_at, resume=None)
    if failures > len(schedule):
        return replace(delivery, status="failed", due_at=None, failures=failures, finished_at=env.now())
    now = env.now()
    wait_s = max(env.jitter(schedule[failures - 1]), parse_retry_after(outcome.retry_after, now) or 0.0)
    return replace(delivery, status="pending", due_at=after(now, wait_s), failures=failures)


def _recovered(endpoint: Endpoint | None, env: Env) -> Change:
    if endpoint is None or endpoint.failures == 0:
        return Change()
    healthy = _healthy(endpoint)
    events = (_about(healthy, "endpoint.recovered", None, env),) if endpoint.failing else ()
    return Change(endpoints=(healthy,), events=events)


def _failed(endpoint: Endpoint | None, outcome: Outcome, env: Env, *, gone: bool) -> Change:
    if endpoint is None:
        return Change()
    now = env.now()
    first = endpoint.first_failed_at or now
    endpoint = replace(endpoint, failures=endpoint.failures + 1, first_failed_at=first, last_failed_at=now)
    events: list[Event] = []
    if endpoint.failures >= FAILING_AFTER and not endpoint.failing:
        endpoint = replace(endpoint, failing=True)
        events.append(_about(endpoint, "endpoint.failing", outcome.error, env))
    reason = _reason_to_disable(endpoint, now, gone=gone)
    if reason is None:
        return Change(endpoints=(endpoint,), events=tuple(events))
    endpoint = disable(endpoint, reason, env)
    events.append(_about(endpoint, "endpoint.disabled", outcome.error, env))
    return Change(endpoints=(endpoint,), events=tuple(events), holds=(endpoint.id,))


def _reason_to_disable(endpoint: Endpoint, now: datetime, *, gone: bool) -> str | None:
    """None too when it is disabled already."""
    if not endpoint.enabled:
        return None
    if gone:
        return "it answered 410 Gone"
    if endpoint.first_failed_at and now - endpoint.first_failed_at >= timedelta(days=DISABLE_AFTER_DAYS):
        return f"no success for {DISABLE_AFTER_DAYS} days"
    return None


def _healthy(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, failures=0, failing=False, first_failed_at=None, last_failed_at=None)


def _about(endpoint: Endpoint, kind: EventType, last_error: str | None, env: Env) -> Event:
    facts = view_endpoint_facts(endpoint, last_error)
    return Event(
        id=env.new_id("event"), type=kind, at=env.now(), data=msgspec.json.encode(facts), subject_id=endpoint.id
    )


def _with_health(change: Change, health: Change) -> Change:
    return replace(change, endpoints=health.endpoints, events=health.events, holds=health.holds)
