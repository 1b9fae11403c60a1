"""What operators ask: is it alive, is it ready, what does it count, which providers does it have."""

import time

import msgspec
from msgspec import UNSET, UnsetType
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service.core.problems import Unavailable
from service.core.times import from_ms, rfc3339, to_ms
from service.core.views import Time
from service.providers.base import Access, Limits, Model
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.creating import setting_of

GAUGES_S = 5.0
"""A scrape counts again after this time at the earliest."""
LATE_S = 60.0
OPEN = {"tasks": ("queued", "running"), "deliveries": ("pending", "sending", "held", "failed")}


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


class ProviderView(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: what its API can do, and whether it can be used here.

    `blocking`: its answer is the result. `healthy` is null where it is not configured, and false while the account
    rests until `paused_until` because the provider asked for it.
    """

    id: str
    configured: bool
    setting: str
    healthy: bool | None
    paused_until: Time | None
    callbacks: bool
    polling: bool
    blocking: bool
    confirms_callbacks: bool
    result_life_s: float | None
    limits: Limits
    models: tuple[Model, ...]


class ProviderList(msgspec.Struct, frozen=True, kw_only=True):
    """Every provider that there is, configured or not."""

    data: list[ProviderView]


HEALTHY = json_answer(Health())


async def get_health(_web: Web, _call: Call[None, None]) -> Answer:
    return HEALTHY


async def get_readiness(web: Web, _call: Call[None, None]) -> Answer:
    checks = {"service": _check_service(web), "database": Check(ok=True)}
    try:
        oldest_ms = await web.store.reads.oldest_due_ms()
    except Unavailable as problem:
        checks["database"] = Check(ok=False, note=problem.detail)
    else:
        checks |= _check_worker(web, oldest_ms)
    ready = all(check.ok for check in checks.values())
    return json_answer(Readiness(status="ok" if ready else "unavailable", checks=checks), 200 if ready else 503)


def _check_service(web: Web) -> Check:
    return Check(ok=False, note="It is stopping.") if web.running.stopping.is_set() else Check(ok=True)


def _check_worker(web: Web, oldest_ms: int | None) -> dict[str, Check]:
    """Work that is late is told and no more: limits of an account make it wait too, and callbacks must go on."""
    alive = web.running.worker_alive
    late_s = _late_s(web, oldest_ms)
    note = f"The oldest due work has been waiting for {late_s:.0f} s." if late_s > LATE_S else UNSET
    if alive is None:
        return {"worker": Check(ok=True, note=note)} if note is not UNSET else {}
    return {"worker": Check(ok=True, note=note) if alive() else Check(ok=False, note="It ended by a mistake.")}


def _late_s(web: Web, oldest_ms: int | None) -> float:
    return 0.0 if oldest_ms is None else max(0.0, (to_ms(web.env.now()) - oldest_ms) / 1000)


async def get_metrics(web: Web, _call: Call[None, None]) -> Answer:
    """What can be counted without the database is told when it is away, too."""
    if time.monotonic() >= web.gauges_until:
        web.gauges_until = time.monotonic() + GAUGES_S
        try:
            await _refresh_gauges(web)
        except Unavailable:
            web.gauges_until = 0.0
    return Answer(200, generate_latest(web.running.metrics.registry), CONTENT_TYPE_LATEST.encode())


async def _refresh_gauges(web: Web) -> None:
    metrics = web.running.metrics
    counts = await web.store.reads.count_open()
    for noun, gauge in (("tasks", metrics.tasks_open), ("deliveries", metrics.deliveries_open)):
        for status in OPEN[noun]:
            gauge.labels(status).set(counts[noun].get(status, 0))
    metrics.oldest_due.set(_late_s(web, await web.store.reads.oldest_due_ms()))


async def list_providers(web: Web, _call: Call[None, None]) -> Answer:
    paused = await web.store.reads.paused_accounts()
    views = [
        _view_provider(access, paused.get(name, 0), to_ms(web.env.now())) for name, access in web.providers.items()
    ]
    return json_answer(ProviderList(data=views))


def _view_provider(access: Access, paused_ms: int, now_ms: int) -> ProviderView:
    able, configured = access.provider.capabilities, access.account is not None
    rests = configured and paused_ms > now_ms
    return ProviderView(
        id=access.provider.id,
        configured=configured,
        setting=setting_of(access.provider.id),
        healthy=not rests if configured else None,
        paused_until=rfc3339(from_ms(paused_ms)) if rests else None,
        callbacks=able.callbacks,
        polling=able.polling,
        blocking=able.blocking,
        confirms_callbacks=access.policy.confirm,
        result_life_s=able.result_life_s,
        limits=access.limits,
        models=able.models,
    )
