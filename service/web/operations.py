"""Operations for operators: liveness, readiness, metrics and providers."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from service.core.account import Account, Limits, split_key
from service.core.breaker import Breaker, State
from service.core.problems import NotFound, Unavailable
from service.core.times import rfc3339, to_ms
from service.core.views import Time, time_or_null
from service.core.why import CLOSED
from service.providers.base import Access, Model
from service.store.accounts import enable
from service.store.batch import Batch
from service.store.figures import Load
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.creating import setting_of

log = structlog.get_logger()
GAUGES_S = 5.0
"""A scrape counts again after this time at the earliest."""
READ_PATIENCE_S = 5.0
T = TypeVar("T")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str = "ok"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    ok: bool
    note: str | UnsetType = UNSET


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests may be sent here, and what that was judged by."""

    status: str
    checks: dict[str, Check]


class GetReadiness(msgspec.Struct, frozen=True, kw_only=True):
    """Work that waits is no reason to send requests elsewhere where other processes do it."""

    exclude: Annotated[Literal["worker"], Meta(description="A check told, not judged by.")] | UnsetType = UNSET


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the provider answers: after `failures` in a row its tasks wait, and one at a time tries it again."""

    state: State
    failures: int
    since: Time | None
    next_probe_at: Time | None


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account: `submitted` tasks in its window, and those in flight and waiting, up to 10,000 each.

    `state` is `disabled` since the provider refused its key, `paused` while the provider wants it to rest, and
    `circuit_open` while it does not answer. A disabled account gets no tasks, and what was never sent moves to another.
    """

    id: str
    state: Literal["ready", "paused", "circuit_open", "disabled"]
    disabled_at: Time | None
    disabled_reason: str | None
    paused_until: Time | None
    circuit: Circuit
    limits: Limits
    submitted: int
    in_flight: int
    waiting: int


class ProviderView(msgspec.Struct, frozen=True, kw_only=True):
    """A provider: what its API can do, and whether it can be used here.

    `blocking`: its answer is the result. `healthy` is null where it is not configured, and false while the account
    rests until `paused_until` because the provider asked for it, or while its circuit is not closed.
    """

    id: str
    configured: bool
    setting: str
    healthy: bool | None
    paused_until: Time | None
    circuit: Circuit
    callbacks: bool
    polling: bool
    blocking: bool
    confirms_callbacks: bool
    result_life_s: float | None
    limits: Limits
    accounts: tuple[AccountView, ...]
    models: tuple[Model, ...]


class ProviderList(msgspec.Struct, frozen=True, kw_only=True):
    """Every provider that there is, configured or not."""

    data: list[ProviderView]


HEALTHY = json_answer(Health())


async def get_health(_web: Web, _call: Call[None, None]) -> Answer:
    return HEALTHY


async def get_readiness(web: Web, call: Call[GetReadiness, None]) -> Answer:
    checks = {"service": _check_service(web), "database": Check(ok=True)}
    try:
        await web.store.writer.check()
        checks |= await _in_time(_check_work(web))
    except Unavailable as problem:
        checks["database"] = Check(ok=False, note=problem.detail)
    ready = all(check.ok for name, check in checks.items() if name != call.query.exclude)
    return json_answer(Readiness(status="ok" if ready else "unavailable", checks=checks), 200 if ready else 503)


async def _in_time(reads: Coroutine[Any, Any, T]) -> T:
    """Read with a short timeout; None if the database does not answer."""
    try:
        async with asyncio.timeout(READ_PATIENCE_S):
            return await reads
    except TimeoutError:
        raise Unavailable("The database does not answer in time.", cause="slow") from None


def _check_service(web: Web) -> Check:
    return Check(ok=False, note="It is stopping.") if web.running.stopping.is_set() else Check(ok=True)


async def _check_work(web: Web) -> dict[str, Check]:
    """Unclaimed work shows a dead or hanging worker, in this process or another."""
    checks = {"worker": Check(ok=True)}
    alive = web.running.worker_alive
    if alive is not None and not alive():
        checks["worker"] = Check(ok=False, note="It ended by a mistake.")
    elif (overdue_at := await web.store.reads.find_overdue(_accounts(web), web.env.now())) is not None:
        late_s = (web.env.now() - overdue_at).total_seconds()
        checks["worker"] = Check(ok=False, note=f"The oldest due work has been waiting for {late_s:.0f} s.")
    if parked := await web.store.reads.count_parked():
        checks["faults"] = Check(ok=True, note=f"Parked until a retry: {parked}; see GET /v1/faults.")
    return checks


def _accounts(web: Web) -> dict[str, Limits]:
    return {one.key: one.limits for access in web.providers.values() for one in access.accounts.values()}


def _late_s(web: Web, oldest_ms: int | None) -> float:
    return 0.0 if oldest_ms is None else max(0.0, (to_ms(web.env.now()) - oldest_ms) / 1000)


async def get_metrics(web: Web, call: Call[None, None]) -> Answer:
    """Render metrics; those that need no database also while it is away."""
    now = web.env.monotonic()
    if now >= web.gauges_until:
        web.gauges_until = now + GAUGES_S
        try:
            await web.store.writer.check()
            await _in_time(_refresh_gauges(web))
        except Unavailable:
            web.gauges_until = 0.0
        web.running.metrics.database_up.set(web.gauges_until > 0)
    registry = web.running.metrics.registry
    if _wants_openmetrics(call.header(b"accept") or ""):
        text: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return Answer(200, text, openmetrics.CONTENT_TYPE_LATEST.encode())
    return Answer(200, generate_latest(registry), CONTENT_TYPE_LATEST.encode())


def _wants_openmetrics(accept: str) -> bool:
    """Judged here: the library's own choice fails on a version that is no number, and puts it into its answer."""
    return any(part.partition(";")[0].strip() == "application/openmetrics-text" for part in accept.split(","))


async def _refresh_gauges(web: Web) -> None:
    metrics = web.running.metrics
    counts = await web.store.reads.count_open()
    for noun, gauge in (("tasks", metrics.tasks_open), ("deliveries", metrics.deliveries_open)):
        for status, count in counts[noun].items():
            gauge.labels(status).set(count)
    for kind, count in (await web.store.reads.count_due(web.env.now())).items():
        metrics.due.labels(kind).set(count)
    overdue_at = await web.store.reads.find_overdue(_accounts(web), web.env.now())
    metrics.overdue.set(_late_s(web, None if overdue_at is None else to_ms(overdue_at)))
    metrics.oldest_due.set(_late_s(web, await web.store.reads.oldest_due_ms()))
    metrics.parked.set(await web.store.reads.count_parked())
    accounts = await web.store.reads.accounts()
    refusals = await web.store.reads.refusals()
    for key in _accounts(web):
        metrics.accounts_disabled.labels(*split_key(key)).set(key in refusals)
        _, breaker = accounts.get(key, (0, CLOSED))
        metrics.accounts_open.labels(*split_key(key)).set(breaker.since is not None)


async def list_providers(web: Web, _call: Call[None, None]) -> Answer:
    loads = await web.store.reads.account_loads(_accounts(web), web.env.now())
    views = [_view_provider(access, loads, web.env.now()) for access in web.providers.values()]
    return json_answer(ProviderList(data=views))


async def enable_account(web: Web, call: Call[None, None]) -> Answer:
    """Its tasks are sent again at once; another refusal disables it again."""
    provider, account = call.scope["path_params"]["provider"], call.scope["path_params"]["account"]
    access = web.providers.get(provider)
    if access is None or account not in access.accounts:
        raise NotFound("There is no such account here.")
    used = access.accounts[account]

    async def work(batch: Batch) -> None:
        await enable(batch, used.key)

    await web.store.writer.run(work)
    log.info("account.enabled", provider=provider, account=account, caller=call.caller.name)
    loads = await web.store.reads.account_loads({used.key: used.limits}, web.env.now())
    return json_answer(_view_account(used, loads[used.key], web.env.now()))


def _view_provider(access: Access, loads: Mapping[str, Load], now: datetime) -> ProviderView:
    """Its own state is that of its first account, as when there was one only."""
    able = access.provider.capabilities
    accounts = tuple(_view_account(one, loads[one.key], now) for one in access.accounts.values())
    first = accounts[0] if accounts else None
    return ProviderView(
        id=access.provider.id,
        configured=access.is_configured,
        setting=setting_of(access.provider.id),
        healthy=any(one.state == "ready" for one in accounts) if accounts else None,
        paused_until=first.paused_until if first else None,
        circuit=first.circuit if first else _view_circuit(CLOSED, now),
        callbacks=able.callbacks,
        polling=able.polling,
        blocking=able.blocking,
        confirms_callbacks=access.policy.confirm,
        result_life_s=able.result_life_s,
        limits=first.limits if first else able.limits,
        accounts=accounts,
        models=able.models,
    )


def _view_account(account: Account, load: Load, now: datetime) -> AccountView:
    rests, is_open = load.paused_until > now, load.breaker.since is not None
    return AccountView(
        id=account.id,
        state="disabled" if load.refusal else "circuit_open" if is_open else "paused" if rests else "ready",
        disabled_at=rfc3339(load.refusal.since) if load.refusal else None,
        disabled_reason=load.refusal.reason if load.refusal else None,
        paused_until=rfc3339(load.paused_until) if rests else None,
        circuit=_view_circuit(load.breaker, now),
        limits=account.limits,
        submitted=load.used,
        in_flight=load.in_flight,
        waiting=load.waiting,
    )


def _view_circuit(breaker: Breaker, now: datetime) -> Circuit:
    return Circuit(
        state=breaker.state(now),
        failures=breaker.submits + breaker.polls,
        since=time_or_null(breaker.since),
        next_probe_at=time_or_null(breaker.probe_at),
    )
