"""An event: an immutable fact for subscribers, and its two renderings."""

from datetime import datetime
from typing import Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from service.core.account import DEFAULT
from service.core.times import rfc3339

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
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
OPT_IN: frozenset[EventType] = frozenset({"task.running", "task.late_result"})
"""Types that no wildcard stands for."""
UNASKED: frozenset[EventType] = frozenset({"task.running"})
"""Types that are stored only when an endpoint asks for them."""
SEQUENCE_DIGITS = 20
"""The length of a CloudEvent's `sequence`: room for any number of 64 bits."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable fact. `data` is its JSON, encoded once.

    `subject_id` is the endpoint it is about, `audience_id` the only endpoint it is for.
    """

    id: str
    type: EventType
    at: datetime
    data: bytes
    task_id: str | None = None
    provider: str | None = None
    model: str | None = None
    account: str = DEFAULT
    metadata: dict[str, str] = {}
    webhook_url: str | None = None
    subject_id: str | None = None
    audience_id: str | None = None


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an event as subscribers get it; `sequence` grows in the order of the event stream."""

    id: str
    type: EventType
    timestamp: str
    sequence: int
    data: msgspec.Raw


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The same fact in structured CloudEvents 1.0.

    `sequence` is an extension attribute: a string that sorts as the numbers do. `subject` is the task, if there is one.
    """

    specversion: str = "1.0"
    id: str
    source: str
    type: EventType
    time: str
    subject: str | UnsetType = UNSET
    sequence: str
    datacontenttype: str = "application/json"
    data: msgspec.Raw


def render_body(event: Event, sequence: int) -> bytes:
    return msgspec.json.encode(
        Envelope(
            id=event.id, type=event.type, timestamp=rfc3339(event.at), sequence=sequence, data=msgspec.Raw(event.data)
        )
    )


def render_cloudevent(body: bytes, source: str, subject: str | None) -> bytes:
    """Return the CloudEvents form of a body made by `render_body`. No attribute is ever null: CloudEvents 1.0, 3."""
    envelope = msgspec.json.decode(body, type=Envelope)
    return msgspec.json.encode(
        CloudEvent(
            id=envelope.id,
            source=source,
            type=envelope.type,
            time=envelope.timestamp,
            subject=UNSET if subject is None else subject,
            sequence=f"{envelope.sequence:0{SEQUENCE_DIGITS}}",
            data=envelope.data,
        )
    )
