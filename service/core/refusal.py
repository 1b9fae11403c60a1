"""A refused key disables its account: nothing is submitted until the key is changed, enabled by hand, or accepted.

A task that can go to no other account tries the key again after a wait that doubles with each refusal.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec.structs import replace

from service.core.breaker import PROBE_LEASE_S, AccountCall
from service.core.env import Env
from service.core.times import after

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 600.0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the fingerprint of the refused key, `refusals` counts consecutive ones."""

    since: datetime
    reason: str
    key: str
    retry_at: datetime
    refusals: int = 1


def after_submits(refusal: Refusal | None, calls: Iterable[AccountCall], env: Env) -> Refusal | None:
    for call in calls:
        if call.refused is not None:
            refusal = _refuse(refusal, call.refused, call.key, env)
        elif call.accepted:
            refusal = None
    return refusal


def retry(refusal: Refusal, env: Env) -> Refusal:
    """Let one submit try the key; no other starts until it has ended."""
    return replace(refusal, retry_at=after(env.now(), PROBE_LEASE_S))


def _refuse(refusal: Refusal | None, reason: str, key: str, env: Env) -> Refusal:
    refusals = 1 if refusal is None or refusal.key != key else refusal.refusals + 1
    retry_at = after(env.now(), min(RETRY_FIRST_S * 2.0 ** min(refusals - 1, 10), RETRY_MAX_S))
    since = env.now() if refusal is None or refusal.key != key else refusal.since
    return Refusal(since=since, reason=reason, key=key, retry_at=retry_at, refusals=refusals)
