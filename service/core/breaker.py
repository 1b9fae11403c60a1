"""The circuit breaker of a provider account: after failures in a row its tasks wait, and one at a time probes it.

closed -> open (`OPENS_AFTER` failures in a row) -> half open (one call, the probe) -> closed, or open for longer.
"""

from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from service.core.env import Env
from service.core.observation import NotSent, Observation, Unconfirmed, Unreadable
from service.core.times import after

CallKind = Literal["submit", "poll"]
State = Literal["closed", "open", "half_open"]

OPENS_AFTER = 5
REST_FIRST_S = 5.0
REST_MAX_S = 60.0
PROBE_LEASE_S = 100.0
"""Longer than any call: a probe without a result by then died with its process."""


class AccountCall(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one call for the breaker: `answered` if the provider itself answered, also to refuse the task."""

    account: str
    kind: CallKind
    answered: bool
    accepted: bool = False
    refused: str | None = None
    """Why the provider refused the key; `key` is its fingerprint."""
    key: str = ""


class Breaker(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`submits` and `polls` count failures in a row, `since` is when it opened, `probes` counts those that failed."""

    submits: int = 0
    polls: int = 0
    since: datetime | None = None
    probe_at: datetime | None = None
    probing: bool = False
    probes: int = 0

    def state(self, now: datetime) -> State:
        if self.since is None:
            return "closed"
        return "half_open" if self.probing or self.is_due(now) else "open"

    def shuts(self, kind: CallKind) -> bool:
        """Return whether calls of this kind wait; polls continue while they are answered."""
        return self.since is not None and (kind == "submit" or self.polls > 0)

    def is_due(self, now: datetime) -> bool:
        """Return whether one call may probe the account."""
        if self.probe_at is None:
            return False
        clock_was_ahead = self.probe_at > after(now, PROBE_LEASE_S + REST_MAX_S)
        return clock_was_ahead or self.probe_at <= now


def is_answer(observation: Observation, status: int | None) -> bool:
    """Return whether the provider itself answered; `status` is None without a response.

    A refused task is an answer, and so is a rate limit, which has its own pause.
    """
    if status is None or status >= 500 or isinstance(observation, NotSent | Unconfirmed):
        return False
    return not isinstance(observation, Unreadable) or 400 <= status < 500


def after_calls(breaker: Breaker, calls: list[AccountCall], env: Env) -> Breaker:
    for call in calls:
        breaker = _answered(breaker, call.kind, env) if call.answered else _failed(breaker, call.kind, env)
    return breaker


def probe(breaker: Breaker, env: Env) -> Breaker:
    """Start a probe; no other call uses the account until it has ended."""
    return replace(breaker, probing=True, probe_at=after(env.now(), PROBE_LEASE_S))


def _answered(breaker: Breaker, kind: CallKind, env: Env) -> Breaker:
    """Record an answer. A poll does not prove that submits work, so a submit is probed next."""
    healed = replace(breaker, polls=0) if kind == "poll" else replace(breaker, submits=0, polls=0)
    if healed.since is None:
        return healed
    if healed.submits + healed.polls < OPENS_AFTER:
        return Breaker()
    return replace(healed, probing=False, probe_at=env.now()) if breaker.polls else healed


def _failed(breaker: Breaker, kind: CallKind, env: Env) -> Breaker:
    """Record a failure. A call that was sent before the breaker opened is only counted."""
    if kind == "poll":
        counted = replace(breaker, polls=breaker.polls + 1)
    else:
        counted = replace(breaker, submits=breaker.submits + 1)
    if counted.since is None:
        opens = counted.submits + counted.polls >= OPENS_AFTER
        return replace(counted, since=env.now(), probe_at=_rested(0, env)) if opens else counted
    if not counted.probing:
        return counted
    probes = counted.probes + 1
    return replace(counted, probing=False, probes=probes, probe_at=_rested(probes, env))


def _rested(probes: int, env: Env) -> datetime:
    return after(env.now(), env.jitter(min(REST_FIRST_S * 2.0 ** min(probes, 10), REST_MAX_S)))
