"""The process: what each command starts, in order, and stops in the order that loses nothing."""

import asyncio
import errno
import gc
import math
import os
import resource
import secrets
import signal
import socket
import sqlite3
import sys
from contextlib import AsyncExitStack, suppress
from typing import Any, NoReturn

import structlog
import uvicorn
import uvloop
from msgspec.structs import replace
from starlette.types import ASGIApp

from service.core.env import Env
from service.core.problems import Unavailable
from service.core.times import to_ms
from service.dev import describe_start, find_unset, first_steps, with_made_up_keys, write_address
from service.environment import SettingsError
from service.settings import Settings
from service.store import sqlite_file
from service.store.migrate import find_pending, known
from service.store.move import Progress, Tell
from service.store.move import move as move_store
from service.store.rotation import Rotated, rotate_encryption
from service.telemetry import set_up_logging
from service.telemetry.logs import is_for_people
from service.web.edge import Limits, edge
from service.web.server import Server
from service.wiring import (
    Parts,
    RealEnv,
    Timings,
    assemble,
    build_driver,
    build_lanes,
    build_probes,
    build_web,
    find_signing_secret,
    migrate_store,
    open_store,
)
from service.worker.loop import Lane
from service.worker.upkeep import keep_up, watch_clock

log = structlog.get_logger()

BACKLOG = 2_048
FILES_MAX = 16_384
FILES_OF_WEB, FILES_OF_WORKER = 400, 1_600
"""Connections being refused, files, pipes; with a worker also its connections to providers and endpoints."""
STARTED_LOOK_S = 0.01
CONNECTIONS_MIN, CONNECTIONS_MAX = 16, 16_384
PORT_WITHOUT_RIGHTS, PORTS_TRIED = 8_000, 20
GC_THRESHOLDS = (20_000, 50, 100)
"""Almost nothing here is cyclic, and a request makes hundreds of objects: Python's own 700 looks in vain too often."""


# --- the commands' entry points ---------------------------------------------------------------------------------------


def run(
    settings: Settings,
    *,
    web: bool = True,
    worker: bool = True,
    dev: bool = False,
    timings: Timings = Timings(),
    env: Env | None = None,
) -> int:
    """Until SIGTERM or SIGINT; the exit code."""
    set_up_logging(settings.log_level, settings.log_format)
    for name in settings.unknown:
        log.warning("settings.unknown", name=name)
    try:
        gc.set_threshold(*GC_THRESHOLDS)
        code = uvloop.run(_serve(settings, timings, env or RealEnv(), web=web, worker=worker, dev=dev))
    except Unavailable as problem:
        reason = f"{problem.detail} ({problem.cause})"
    except (SettingsError, OSError) as error:
        reason = str(error)
    else:
        _let_go_of_logs()
        return code
    if is_for_people(settings.log_format):
        sys.stderr.write(f"Error: {reason}\n")
    else:
        log.critical("service.stopped", reason=reason)
    return 1


def migrate(settings: Settings) -> list[str]:
    """The names of the migrations applied."""

    async def work() -> list[str]:
        async with open_store(settings) as driver:
            return await migrate_store(settings, driver, RealEnv().now())

    return asyncio.run(work())


def pending(settings: Settings) -> list[str]:
    """The names of the migrations that are missing; writes nothing."""
    path = settings.database_url.removeprefix("sqlite:///")
    if path != settings.database_url and sqlite_file.identity(path) is None:
        return [one.name for one in known("sqlite")]

    async def work() -> list[str]:
        async with open_store(settings) as driver, driver.reading() as session:
            return await find_pending(driver, session)

    return asyncio.run(work())


def move(source_url: str, target_url: str, tell: Tell) -> list[Progress]:
    """Copy everything that is stored into an empty database. Raise Unavailable."""
    source, target = build_driver(source_url), build_driver(target_url)
    return asyncio.run(move_store(source, target, to_ms(RealEnv().now()), tell))


def backup(settings: Settings, target: str) -> int:
    """Copies the SQLite database as it is at one moment; the copy's size. Raises Unavailable."""
    path = settings.database_url.removeprefix("sqlite:///")
    if path == settings.database_url:
        raise Unavailable("Only a SQLite database is copied so; for PostgreSQL use pg_dump.", cause="not SQLite")
    if sqlite_file.identity(path) is None:
        raise Unavailable("TASKHOOK_DATABASE_URL names a file that is not there.", cause=path)
    try:
        return sqlite_file.backup(path, target)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable("The database could not be copied.", cause=str(error)) from error


def reveal_signing_secret(settings: Settings) -> str:
    """Return the secret that signs events to a task's `webhook_url`: the setting, or derived from a key."""
    set_up_logging("error", settings.log_format)
    return find_signing_secret(with_made_up_keys(settings) if settings.sandbox else settings)


def rotate(settings: Settings) -> Rotated:
    """Puts every secret of the database under the newest key. Raises Unavailable."""
    set_up_logging(settings.log_level, settings.log_format)
    if settings.sandbox:
        settings = with_made_up_keys(settings)

    async def work() -> Rotated:
        async with AsyncExitStack() as stack:
            own_url = f"http://{settings.host}:{settings.port}"
            parts = await assemble(settings, Timings(), RealEnv(), own_url, stack)
            return await rotate_encryption(parts.writer, parts.vault)

    return uvloop.run(work())


# --- start and stop ---------------------------------------------------------------------------------------------------


class _Alive:
    """Whether every lane of this process still turns."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self) -> bool:
        return all(not task.done() for task in self.tasks)


async def _serve(settings: Settings, timings: Timings, env: Env, *, web: bool, worker: bool, dev: bool) -> int:
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        loop.call_later(timings.stop_s, _leave, timings.stop_s)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    async with AsyncExitStack() as stack:
        listener = _listen(settings, web=web)
        if settings.sandbox:
            settings = with_made_up_keys(settings)
        own_url = _own_url(settings, listener if web else None)
        if dev and settings.public_url is None:
            settings = replace(settings, public_url=own_url)
        parts = await assemble(settings, timings, env, own_url, stack)
        if not (web and worker and parts.driver.is_alone):
            await _hear_other_processes(parts, stack)
        alive = _Alive() if worker else None
        code = secrets.token_urlsafe(18) if dev and settings.dashboard else None
        lanes = build_lanes(parts, stack) if worker else []
        limits = Limits(connections=_room_for_connections(beside_worker=worker))
        server = None
        if web:
            server = _build_server(parts, build_web(parts, stopping, alive, stack, code), limits)
        elif listener:
            server = _build_server(parts, build_probes(parts, stopping, alive), limits)
        await _run_until_stopped(parts, lanes, alive, server, listener, stopping, code, web=web, dev=dev)
    return 0


def _leave(stop_s: float) -> NoReturn:
    """As if killed, which loses nothing: a database that does not answer would hold up the end of its connections."""
    log.warning("service.cut_off", after_s=stop_s)
    os._exit(0)


def _let_go_of_logs() -> None:
    """Lines that a full disk did not take are lost; Python would call the whole run failed for them."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


async def _hear_other_processes(parts: Parts, stack: AsyncExitStack) -> None:
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


def _room_for_connections(*, beside_worker: bool) -> int:
    """As many as there can be open files, less what the rest of the process needs of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    reserved = FILES_OF_WORKER if beside_worker else FILES_OF_WEB
    return max(CONNECTIONS_MIN, min(max(soft, wanted) - reserved, CONNECTIONS_MAX))


def _build_server(parts: Parts, answers: ASGIApp, limits: Limits) -> uvicorn.Server:
    config = uvicorn.Config(
        answers,
        http=edge(limits, parts.metrics, parts.env),  # type: ignore[arg-type]  # called, no more
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=BACKLOG,
        forwarded_allow_ips=parts.settings.trusted_proxies,
        timeout_keep_alive=math.ceil(parts.settings.keepalive_s),
        timeout_graceful_shutdown=parts.timings.web_grace_s,
    )
    return Server(config)


def _listen(settings: Settings, *, web: bool) -> socket.socket | None:
    """A worker that runs alone listens only where that is set."""
    if web:
        return _bind(settings.host, settings.port, "TASKHOOK_PORT")
    return None if settings.worker_port is None else _bind(settings.host, settings.worker_port, "TASKHOOK_WORKER_PORT")


def _bind(host: str, port: int, setting: str) -> socket.socket:
    """Bind before anything else, so that a port in use is reported at once.

    TCP is given by its number, or asyncio leaves out TCP_NODELAY. `setting` is where the port comes from. Raise
    SettingsError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except UnicodeError as error:  # what can be no host name is not even looked up
        raise SettingsError(f"TASKHOOK_HOST is no host name: {host}.") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(f"port {port} is in use, try {setting}={_next_free(family, host, port)}") from error
        if error.errno == errno.EACCES:
            raise SettingsError(f"port {port} is not for this user, try {setting}={PORT_WITHOUT_RIGHTS}") from error
        raise SettingsError(f"TASKHOOK_HOST can't be listened on: {host}: {error.strerror}.") from error
    return listener


def _next_free(family: socket.AddressFamily, host: str, port: int) -> int:
    for candidate in range(port + 1, min(port + PORTS_TRIED, 65_535) + 1):
        with socket.socket(family, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((host, candidate))
            return candidate
    return PORT_WITHOUT_RIGHTS


def _own_url(settings: Settings, listener: socket.socket | None) -> str:
    port = listener.getsockname()[1] if listener else settings.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 (compared, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _run_until_stopped(
    parts: Parts,
    lanes: list[Lane[Any]],
    alive: _Alive | None,
    server: uvicorn.Server | None,
    listener: socket.socket | None,
    stopping: asyncio.Event,
    code: str | None,
    *,
    web: bool,
    dev: bool,
) -> None:
    running = [asyncio.create_task(lane.run(), name=lane.name) for lane in lanes]
    background = []
    if alive is not None:
        alive.tasks = running
        upkeep = keep_up(parts.writer, parts.env, parts.metrics, parts.settings.retention_days)
        background.append(asyncio.create_task(upkeep, name="upkeep"))
        if parts.driver.is_alone:
            background.append(asyncio.create_task(watch_clock(parts.writer, parts.env), name="clock"))
        log.info("worker.started", lanes=[lane.name for lane in lanes])
    serving = asyncio.create_task(server.serve([listener])) if server and listener else None
    if server and serving and web:
        await _welcome(parts, server, serving, code, dev=dev)
    await _first(stopping, serving)
    await _stop(lanes, parts.timings.work_grace_s, running + background, server, serving)


async def _first(stopping: asyncio.Event, serving: asyncio.Task[None] | None) -> None:
    """Wait for a signal, or for a server that ends on its own: both stop the process."""
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([waiting, *([serving] if serving else [])], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stopping.set()


async def _stop(
    lanes: list[Lane[Any]],
    grace_s: float,
    running: list[asyncio.Task[None]],
    server: uvicorn.Server | None,
    serving: asyncio.Task[None] | None,
) -> None:
    if server:
        server.should_exit = True
    cut_off = sum(await asyncio.gather(*(lane.stop(grace_s) for lane in lanes)))
    if serving:
        await serving
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    log.info("worker.drained" if lanes else "web.drained", cut_off=cut_off)


async def _welcome(
    parts: Parts, server: uvicorn.Server, serving: asyncio.Task[None], code: str | None, *, dev: bool
) -> None:
    """Once it listens, so that nothing is promised before an error."""
    while not (server.started or serving.done()):  # noqa: ASYNC110 (uvicorn tells it by this flag alone)
        await asyncio.sleep(STARTED_LOOK_S)
    if serving.done():
        return
    settings, url = parts.settings, parts.own_url
    log.info("web.started", url=url, dashboard=settings.dashboard, sandbox=settings.sandbox, unset=find_unset(settings))
    if settings.sandbox:
        write_address(url, settings)
    if dev:
        _say(first_steps(url, settings.api_keys[0], code))
    elif is_for_people(settings.log_format):
        _say(describe_start(url, settings))


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
