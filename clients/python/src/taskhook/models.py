"""Answers of the service as typed values; `to_dict()` includes fields that a newer service added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self, TypedDict

from taskhook._decode import Model
from taskhook.errors import TaskFailedError

TaskStatus = Literal["queued", "running", "succeeded", "failed", "canceled"]
FINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled"})
OutputKind = Literal["image", "video", "audio", "text", "model3d", "file"]

Via = Literal["callback", "poll", "submit", "deadline", "cancel"]
OnUnconfirmed = Literal["wait", "resubmit"]
ErrorCode = Literal[
    "invalid_request",
    "content_policy",
    "authentication",
    "insufficient_credits",
    "rate_limited",
    "provider_error",
    "provider_unavailable",
    "submit_unconfirmed",
    "timeout",
    "expired_result",
]
EventType = Literal[
    "task.succeeded",
    "task.failed",
    "task.canceled",
    "task.running",
    "task.late_result",
    "endpoint.failing",
    "endpoint.recovered",
    "endpoint.disabled",
    "taskhook.ping",
]
EventPattern = Literal[
    "task.*",
    "task.succeeded",
    "task.failed",
    "task.canceled",
    "task.running",
    "task.late_result",
    "endpoint.*",
    "endpoint.failing",
    "endpoint.recovered",
    "endpoint.disabled",
]
Format = Literal["standard", "cloudevents"]
DeliveryStatus = Literal["pending", "sending", "succeeded", "failed", "held", "parked"]
Scope = Literal["tasks:write", "tasks:read", "endpoints", "admin"]


@dataclass(frozen=True, kw_only=True)
class TaskInput(Model):
    """Input of a task; empty after the task was erased."""

    prompt: str = ""
    aspect_ratio: str | None = None
    size: str | None = None
    n: int = 1
    image_url: str | None = None
    output_format: str | None = None
    translate: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Output(Model):
    """An output: a link to fetch before `expires_at`, or a text."""

    kind: OutputKind = "image"
    url: str | None = None
    text: str | None = None
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    expires_at: datetime | None = None
    original_url: str | None = None
    original_expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Cost(Model):
    """A charge in the provider's own unit, such as credits."""

    amount: float
    unit: str = "credits"


@dataclass(frozen=True, kw_only=True)
class Result(Model):
    """The outputs of a task; `raw` is the provider's final payload."""

    outputs: list[Output]
    cost: Cost | None = None
    raw: Any = None


@dataclass(frozen=True, kw_only=True)
class TaskError(Model):
    """Why a task failed; `retryable` is whether the same request may succeed later."""

    code: ErrorCode
    message: str
    provider_code: str | None = None
    retryable: bool = False


@dataclass(frozen=True, kw_only=True)
class Tracking(Model):
    """How the task was tracked: `via` is what ended it, None before. `progress` runs from 0 to 1."""

    via: Via | None
    polls: int
    callbacks: int
    progress: float | None = None
    queue_position: int | None = None
    provider_cancel: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task(Model):
    """A job at a provider. `late_result` is a result that arrived after the final state."""

    id: str
    object: Literal["task"] = "task"
    status: TaskStatus
    provider: str
    account: str = "default"
    model: str
    provider_task_id: str | None
    input: TaskInput
    metadata: dict[str, str]
    result: Result | None
    error: TaskError | None
    late_result: Result | None = None
    tracking: Tracking
    created_at: datetime
    submitted_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    erased_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def outputs(self) -> list[Output]:
        """The outputs of the result; empty if there is none."""
        return self.result.outputs if self.result else []

    def raise_for_status(self) -> Self:
        """The task itself, unless it failed or was canceled: then TaskFailedError."""
        if self.status in FINAL - {"succeeded"}:
            raise TaskFailedError(self)
        return self


@dataclass(frozen=True, kw_only=True)
class TimelineItem(Model):
    """An entry of a task's timeline; the fields of `detail` depend on the type."""

    at: datetime
    type: str
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Why(Model):
    """Why the task is in its state, what happens next and when, and what you can do: a sentence each."""

    status: TaskStatus
    why: str
    next: str
    you_can: str


class FilterParams(TypedDict, total=False):
    """Fields of an endpoint's filter; an omitted field selects all."""

    providers: Sequence[str]
    models: Sequence[str]
    accounts: Sequence[str]
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class EndpointFilter(Model):
    """The events that an endpoint gets: those about tasks that match each field; an empty field matches all."""

    providers: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EndpointAuth(Model):
    """How the service authenticates at the endpoint, beyond the endpoint's `headers`."""

    type: str = "none"


@dataclass(frozen=True, kw_only=True)
class Endpoint(Model):
    """A subscriber. `secret` is there at creation and rotation alone; `held` counts what waits for `recover`.

    `filter` selects its events; `metadata` is your own annotation and filters nothing.
    """

    id: str
    object: Literal["endpoint"] = "endpoint"
    type: str = "webhook"
    url: str
    config: dict[str, Any] = field(default_factory=dict)
    auth: EndpointAuth = field(default_factory=EndpointAuth)
    events: list[str]
    filter: EndpointFilter = field(default_factory=EndpointFilter)
    format: Format
    headers: dict[str, str]
    max_in_flight: int
    rate_per_s: float | None
    timeout_s: float = 15.0
    retry_schedule_s: list[float] | None = None
    description: str
    metadata: dict[str, str]
    enabled: bool
    failing: bool
    disabled_reason: str | None
    disabled_at: datetime | None
    held: int
    held_since: datetime | None
    created_at: datetime
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class EndpointFacts(Model):
    """The data of an event about an endpoint."""

    id: str
    object: Literal["endpoint"] = "endpoint"
    url: str
    enabled: bool
    failures: int
    first_failed_at: datetime | None
    disabled_reason: str | None
    last_error: str | None


@dataclass(frozen=True, kw_only=True)
class Recovered(Model):
    """How many events were queued again, or would be."""

    events: int
    dry_run: bool


@dataclass(frozen=True, kw_only=True)
class Retried(Model):
    """How many deliveries were queued, or would be. `has_more`: repeat the request for the rest."""

    deliveries: int
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class Attempt(Model):
    """A delivery attempt; `error` says why it does not count as received, `response` is the answer's beginning."""

    number: int
    at: datetime
    status_code: int | None
    duration_ms: int
    error: str | None
    location: str | None
    response: str


@dataclass(frozen=True, kw_only=True)
class Delivery(Model):
    """An event for one endpoint; `url` is the task's own URL if there is no endpoint."""

    id: str
    object: Literal["delivery"] = "delivery"
    event_id: str
    event_type: EventType
    task_id: str | None
    endpoint_id: str | None
    url: str | None
    status: DeliveryStatus
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    attempts: list[Attempt]


@dataclass(frozen=True, kw_only=True)
class Option(Model):
    """An option under the provider's own name, with what it allows; `maximum_edit` where edits allow less."""

    name: str
    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    maximum_edit: float | None = None
    choices: list[str] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class PixelRange(Model):
    """Sizes given as WIDTHxHEIGHT: the bounds of each side in pixels, and what it is a multiple of."""

    minimum: int
    maximum: int | None
    multiple: int


@dataclass(frozen=True, kw_only=True)
class ImageModel(Model):
    """A model with its limits; an empty limit means that the provider has no such parameter for it."""

    name: str
    aspect_ratios: list[str] = field(default_factory=list)
    sizes: list[str] = field(default_factory=list)
    pixels: PixelRange | None = None
    max_images: int = 1
    max_images_edit: int = 1
    edits: bool = False
    output_formats: list[str] = field(default_factory=list)
    translates: bool = False
    requires: list[str] = field(default_factory=list)
    accepts: list[str] | None = None
    options: list[Option] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Limits(Model):
    """Limits of an account: `submits` in any `window_s`, and tasks in flight."""

    submits: int
    window_s: float
    max_in_flight: int


@dataclass(frozen=True, kw_only=True)
class Circuit(Model):
    """Whether the provider answers: after `failures` in a row its tasks wait, and one at a time tries it again."""

    state: Literal["closed", "half_open", "open"]
    failures: int
    since: datetime | None
    next_probe_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Account(Model):
    """An account of a provider: `submitted` tasks in its window, and those in flight and waiting."""

    id: str
    state: Literal["ready", "paused", "circuit_open", "disabled"]
    disabled_at: datetime | None
    disabled_reason: str | None
    paused_until: datetime | None
    circuit: Circuit
    limits: Limits
    submitted: int
    in_flight: int
    waiting: int


@dataclass(frozen=True, kw_only=True)
class Provider(Model):
    """An upstream API: what it can do, and whether it can be used here."""

    id: str
    configured: bool
    setting: str
    healthy: bool | None
    paused_until: datetime | None
    circuit: Circuit
    callbacks: bool
    polling: bool
    blocking: bool
    confirms_callbacks: bool
    result_life_s: float | None
    limits: Limits
    accounts: list[Account]
    models: list[ImageModel]


@dataclass(frozen=True, kw_only=True)
class Key(Model):
    """An API key. `key` is there at its creation alone, `hint` is its beginning."""

    id: str
    object: Literal["key"] = "key"
    name: str
    scopes: list[Scope]
    hint: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Fault(Model):
    """A row that an internal error of the service quarantined; a parked one is not retried."""

    id: str
    kind: Literal["task", "delivery", "endpoint"]
    failures: int
    reason: str
    first_at: datetime
    last_at: datetime
    parked_at: datetime | None
