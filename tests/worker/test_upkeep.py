"""Old rows are deleted in time, however short the retention is."""

import asyncio
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from service.store import upkeep as store_upkeep
from service.telemetry import Metrics
from service.worker import upkeep
from tests.support.env import FakeEnv
from tests.support.wait import until


async def test_what_is_kept_for_a_moment_is_looked_for_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []

    async def delete_old(_writer: Any, _now: datetime, days: float) -> int:
        looks.append(days)
        return 0

    async def scrub() -> None:
        pass

    monkeypatch.setattr(store_upkeep, "delete_old", delete_old)
    writer: Any = SimpleNamespace(scrub=scrub)
    keeping = asyncio.create_task(upkeep.keep_up(writer, FakeEnv(), Metrics(), 0.01 / upkeep.DAY_S))
    try:
        await until(lambda: len(looks) > 2)
    finally:
        keeping.cancel()
