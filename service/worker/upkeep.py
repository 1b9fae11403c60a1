"""Deletes what is older than the retention, a step at a time, with a pause after each so that nobody waits for it."""

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


async def keep_up(writer: Writer, env: Env, metrics: Metrics, retention_days: float) -> None:
    """Until it is cancelled."""
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
        await asyncio.sleep(BUSY_S if deleted else IDLE_S)
