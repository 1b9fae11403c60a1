"""Dependencies of the routes, in groups; app.py makes them once."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from service.core.env import Env
from service.core.tokens import CallbackTokens
from service.outbound.guard import Guard
from service.providers.base import Access
from service.store.bus import Bus
from service.store.ended_sessions import EndedSessions
from service.store.keys import KeyStore
from service.store.reads import Reads
from service.store.vault import Vault
from service.store.writer import Writer
from service.telemetry import Metrics
from service.telemetry.tracing import OFF, Tracing
from service.web.auth import KeyRing
from service.web.shares import Shares
from service.web.slots import Slots
from service.web.tail import Tail
from service.web.tickets import Tickets

STREAM_MAX = 1_000
WAITS_MAX = 10_000
PAGES_MAX = 1_000
REQUESTS_MAX = 1_000
SLOW_BODIES_BYTES = 32 << 20
"""Bytes of all request bodies that are not complete yet."""


class Store(msgspec.Struct, frozen=True, kw_only=True):
    """Write, read, and hear of what was written."""

    writer: Writer
    reads: Reads
    keys: KeyStore
    ended_sessions: EndedSessions
    bus: Bus


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Security: API keys of callers, tokens of providers, the URL guard, and encryption at rest.

    `new_secret` makes a `whsec_...`, `new_key` a `tk_live_...`.
    """

    api_keys: tuple[str, ...]
    tokens: CallbackTokens
    guard: Guard
    vault: Vault
    new_secret: Callable[[], str]
    new_key: Callable[[], str]
    secret_keys: tuple[str, ...]
    """Sign tickets: the first signs, all of them verify."""

    def __repr__(self) -> str:
        return "Trust()"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """The process around the routes; `worker_alive` tells of a worker in this process, None when none belongs here.

    `source` is what events in the format of CloudEvents name as theirs. `public_url` is where callers reach
    it, if known.
    """

    metrics: Metrics
    stopping: asyncio.Event
    worker_alive: Callable[[], bool] | None = None
    source: str = "taskhook"
    public_url: str | None = None
    tracing: Tracing = OFF
    stream_max: int = STREAM_MAX
    cors_origins: frozenset[str] = frozenset()
    requests_max: int = REQUESTS_MAX


class WebContext(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. `providers` holds every provider of the registry, in its order, configured or not."""

    env: Env
    store: Store
    providers: Mapping[str, Access]
    trust: Trust
    running: Running


class Web:
    """The context as the routes get it, with what they share beyond one request."""

    def __init__(self, context: WebContext) -> None:
        self.env = context.env
        self.store = context.store
        self.providers = context.providers
        self.trust = context.trust
        self.running = context.running
        self.keys = KeyRing(context.trust.api_keys, context.store.keys, context.env, context.running.metrics)
        self.tickets = Tickets(context.trust.secret_keys, self.keys, context.env)
        self.tail = Tail(context.store.reads, context.store.bus)
        self.gauges_until = 0.0
        self.last_chosen: dict[str, str] = {}
        """By provider, the account that the last task without one got."""
        self.requests = Slots(context.running.requests_max, "requests")
        self.slow_bodies = Shares(SLOW_BODIES_BYTES)
        self.waits = Slots(WAITS_MAX, "waiting requests")
        self.pages = Slots(PAGES_MAX, "open pages")
