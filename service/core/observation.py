"""Observations: facts about a task from a provider's reply, poll or callback."""

import msgspec

from service.core.task import Image, TaskError


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """A submit created a task at the provider; `cost` where it says what it charged.

    `links` are kept with the task for later calls; `refused` names those that lead to another host.
    """

    provider_task_id: str
    cost: float | None = None
    links: dict[str, str] = {}
    refused: tuple[str, ...] = ()


class Pending(msgspec.Struct, frozen=True, kw_only=True, tag="pending"):
    """Not finished; also what every status word means that nobody documented: that is `unknown_word`."""

    provider_task_id: str | None = None
    links: dict[str, str] = {}
    unknown_word: str | None = None


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
    """An answer that says nothing about the task: an error page, another shape, a refused poll.

    With `retry_after_s` it asks to be left alone that long; a callback may name its task all the same.
    """

    reason: str
    retry_after_s: float | None = None
    provider_task_id: str | None = None


class Unverified(msgspec.Struct, frozen=True, kw_only=True, tag="unverified"):
    """A callback whose vendor signature is missing, wrong, or too old."""

    reason: str


class Hint(msgspec.Struct, frozen=True, kw_only=True, tag="hint"):
    """A callback that says to look: the result is not in it, or must not be trusted as it stands there."""

    reason: str
    provider_task_id: str | None = None
    links: dict[str, str] = {}


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """A poll that needs one more call now, named by its step; `links` are needed for it."""

    step: str
    links: dict[str, str] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """A request that is no callback: a handshake to answer with this JSON, or an event of no interest."""

    body: bytes


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
    | Hint
)


def tag_of(observation: Observation) -> str:
    """Its word in the timeline."""
    return str(observation.__struct_config__.tag)
