"""Events, typed by what they are about: `match` on the class, then on `type`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from taskhook._decode import DecodeError, Model, decode
from taskhook.models import EndpointFacts, EventType, Task


@dataclass(frozen=True, kw_only=True)
class BaseEvent(Model):
    """A fact. `id` is the same on every attempt to deliver it; `sequence` grows in the order of the event stream."""

    id: str
    type: EventType
    timestamp: datetime
    sequence: int


@dataclass(frozen=True, kw_only=True)
class TaskEvent(BaseEvent):
    """About a task: `task.*`."""

    data: Task


@dataclass(frozen=True, kw_only=True)
class EndpointEvent(BaseEvent):
    """About an endpoint: `endpoint.*`, and `taskhook.ping` that tries one."""

    data: EndpointFacts


@dataclass(frozen=True, kw_only=True)
class OtherEvent(BaseEvent):
    """Of a type that this version does not know."""

    data: Any


Event = TaskEvent | EndpointEvent | OtherEvent


def decode_event(value: object) -> Event:
    """An event in its own form, or as a CloudEvent. Raises DecodeError."""
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise DecodeError("an event is a JSON object with a type")
    standard = _from_cloudevent(value) if "specversion" in value else value
    kind: str = value["type"]
    if kind.startswith("task."):
        return decode(TaskEvent, standard)
    if kind.startswith("endpoint.") or kind == "taskhook.ping":
        return decode(EndpointEvent, standard)
    return decode(OtherEvent, standard)


def _from_cloudevent(value: Mapping[str, Any]) -> dict[str, Any]:
    sequence = value.get("sequence")
    return {
        **value,
        "timestamp": value.get("time"),
        "sequence": int(sequence) if isinstance(sequence, str) and sequence.isdecimal() else sequence,
    }
