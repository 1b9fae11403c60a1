"""A change: the new values of one decision, written in one transaction."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from service.core.breaker import AccountCall
from service.core.delivery import Attempt, Delivery, Endpoint
from service.core.event import Event
from service.core.task import Task

Outcome = Literal["moved", "noted", "duplicate", "late", "mismatch", "unreadable", "hint", "stale", "replayed"]
"""The result of a decision.

moved       the thing changed
noted       a timeline entry only
duplicate   a repetition, or about a final task
late        a result after the end: stored and published
mismatch    about another task of the provider
unreadable  could not be read
hint        a reason to poll now
stale       from a worker whose lease expired
replayed    the stored answer to the same request
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a task's timeline; `number` counts from 1 in each task."""

    task_id: str
    number: int
    at: datetime
    type: str
    detail: dict[str, Any]


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Pause the whole account, named by its key, until then."""

    account: str
    until: datetime


class IdempotencyKey(msgspec.Struct, frozen=True, kw_only=True):
    """An answered request: the same key with the same fingerprint returns the same task."""

    key: str
    fingerprint: str
    task_id: str
    created_at: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """New values to write; `holds` names endpoints whose pending deliveries become held."""

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
