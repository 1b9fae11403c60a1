"""The one place that wires: settings become objects, objects become a running service, in order of start and stop."""

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
import uvloop
from msgspec.structs import replace
from starlette.routing import Mount

from service.core import signing
from service.core.env import Env
from service.core.ids import prefixed_uuid7
from service.core.problems import Unavailable
from service.core.schedule import Policy
from service.core.times import to_ms
from service.core.tokens import CallbackTokens
from service.outbound.client import Poster, ProviderClient
from service.outbound.guard import Guard
from service.providers import PROVIDERS
from service.providers.base import POLL_TIMEOUT_S, Access, Account
from service.sandbox import Sandbox
from service.settings import Settings
from service.store.bus import DELIVERIES, Bus, tasks_of
from service.store.driver import Driver
from service.store.migrate import migrate as migrate_store
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver
from service.store.writer import Writer
from service.telemetry import Metrics, set_up_logging
from service.web.context import Running, Store, Trust, WebContext
from service.web.routes import build_app
from service.worker.deliveries import DeliveryWork
from service.worker.loop import Lane, Work
from service.worker.tasks import FROZEN_S, CallbackUrls, TaskWork
from service.worker.upkeep import keep_up

log = structlog.get_logger()

WEB_GRACE_S = 8
WORK_GRACE_S = 18.0
"""Longer than an attempt to deliver, and with the rest of the stop shorter than the 25 s that platforms give."""
CALLS_AT_ONCE = 100
DELIVERIES_AT_ONCE = 256
BACKLOG = 2_048
DEV_FILE = Path("var/dev.json")


class RealEnv:
    """The clock, ids that sort by creation in this process, and jitter."""

    def __init__(self) -> None:
        self._last = (0, 0)

    def now(self) -> datetime:
        at = datetime.now(UTC)
        return at.replace(microsecond=at.microsecond // 1000 * 1000)

    def new_id(self, prefix: str) -> str:
        ms, bits = to_ms(datetime.now(UTC)), secrets.randbits(73)
        last_ms, last_bits = self._last
        if ms <= last_ms:  # the same millisecond, or a clock set back
            ms, bits = last_ms, last_bits + 1 + secrets.randbits(16)
        self._last = (ms, bits)
        return prefixed_uuid7(prefix, ms, bits)

    def jitter(self, seconds: float) -> float:
        return seconds * random.uniform(0.9, 1.1)  # noqa: S311 (spreads load, protects nothing)


# --- the commands' entry points ---------------------------------------------------------------------------------------


def run(settings: Settings, *, web: bool = True, worker: bool = True, dev: bool = False) -> int:
    """Until SIGTERM or SIGINT; the exit code."""
    set_up_logging(settings.log_level, settings.log_format)
    for name in settings.unknown:
        log.warning("settings.unknown", name=name)
    if settings.sandbox:
        settings = _with_made_up_keys(settings)
    try:
        return uvloop.run(_serve(settings, web=web, worker=worker, dev=dev))
    except Unavailable as problem:
        reason = f"{problem.detail} ({problem.cause})"
    except OSError as error:
        reason = f"{error.strerror or error} ({settings.host}:{settings.port})"
    log.critical("service.stopped", reason=reason)
    return 1


def migrate(settings: Settings) -> list[str]:
    """The names of the migrations applied."""

    async def work() -> list[str]:
        async with _open_store(settings) as driver:
            return await migrate_store(driver, to_ms(RealEnv().now()))

    return asyncio.run(work())


def _with_made_up_keys(settings: Settings) -> Settings:
    """The sandbox needs none given. They are kept beside the database, so that a restart knows its own tasks."""
    found = _read_dev_file()
    made_up = {name: found.get(name) or secrets.token_hex(24) for name in ("secret_key", "api_key")}
    return replace(
        settings,
        secret_keys=settings.secret_keys or (made_up["secret_key"],),
        api_keys=settings.api_keys or (f"tk_dev_{made_up['api_key'].removeprefix('tk_dev_')}",),
    )


def _read_dev_file() -> dict[str, str]:
    try:
        return msgspec.json.decode(DEV_FILE.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _write_dev_file(url: str, settings: Settings) -> None:
    """For `taskhook submit` and its like in the same folder; readable by its owner alone."""
    content = {"url": url, "api_key": settings.api_keys[0], "secret_key": settings.secret_keys[0]}
    try:
        DEV_FILE.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(DEV_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(content)))
    except OSError as error:
        log.warning("settings.not_kept", file=str(DEV_FILE), reason=error.strerror)


# --- the parts --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[Driver]:
    driver = SqliteDriver(settings.database_url.removeprefix("sqlite:///"))
    await driver.open()
    try:
        yield driver
    finally:
        await driver.close()


class _Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What web and worker share in one process."""

    settings: Settings
    env: Env
    metrics: Metrics
    driver: Driver
    writer: Writer
    bus: Bus
    providers: dict[str, Access]
    tokens: CallbackTokens
    guard: Guard
    own_url: str


def _build_providers(settings: Settings, own_url: str) -> dict[str, Access]:
    return {name: _build_access(settings, name, own_url) for name in PROVIDERS}


def _build_access(settings: Settings, name: str, own_url: str) -> Access:
    provider, given = PROVIDERS[name], settings.providers[name]
    able = provider.capabilities
    account = None
    if settings.sandbox:
        path = "/v1" if able.base_url.endswith("/v1") else ""
        base_url = f"{own_url}/sandbox/{name}{path}"
        account = Account(provider=name, base_url=base_url, api_key=_sandbox_key(settings), hmac_key=given.hmac_key)
    elif given.api_key:
        account = Account(provider=name, base_url=given.base_url, api_key=given.api_key, hmac_key=given.hmac_key)
    policy = Policy(
        callbacks=able.callbacks and settings.public_url is not None,
        polling=able.polling,
        blocking=able.blocking,
        confirm=settings.confirm_callbacks,
        poll_first_s=settings.poll_first_s,
        poll_max_s=max(settings.poll_max_s, settings.poll_first_s),
        grace_s=settings.callback_grace_s,
        submit_lease_s=able.submit_timeout_s + FROZEN_S + 10,
        poll_lease_s=POLL_TIMEOUT_S + FROZEN_S + 10,
    )
    return Access(provider=provider, account=account, policy=policy, limits=given.limits)


def _sandbox_key(settings: Settings) -> str:
    """The simulator takes this key alone, so that nobody else can have it send callbacks."""
    return signing.derive_secret(f"sandbox {settings.secret_keys[0]}").removeprefix(signing.PREFIX)


def _build_lanes(parts: _Parts, stack: AsyncExitStack) -> list[Lane[Any]]:
    client, poster = ProviderClient(parts.env), Poster(parts.guard)
    stack.push_async_callback(client.close)
    stack.push_async_callback(poster.close)
    lanes = [_build_lane(parts, "deliveries", _build_deliveries(parts, poster), DELIVERIES_AT_ONCE, DELIVERIES)]
    urls = CallbackUrls(parts.settings.public_url, parts.tokens)
    for name, access in parts.providers.items():
        if access.account is not None:
            work = TaskWork(access, access.account, parts.driver, parts.writer, client, urls, parts.env, parts.metrics)
            lanes.append(_build_lane(parts, name, work, CALLS_AT_ONCE, tasks_of(name)))
    return lanes


def _build_lane(parts: _Parts, name: str, work: Work[Any], limit: int, topic: str) -> Lane[Any]:
    return Lane(name, work, limit=limit, topic=topic, bus=parts.bus, env=parts.env, metrics=parts.metrics)


def _build_deliveries(parts: _Parts, poster: Poster) -> DeliveryWork:
    settings = parts.settings
    return DeliveryWork(
        parts.driver,
        parts.writer,
        poster,
        parts.env,
        parts.metrics,
        signing_secret=settings.signing_secret or signing.derive_secret(settings.secret_keys[0]),
        schedule=settings.retry_schedule,
        source=settings.public_url or "taskhook",
    )


def _build_web(parts: _Parts, stopping: asyncio.Event, alive: "_Alive | None", stack: AsyncExitStack) -> object:
    settings, mounts = parts.settings, []
    if settings.sandbox:
        hmac_key = settings.providers["fluxapi-ai"].hmac_key
        sandbox = Sandbox(f"{parts.own_url}/sandbox", key=_sandbox_key(settings), hmac_key=hmac_key)
        stack.push_async_callback(sandbox.close)
        mounts.append(Mount("/sandbox", sandbox.app))
    context = WebContext(
        env=parts.env,
        store=Store(writer=parts.writer, reads=Reads(parts.driver), bus=parts.bus),
        providers=parts.providers,
        trust=Trust(
            api_keys=settings.api_keys,
            tokens=parts.tokens,
            guard=parts.guard,
            new_secret=lambda: signing.render_secret(secrets.token_bytes(32)),
        ),
        running=Running(metrics=parts.metrics, stopping=stopping, worker_alive=alive),
    )
    return build_app(context, mounts)


# --- start and stop ---------------------------------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """Signals are this module's: uvicorn would end the process with the signal instead of with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Alive:
    """Whether every lane of this process still turns."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self) -> bool:
        return all(not task.done() for task in self.tasks)


async def _serve(settings: Settings, *, web: bool, worker: bool, dev: bool) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        listener = _bind(settings) if web else None
        own_url = _own_url(settings, listener)
        if dev and settings.public_url is None:
            settings = replace(settings, public_url=own_url)
        parts = await _assemble(settings, own_url, stack)
        if not (web and worker):
            await _hear_other_processes(parts, stack)
        alive = _Alive() if worker else None
        lanes = _build_lanes(parts, stack) if worker else []
        server = _build_server(parts, stopping, alive, stack) if web else None
        await _run_until_stopped(parts, lanes, alive, server, listener, stopping, dev=dev)
    return 0


async def _assemble(settings: Settings, own_url: str, stack: AsyncExitStack) -> _Parts:
    env, metrics, bus = RealEnv(), Metrics(), Bus()
    driver = await stack.enter_async_context(_open_store(settings))
    for name in await migrate_store(driver, to_ms(env.now())):
        log.info("store.migrated", migration=name)
    writer = Writer(driver, bus, env)
    writer.start()
    stack.push_async_callback(writer.stop)
    own_urls = [own_url, *([settings.public_url] if settings.public_url else [])]
    return _Parts(
        settings=settings,
        env=env,
        metrics=metrics,
        driver=driver,
        writer=writer,
        bus=bus,
        providers=_build_providers(settings, own_url),
        tokens=CallbackTokens(settings.secret_keys, tuple(PROVIDERS)),
        guard=Guard(allow_private=settings.allow_private_networks, own_urls=own_urls),
        own_url=own_url,
    )


async def _hear_other_processes(parts: _Parts, stack: AsyncExitStack) -> None:
    async def listen() -> None:
        async for topic in parts.driver.listen():
            if topic:
                parts.bus.ring((topic,))
            else:
                parts.bus.ring_all()

    _cancel_at_exit(asyncio.create_task(listen(), name="listen"), stack)


def _cancel_at_exit(task: asyncio.Task[None], stack: AsyncExitStack) -> None:
    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(cancel)


def _build_server(
    parts: _Parts, stopping: asyncio.Event, alive: _Alive | None, stack: AsyncExitStack
) -> uvicorn.Server:
    config = uvicorn.Config(
        _build_web(parts, stopping, alive, stack),  # type: ignore[arg-type]  # uvicorn's own ASGI types are narrower
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=WEB_GRACE_S,
    )
    return _Server(config)


def _bind(settings: Settings) -> socket.socket:
    """Before anything else, so that a port in use is told at once; TCP by number, or asyncio leaves out TCP_NODELAY."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    return listener


def _own_url(settings: Settings, listener: socket.socket | None) -> str:
    port = listener.getsockname()[1] if listener else settings.port
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104 (compared, not bound)
    return f"http://{host}:{port}"


async def _run_until_stopped(
    parts: _Parts,
    lanes: list[Lane[Any]],
    alive: _Alive | None,
    server: uvicorn.Server | None,
    listener: socket.socket | None,
    stopping: asyncio.Event,
    *,
    dev: bool,
) -> None:
    running = [asyncio.create_task(lane.run(), name=lane.name) for lane in lanes]
    background = []
    if alive is not None:
        alive.tasks = running
        upkeep = keep_up(parts.writer, parts.env, parts.metrics, parts.settings.retention_days)
        background.append(asyncio.create_task(upkeep, name="upkeep"))
        log.info("worker.started", lanes=[lane.name for lane in lanes])
    serving = asyncio.create_task(server.serve([listener])) if server and listener else None
    if serving:
        _welcome(parts, dev=dev)
    await _first(stopping, serving)
    await _stop(lanes, running + background, server, serving)


async def _first(stopping: asyncio.Event, serving: asyncio.Task[None] | None) -> None:
    """A server that ends by itself stops the process as a signal does."""
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([waiting, *([serving] if serving else [])], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stopping.set()


async def _stop(
    lanes: list[Lane[Any]],
    running: list[asyncio.Task[None]],
    server: uvicorn.Server | None,
    serving: asyncio.Task[None] | None,
) -> None:
    if server:
        server.should_exit = True
    cut_off = sum(await asyncio.gather(*(lane.stop(WORK_GRACE_S) for lane in lanes)))
    if serving:
        await serving
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    log.info("worker.drained" if lanes else "web.drained", cut_off=cut_off)


def _welcome(parts: _Parts, *, dev: bool) -> None:
    log.info("web.started", url=parts.own_url, sandbox=parts.settings.sandbox)
    if not parts.settings.sandbox:
        return
    _write_dev_file(parts.own_url, parts.settings)
    if dev:
        sys.stdout.write(_first_steps(parts.own_url, parts.settings.api_keys[0]))
        sys.stdout.flush()


def _first_steps(url: str, api_key: str) -> str:
    return f"""
  Taskhook is ready at {url}  (docs: {url}/docs)
  Providers are simulated: no account, no cost.

  API key   {api_key}

  Try it from a second terminal:

    curl -s {url}/v1/tasks \\
      -H "Authorization: Bearer {api_key}" \\
      -H "Content-Type: application/json" \\
      -d '{{"model": "fluxapi-ai/flux-kontext-pro", "input": {{"prompt": "a lighthouse at dusk"}}}}'

    .venv/bin/taskhook submit fluxapi-ai/flux-kontext-pro "a lighthouse at dusk" --wait --save out/
    .venv/bin/taskhook listen

"""
