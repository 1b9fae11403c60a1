"""Subscribers: endpoints, the deliveries of events to them, and the attempts of each."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from service.core.env import Env
from service.core.event import OPT_IN, Event, EventType, render_cloudevent
from service.core.task import Metadata

Format = Literal["standard", "cloudevents"]
DeliveryStatus = Literal["pending", "sending", "succeeded", "failed", "held", "parked"]
"""What becomes of one event for one endpoint.

pending    due at its time; once it has failed, `recover` sends it at once
sending    an attempt is in flight
succeeded  final: a 2xx came
failed     final: the schedule is used up, or the subscriber said that it is gone
held       its endpoint is disabled; `recover` sends it
parked     sending it failed again and again by a mistake of ours; a retry by hand sends it
"""

MEDIA_TYPES: dict[Format, str] = {"standard": "application/json", "cloudevents": "application/cloudevents+json"}
WEBHOOK_MAX_IN_FLIGHT = 10
ATTEMPT_S = 15.0
"""Time for one attempt, unless the endpoint sets another."""
FAILING_AFTER = 4
DISABLE_AFTER_DAYS = 5


class EndpointFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects events by the task they are about; an empty field selects all.

    A model is `provider/model`, or a bare name at any provider. A task must have each pair of `metadata`.
    """

    providers: Annotated[tuple[str, ...], Meta(max_length=50)] = ()
    models: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=100)] = ()
    accounts: Annotated[
        tuple[Annotated[str, Meta(max_length=64, pattern="^[a-z][a-z0-9]*(-[a-z0-9]+)*$")], ...], Meta(max_length=50)
    ] = ()
    metadata: Metadata = {}

    def selects(self, event: Event) -> bool:
        """Return whether the event passes; one about no task passes all but `providers`."""
        if self.providers and event.provider is not None and event.provider not in self.providers:
            return False
        if event.task_id is None:
            return True
        names = (event.model, f"{event.provider}/{event.model}")
        return (
            (not self.models or any(name in self.models for name in names))
            and (not self.accounts or event.account in self.accounts)
            and self.metadata.items() <= event.metadata.items()
        )


class OldSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that a rotation replaced, and until when it still signs."""

    secret: str
    until: datetime

    def __repr__(self) -> str:
        return f"OldSecret(until={self.until})"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber. `failures` counts those in a row, `first_failed_at` is the oldest since the last success.

    `metadata` is its owner's annotation; `retry_schedule_s` replaces the schedule of the service.
    `old_secret` is the one before the present, in the form that replicas of an older version read and write too;
    `older_secrets` came before it, newest first.
    """

    id: str
    url: str
    secret: str
    created_at: datetime
    events: tuple[str, ...] = ("task.*",)
    filter: EndpointFilter = EndpointFilter()
    metadata: dict[str, str] = {}
    format: Format = "standard"
    headers: dict[str, str] = {}
    max_in_flight: int = 10
    rate_per_s: float | None = None
    timeout_s: float = ATTEMPT_S
    retry_schedule_s: tuple[float, ...] | None = None
    description: str = ""
    enabled: bool = True
    disabled_reason: str | None = None
    disabled_at: datetime | None = None
    old_secret: str | None = None
    old_secret_until: datetime | None = None
    older_secrets: tuple[OldSecret, ...] = ()
    failures: int = 0
    failing: bool = False
    first_failed_at: datetime | None = None
    last_failed_at: datetime | None = None
    deleted_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Endpoint(id={self.id!r}, enabled={self.enabled})"

    def secrets_at(self, now: datetime) -> tuple[str, ...]:
        """The secrets that sign now, newest first."""
        return (self.secret, *(old.secret for old in self.old_secrets_at(now)))

    def old_secrets_at(self, now: datetime) -> tuple[OldSecret, ...]:
        """Return the replaced secrets that still sign, newest first."""
        old = self.older_secrets
        if self.old_secret and self.old_secret_until:
            old = (OldSecret(secret=self.old_secret, until=self.old_secret_until), *old)
        return tuple(one for one in old if now < one.until)


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """The status that a delivery returns to if a manual attempt fails."""

    status: DeliveryStatus
    due_at: datetime | None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """An event for one endpoint, or for a task's own `url`.

    `lane` groups what shares limits: the endpoint, or the url without its query. `failures` is the position in the
    schedule, `attempts` counts all, `lease` grows with each claim.
    """

    id: str
    event_id: str
    event_type: EventType
    task_id: str | None
    endpoint_id: str | None
    url: str | None
    lane: str
    status: DeliveryStatus
    due_at: datetime | None
    created_at: datetime
    finished_at: datetime | None = None
    lease: int = 0
    attempts: int = 0
    failures: int = 0
    resume: Resume | None = None

    def __repr__(self) -> str:
        return f"Delivery(id={self.id!r}, status={self.status!r})"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt: the answer, or why there was none. `excerpt` is the first KiB of the answer."""

    delivery_id: str
    number: int
    at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None
    location: str | None
    excerpt: str


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Events held for an endpoint until `recover`, and since when."""

    count: int = 0
    since: datetime | None = None


def matches(endpoint: Endpoint, event: Event) -> bool:
    """Whether the endpoint's filters let the event through."""
    if event.audience_id is not None:
        return endpoint.id == event.audience_id
    return (
        endpoint.deleted_at is None
        and endpoint.id != event.subject_id
        and wants(endpoint, event.type)
        and endpoint.filter.selects(event)
    )


def wants(endpoint: Endpoint, event_type: EventType) -> bool:
    """By name, or by a wildcard such as `task.*`, which leaves out the types that have to be asked for."""
    if event_type in endpoint.events:
        return True
    return event_type not in OPT_IN and f"{event_type.split('.')[0]}.*" in endpoint.events


def fan_out(event: Event, endpoints: Iterable[Endpoint], env: Env) -> Iterator[Delivery]:
    """Return a delivery for each matching endpoint and for the task's own URL; held if the endpoint is disabled."""
    for endpoint in endpoints:
        if matches(endpoint, event):
            can_go = endpoint.enabled or event.audience_id is not None
            yield _delivery(event, env, endpoint_id=endpoint.id, url=None, lane=endpoint.id, can_go=can_go)
    if event.webhook_url is not None:
        lane = "url:{0.scheme}://{0.netloc}{0.path}".format(urlsplit(event.webhook_url))
        yield _delivery(event, env, endpoint_id=None, url=event.webhook_url, lane=lane, can_go=True)


def _delivery(event: Event, env: Env, *, endpoint_id: str | None, url: str | None, lane: str, can_go: bool) -> Delivery:
    return Delivery(
        id=env.new_id("delivery"),
        event_id=event.id,
        event_type=event.type,
        task_id=event.task_id,
        endpoint_id=endpoint_id,
        url=url,
        lane=lane,
        status="pending" if can_go else "held",
        due_at=event.at if can_go else None,
        created_at=event.at,
        resume=None if event.audience_id is None else Resume(status="failed", due_at=None),
    )


def render_for(form: Format, body: bytes, source: str, subject: str | None) -> bytes:
    """The stored body of an event as subscribers of this format get it: the same bytes at every attempt."""
    return body if form == "standard" else render_cloudevent(body, source, subject)
