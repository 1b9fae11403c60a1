"""Deletes what is older than the retention, a step at a time with pauses; and watches the clock."""

import asyncio

import structlog

from service.core.env import Env
from service.core.problems import Unavailable
from service.store import upkeep
from service.store.writer import Writer
from service.telemetry import Metrics

log = structlog.get_logger()
BUSY_S = 0.2
IDLE_S = 600.0
DAY_S = 86_400
LOOK_S = 1.0
SET_BACK_S = 300.0
"""Times that are off by less right themselves soon enough."""


async def keep_up(writer: Writer, env: Env, metrics: Metrics, retention_days: float) -> None:
    """Until it is cancelled."""
    idle_s = min(IDLE_S, retention_days * DAY_S)  # or what is kept for seconds would stay for minutes
    while True:
        deleted = 0
        try:
            deleted = await upkeep.delete_old(writer, env.now(), retention_days)
            if not deleted:
                await writer.scrub()
        except Unavailable as error:
            log.warning("worker.stalled", lane="upkeep", reason=error.detail, cause=error.cause)
        except Exception:
            metrics.loop_failures.labels("upkeep").inc()
            log.exception("worker.failed", lane="upkeep")
        if deleted:
            log.info("upkeep.deleted", rows=deleted)
        await asyncio.sleep(BUSY_S if deleted else idle_s)


async def watch_clock(writer: Writer, env: Env) -> None:
    """Until it is cancelled. Only for a process that works alone: others would set the same times back once more."""
    wall, steady = env.now(), env.monotonic()
    while True:
        await asyncio.sleep(LOOK_S)
        now, passed_s = env.now(), env.monotonic() - steady
        back_s = passed_s - (now - wall).total_seconds()
        if back_s < SET_BACK_S:
            wall, steady = now, steady + passed_s
            continue
        try:
            await upkeep.set_back(writer, now, back_s)
        except Unavailable as error:
            log.warning("worker.stalled", lane="clock", reason=error.detail, cause=error.cause)
            continue
        log.warning("clock.set_back", outcome="shifted", seconds=round(back_s))
        wall, steady = now, steady + passed_s
