"""Settings become objects: every part of the service is made here, and given what it needs."""

import asyncio
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from functools import partial
from threading import Lock
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from service.core import signing
from service.core.account import DEFAULT, KEY, WEBHOOK_SECRET, Account
from service.core.env import Env
from service.core.ids import prefixed_uuid7
from service.core.keys import RANDOM_BITS, render_key
from service.core.problems import Unavailable
from service.core.schedule import Policy
from service.core.task import Task
from service.core.times import from_ms, to_ms
from service.core.tokens import CallbackTokens
from service.dashboard.routes import build_pages
from service.dashboard.sessions import OneTimeCode, Sessions
from service.dashboard.site import Site
from service.outbound.client import Poster, ProviderClient
from service.outbound.guard import Guard
from service.outbound.resolver import Resolver
from service.providers.base import POLL_TIMEOUT_S, Access, Provider
from service.settings import Settings
from service.store.accounts import enable_with_other_keys
from service.store.bus import DELIVERIES, Bus, tasks_of
from service.store.driver import Driver
from service.store.ended_sessions import EndedSessions
from service.store.keys import KeyStore
from service.store.migrate import migrate
from service.store.postgres_url import hide_secrets
from service.store.reads import Reads
from service.store.vault import Vault
from service.store.writer import Writer
from service.telemetry import Metrics
from service.telemetry.switch import start_tracing
from service.telemetry.tracing import Tracing
from service.web.context import Running, Store, Trust, Web, WebContext
from service.web.routes import PROBES, build_app
from service.web.slots import Limited, Slots
from service.worker.deliveries import AT_ONCE as DELIVERIES_AT_ONCE
from service.worker.deliveries import DeliveryWork
from service.worker.loop import LOOK_AGAIN_S, Lane, Work
from service.worker.tasks import FROZEN_S, CallbackUrls, TaskWork

log = structlog.get_logger()

CALLS_AT_ONCE = 100


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class RealEnv:
    """The clock, ids that sort by creation in this process, and jitter."""

    def __init__(self, now_ms: Callable[[], int] = now_ms) -> None:
        self._now_ms = now_ms
        self._last = (0, 0)
        self._random = _random_73_bits()
        self._making = Lock()

    def now(self) -> datetime:
        return from_ms(self._now_ms())

    def monotonic(self) -> float:
        return time.monotonic()

    def new_id(self, prefix: str) -> str:
        with self._making:  # the thread of SQLite decides, too
            ms, bits = self._now_ms(), next(self._random)
            last_ms, last_bits = self._last
            if ms <= last_ms:  # the same millisecond, or a clock set back
                ms, bits = last_ms, last_bits + 1 + (bits & 0xFFFF)
            self._last = (ms, bits)
        return prefixed_uuid7(prefix, ms, bits)

    def jitter(self, seconds: float) -> float:
        return seconds * random.uniform(0.9, 1.1)  # noqa: S311 (spreads load, protects nothing)


class Timings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Times of the process that no setting names; tests give others.

    A stop gives the work `work_grace_s`, longer than an attempt to deliver, and ends after `stop_s` whatever happens,
    below the 25 s that platforms give. `lock_wait_s` is how long SQLite waits for another process.
    """

    web_grace_s: int = 8
    work_grace_s: float = 18.0
    stop_s: float = 24.0
    look_again_s: float = LOOK_AGAIN_S
    lock_wait_s: float = 5.0


def build_driver(url: str, timings: Timings = Timings()) -> Driver:
    """Of the two databases only the one that is used is loaded."""
    if url.startswith("sqlite:"):
        from service.store.sqlite import SqliteDriver, SqliteTimes  # noqa: PLC0415

        return SqliteDriver(url.removeprefix("sqlite:///"), SqliteTimes(lock_wait_s=timings.lock_wait_s))
    from service.store.postgres import PostgresDriver  # noqa: PLC0415

    return PostgresDriver(url)


def _random_73_bits() -> Iterator[int]:
    """The system's randomness, asked for in larger portions: the asking costs more than the bits."""
    while True:
        portion = os.urandom(10 * 256)
        for start in range(0, len(portion), 10):
            yield int.from_bytes(portion[start : start + 10]) >> 7


@asynccontextmanager
async def open_store(settings: Settings, timings: Timings = Timings()) -> AsyncIterator[Driver]:
    """Raises Unavailable that names the setting, without the password."""
    driver = build_driver(settings.database_url, timings)
    with _naming_the_database(settings):
        await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


async def migrate_store(settings: Settings, driver: Driver, now: datetime) -> list[str]:
    """The names of the migrations applied. Raises Unavailable that names the setting."""
    with _naming_the_database(settings):
        return await migrate(driver, to_ms(now))


@contextmanager
def _naming_the_database(settings: Settings) -> Iterator[None]:
    try:
        yield
    except Unavailable as problem:
        where = f"TASKHOOK_DATABASE_URL, {hide_secrets(settings.database_url)}"
        raise Unavailable(f"{where}: {problem.detail}", cause=problem.cause) from problem


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Shared by web and worker in a process."""

    settings: Settings
    timings: Timings
    env: Env
    metrics: Metrics
    tracing: Tracing
    driver: Driver
    writer: Writer
    bus: Bus
    providers: dict[str, Access]
    tokens: CallbackTokens
    guard: Guard
    vault: Vault
    own_url: str


async def assemble(settings: Settings, timings: Timings, env: Env, own_url: str, stack: AsyncExitStack) -> Parts:
    providers = _build_providers(settings, own_url)
    accounts = [(name, account) for name, access in providers.items() for account in access.accounts]
    metrics, bus = Metrics(accounts), Bus()
    tracing = start_tracing(settings.tracing, settings.otel, metrics)
    stack.push_async_callback(tracing.close)
    driver = await stack.enter_async_context(open_store(settings, timings))
    for name in await migrate_store(settings, driver, env.now()):
        log.info("store.migrated", migration=name)
    writer = Writer(driver, bus, env, partial(_tell_finished, metrics, tracing), metrics.tell_fault)
    writer.start()
    stack.push_async_callback(writer.stop)
    used = [account for access in providers.values() for account in access.accounts.values()]
    await enable_with_other_keys(writer, await Reads(driver).refusals(), used)
    own_urls = [own_url, *([settings.public_url] if settings.public_url else [])]
    return Parts(
        settings=settings,
        timings=timings,
        env=env,
        metrics=metrics,
        tracing=tracing,
        driver=driver,
        writer=writer,
        bus=bus,
        providers=providers,
        tokens=CallbackTokens(settings.secret_keys, tuple(settings.registry)),
        guard=Guard(allow_private=settings.allow_private_networks, own_urls=own_urls),
        vault=Vault(settings.secret_keys),
        own_url=own_url,
    )


def _tell_finished(metrics: Metrics, tracing: Tracing, task: Task) -> None:
    with tracing.life(task):
        metrics.record_finished(task)


def _build_providers(settings: Settings, own_url: str) -> dict[str, Access]:
    return {name: _build_access(settings, provider, own_url) for name, provider in settings.registry.items()}


def _build_access(settings: Settings, provider: Provider, own_url: str) -> Access:
    able, accounts = provider.capabilities, settings.usable_accounts(provider.id)
    if settings.sandbox and able.simulated:
        accounts = {id: _in_sandbox(settings, provider, account, own_url) for id, account in accounts.items()}
    policy = Policy(
        callbacks=able.callbacks and settings.public_url is not None,
        polling=able.polling,
        blocking=able.blocking,
        confirm=settings.confirm_callbacks,
        poll_first_s=able.poll_first_s or settings.poll_first_s,
        poll_max_s=max(able.poll_max_s or settings.poll_max_s, able.poll_first_s or settings.poll_first_s),
        grace_s=settings.callback_grace_s,
        submit_lease_s=able.submit_timeout_s + FROZEN_S + 10,
        poll_lease_s=POLL_TIMEOUT_S + FROZEN_S + 10,
    )
    return Access(provider=provider, accounts=accounts, policy=policy)


def _in_sandbox(settings: Settings, provider: Provider, account: Account, own_url: str) -> Account:
    """The simulator has one key and, for each provider, one secret that signs its callbacks."""
    path = "/v1" if provider.capabilities.base_url.endswith("/v1") else ""
    secrets = {KEY: _sandbox_key(settings)}
    if webhook_secret := settings.accounts[provider.id][DEFAULT].webhook_secret:
        secrets[WEBHOOK_SECRET] = webhook_secret
    return replace(account, base_url=f"{own_url}/sandbox/{provider.id}{path}", secrets=secrets)


def _sandbox_key(settings: Settings) -> str:
    """The simulator takes this key alone, so that nobody else can have it send callbacks."""
    return signing.derive_secret(f"sandbox {settings.secret_keys[0]}").removeprefix(signing.PREFIX)


def build_lanes(parts: Parts, stack: AsyncExitStack) -> list[Lane[Any]]:
    client, poster, url_poster = (
        ProviderClient(parts.env),
        Poster(parts.guard, resolver=Resolver()),
        Poster(parts.guard),
    )
    for one in (client, poster, url_poster):
        stack.push_async_callback(one.close)
    deliveries = _build_deliveries(parts, poster, url_poster)
    lanes = [_build_lane(parts, "deliveries", deliveries, DELIVERIES_AT_ONCE, DELIVERIES)]
    urls = CallbackUrls(parts.settings.public_url, parts.tokens)
    for access in parts.providers.values():
        for account in access.accounts.values():
            work = _build_task_work(parts, access, account, client, urls)
            lanes.append(_build_lane(parts, account.key, work, CALLS_AT_ONCE, tasks_of(account.key)))
    return lanes


def _build_lane(parts: Parts, name: str, work: Work[Any], limit: int, topic: str) -> Lane[Any]:
    writer, bus, env, metrics = parts.writer, parts.bus, parts.env, parts.metrics
    lane = Lane(
        name,
        work,
        limit=limit,
        topic=topic,
        writer=writer,
        bus=bus,
        env=env,
        metrics=metrics,
        look_again_s=parts.timings.look_again_s,
    )
    if parts.driver.is_alone:  # elsewhere others would wait for the locks of its claim
        writer.take_along(lane)
    return lane


def _build_task_work(
    parts: Parts, access: Access, account: Account, client: ProviderClient, urls: CallbackUrls
) -> TaskWork:
    return TaskWork(access, account, parts.driver, parts.writer, client, urls, parts.env, parts.metrics, parts.tracing)


def find_signing_secret(settings: Settings) -> str:
    """Return the secret (`whsec_...`) that signs events to a task's `webhook_url`: the setting, or derived."""
    return settings.signing_secret or signing.derive_secret(settings.secret_keys[0])


def _build_deliveries(parts: Parts, poster: Poster, url_poster: Poster) -> DeliveryWork:
    """Look up the names of endpoints apart: hosts of webhook_urls whose names take long would hold up theirs."""
    settings = parts.settings
    return DeliveryWork(
        parts.driver,
        parts.writer,
        poster,
        parts.env,
        parts.metrics,
        url_poster=url_poster,
        vault=parts.vault,
        signing_secret=find_signing_secret(settings),
        schedule=settings.retry_schedule,
        source=_source(settings),
        tracing=parts.tracing,
    )


def _source(settings: Settings) -> str:
    return settings.public_url or "taskhook"


def build_probes(parts: Parts, stopping: asyncio.Event, worker_alive: Callable[[], bool] | None) -> ASGIApp:
    """Build the probes of a worker that has a port and takes no requests."""
    return build_app(_build_context(parts, stopping, worker_alive), operations=PROBES)


def build_web(
    parts: Parts,
    stopping: asyncio.Event,
    worker_alive: Callable[[], bool] | None,
    stack: AsyncExitStack,
    sign_in_code: str | None = None,
) -> ASGIApp:
    """Return the HTTP side. `sign_in_code` signs in to the dashboard once, with the first API key."""
    settings, mounts = parts.settings, []
    if settings.sandbox:
        from service.sandbox.app import Sandbox  # noqa: PLC0415 - and what draws its pictures

        secrets = {name: accounts[DEFAULT].webhook_secret for name, accounts in settings.accounts.items()}
        sandbox = Sandbox(f"{parts.own_url}/sandbox", key=_sandbox_key(settings), webhook_secrets=secrets)
        stack.push_async_callback(sandbox.close)
        mounts.append(Mount("/sandbox", Limited(sandbox.app, Slots(settings.max_requests, "sandbox requests"))))
    return build_app(_build_context(parts, stopping, worker_alive), mounts, partial(_build_pages, parts, sign_in_code))


def _build_pages(parts: Parts, sign_in_code: str | None, web: Web) -> Sequence[BaseRoute]:
    """The dashboard, where it is wanted."""
    settings = parts.settings
    if not settings.dashboard:
        return ()
    site = Site(
        web,
        Sessions(settings.secret_keys),
        lambda: secrets.token_urlsafe(24),
        public_url=settings.public_url,
        sandbox=parts.own_url if settings.sandbox else None,
        code=OneTimeCode(sign_in_code, settings.api_keys[0], parts.env.monotonic) if sign_in_code else None,
    )
    return build_pages(site)


def _build_context(parts: Parts, stopping: asyncio.Event, worker_alive: Callable[[], bool] | None) -> WebContext:
    settings = parts.settings
    return WebContext(
        env=parts.env,
        store=Store(
            writer=parts.writer,
            reads=Reads(parts.driver),
            keys=KeyStore(parts.driver, parts.writer),
            ended_sessions=EndedSessions(parts.driver, parts.writer),
            bus=parts.bus,
        ),
        providers=parts.providers,
        trust=Trust(
            api_keys=settings.api_keys,
            tokens=parts.tokens,
            guard=parts.guard,
            vault=parts.vault,
            new_secret=lambda: signing.render_secret(secrets.token_bytes(32)),
            new_key=lambda: render_key(secrets.randbits(RANDOM_BITS)),
            secret_keys=settings.secret_keys,
        ),
        running=Running(
            metrics=parts.metrics,
            stopping=stopping,
            worker_alive=worker_alive,
            requests_max=settings.max_requests,
            source=_source(settings),
            public_url=settings.public_url,
            tracing=parts.tracing,
            cors_origins=frozenset(settings.cors_origins),
        ),
    )
