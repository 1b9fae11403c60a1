"""What a provider can tell us about a task, whichever way it reached us."""

import msgspec

from service.core.task import Image, TaskError


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """A submit created a task at the provider; `cost` where it says what it charged."""

    provider_task_id: str
    cost: float | None = None


class Pending(msgspec.Struct, frozen=True, kw_only=True, tag="pending"):
    """Not finished; also what every status word means that nobody documented."""

    provider_task_id: str | None = None


class Succeeded(msgspec.Struct, frozen=True, kw_only=True, tag="succeeded"):
    """Finished, with at least one output. `raw` is the payload as received, `dropped` its unusable links."""

    images: tuple[Image, ...]
    raw: msgspec.Raw
    cost: float | None = None
    provider_task_id: str | None = None
    dropped: tuple[str, ...] = ()


class NoOutput(msgspec.Struct, frozen=True, kw_only=True, tag="no_output"):
    """Reported as finished, but without an output. Some providers report success before the link is there."""

    error: TaskError
    raw: msgspec.Raw | None = None
    provider_task_id: str | None = None
    dropped: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The provider refused the submit, or the task failed there."""

    error: TaskError
    raw: msgspec.Raw | None = None
    provider_task_id: str | None = None


class Throttled(msgspec.Struct, frozen=True, kw_only=True, tag="throttled"):
    """Refused for the rate: nothing was started, and the whole account should pause that long."""

    reason: str
    retry_after_s: float | None = None


class NotSent(msgspec.Struct, frozen=True, kw_only=True, tag="not_sent"):
    """Surely nothing was started there: no connection, 503, maintenance."""

    reason: str
    retry_after_s: float | None = None


class Unconfirmed(msgspec.Struct, frozen=True, kw_only=True, tag="unconfirmed"):
    """Bytes left and no readable answer came: it may have been started and charged."""

    reason: str


class NotFound(msgspec.Struct, frozen=True, kw_only=True, tag="not_found"):
    """The provider does not know the task: not yet, or no longer."""

    reason: str


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, tag="unreadable"):
    """An answer that tells nothing about the task: an error page, another shape, a refused poll.

    With `retry_after_s` it asks to be left alone that long; a callback may name its task all the same.
    """

    reason: str
    retry_after_s: float | None = None
    provider_task_id: str | None = None


class Unverified(msgspec.Struct, frozen=True, kw_only=True, tag="unverified"):
    """A callback whose vendor signature is missing, wrong, or too old."""

    reason: str


Observation = (
    Accepted
    | Pending
    | Succeeded
    | NoOutput
    | Failed
    | Throttled
    | NotSent
    | Unconfirmed
    | NotFound
    | Unreadable
    | Unverified
)


def tag_of(observation: Observation) -> str:
    """Its word in the timeline."""
    return str(observation.__struct_config__.tag)
