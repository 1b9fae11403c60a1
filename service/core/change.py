"""A change: the new values that one decision wants written, all of them in one transaction."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from service.core.breaker import AccountCall
from service.core.delivery import Attempt, Delivery, Endpoint
from service.core.event import Event
from service.core.task import Task

Outcome = Literal["moved", "noted", "duplicate", "late", "mismatch", "unreadable", "hint", "stale", "replayed"]
"""What a decision came to.

moved       the thing changed
noted       written down, nothing else
duplicate   the same again, or about a task that is final
late        a result after the end: kept and published
mismatch    about another task of the provider
unreadable  could not be read
hint        taken as a reason to poll now
stale       from a worker whose lease is over
replayed    the answer to the same request, given before
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a task's timeline; `number` counts from 1 in each task."""

    task_id: str
    number: int
    at: datetime
    type: str
    detail: dict[str, Any]


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """The whole account of a provider rests until then."""

    provider: str
    until: datetime


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered: the same key with the same fingerprint gets the same task."""

    key: str
    fingerprint: str
    task_id: str
    created_at: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """New values; `holds` names endpoints whose pending deliveries are to be held."""

    outcome: Outcome = "moved"
    tasks: tuple[Task, ...] = ()
    events: tuple[Event, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    holds: tuple[str, ...] = ()
    pauses: tuple[Pause, ...] = ()
    calls: tuple[AccountCall, ...] = ()
    timeline: tuple[Entry, ...] = ()
    idempotency: tuple[IdempotencyKey, ...] = ()
