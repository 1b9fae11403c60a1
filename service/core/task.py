"""The task: one job for one provider, its states and the ways it can end."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from service.core.account import DEFAULT, account_key
from service.core.trace import TraceContext

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]
"""What the outside sees.

queued     stored, not accepted by the provider yet
running    accepted by the provider, or held open by one that answers with the result
succeeded  final: the result is there
failed     final: `error` says why
canceled   final: the caller no longer wants it; the provider may still finish and charge it
"""

Step = Literal["submit", "sending", "unconfirmed", "tracking", "parked", "done"]
"""What the worker does with it next.

submit       send it when it is due and the account has room
sending      a submit is in flight; found again after its lease, its outcome is unknown
unconfirmed  the provider may have it: a callback or the deadline decides
tracking     accepted: poll it when it is due
parked       working on it failed again and again by a mistake of ours: it waits for a retry by hand
done         final, never due again
"""

Via = Literal["callback", "poll", "submit", "deadline", "cancel"]

ProviderCancel = Literal["pending", "accepted", "too_late", "unsupported", "failed"]
"""The cancel of a task at its provider; None if it was never submitted.

pending      the provider has yet to be asked
accepted     the provider stopped it
too_late     the provider had finished it
unsupported  the provider's API has no cancel
failed       the provider could not be asked
"""

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
"""Why a task failed.

invalid_request       the provider refused the input
content_policy        the provider's moderation refused prompt, input picture or result
authentication        the provider refused our key
insufficient_credits  the account has no credits left
rate_limited          throttled until the deadline
provider_error        the provider said that it failed
provider_unavailable  no submit reached the provider before the deadline
submit_unconfirmed    the submit's outcome never became known; it may have been charged
timeout               accepted, but not finished by the deadline
expired_result        the provider no longer knows the task
"""

FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "canceled"})
STATUSES: tuple[Status, ...] = get_args(Status)
ERROR_CODES: tuple[ErrorCode, ...] = get_args(ErrorCode)

PROMPT_MAX = 20_000
URL_MAX = 2_083

Url = Annotated[str, Meta(max_length=URL_MAX, pattern=r"^https?://[^\s]+$")]
Label = Annotated[str, Meta(min_length=1, max_length=64)]
Word = Annotated[str, Meta(max_length=32)]
Metadata = Annotated[dict[Label, Annotated[str, Meta(max_length=512)]], Meta(max_length=50)]


class TaskInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Input of a task, in terms common to all providers; `options` go to the provider under its own names."""

    prompt: Annotated[str, Meta(min_length=1, max_length=PROMPT_MAX, description="What the picture shows.")]
    aspect_ratio: Annotated[Word | None, Meta(description="Such as `16:9`; a model takes this or `size`.")] = None
    size: Annotated[Word | None, Meta(description="Such as `1024x768`.")] = None
    n: Annotated[int, Meta(ge=1, le=100, description="How many pictures.")] = 1
    image_url: Annotated[Url | None, Meta(description="A picture to edit, where the provider can fetch it.")] = None
    output_format: Annotated[Word | None, Meta(description="Such as `png`.")] = None
    translate: Annotated[
        bool | None, Meta(description="Whether the provider translates the prompt; null is its own default.")
    ] = None
    options: Annotated[dict[Label, Any], Meta(description="The provider's own, under its own names.")] = {}


OutputKind = Literal["image", "video", "audio", "text", "model3d", "file"]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A link that an adapter found, with what the provider says of it."""

    url: str
    expires_at: str | None = None
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    original_url: str | None = None
    original_expires_at: str | None = None


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """An output: a link that expires at `expires_at`, or a text. Unknown fields are null."""

    kind: OutputKind = "image"
    url: str | None = None
    text: str | None = None
    content_type: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    expires_at: str | None = None
    original_url: str | None = None
    original_expires_at: str | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A charge in the provider's own unit, such as credits."""

    amount: float
    unit: str = "credits"


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outputs of a task. `raw` is the provider's final payload as received, without base64 content over 4 KiB."""

    outputs: tuple[Output, ...]
    cost: Cost | None = None
    raw: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why it failed; `provider_code` is the provider's word, `retryable` whether the same request may succeed later."""

    code: ErrorCode
    message: str
    provider_code: str | None = None
    retryable: bool = False


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A task with everything that a decision about it needs.

    `wait_s` is the present distance between polls, `submits` how often it was sent, `setback` why the last submit did
    not arrive, `entries` how many timeline entries it has, `lost` whether the last poll did not find it,
    `polls_without_output` how many polls said that it finished but gave no output, `lease` a number that grows with
    each claim, so that a worker whose lease expired can be told from the one that took over, `trace` the span that its
    creation was, `links` what its provider's replies said about further calls.
    """

    id: str
    provider: str
    model: str
    input: TaskInput
    metadata: dict[str, str]
    webhook_url: str | None
    on_unconfirmed: Literal["wait", "resubmit"]
    created_at: datetime
    deadline_at: datetime
    status: Status = "queued"
    step: Step = "submit"
    due_at: datetime | None = None
    lease: int = 0
    provider_task_id: str | None = None
    result: Result | None = None
    error: TaskError | None = None
    late_result: Result | None = None
    cost: float | None = None
    via: Via | None = None
    polls: int = 0
    callbacks: int = 0
    submits: int = 0
    entries: int = 0
    wait_s: float | None = None
    setback: TaskError | None = None
    lost: bool = False
    polls_without_output: int = 0
    kept: int = 0
    """Characters of bodies in its timeline."""
    provider_cancel: ProviderCancel | None = None
    links: dict[str, str] = {}
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    erased_at: datetime | None = None
    trace: TraceContext | None = None
    account: str = DEFAULT
    account_named: bool = False
    """Whether the caller named it, so that the task never moves to another one."""

    def __repr__(self) -> str:
        return f"Task(id={self.id!r}, status={self.status!r}, step={self.step!r})"

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def account_key(self) -> str:
        return account_key(self.provider, self.account)
