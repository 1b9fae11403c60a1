"""The log under a failure that lasts: the same line a few times in a while, and a full disk stops no work."""

import errno
import io
import json
from typing import Any

import pytest
import structlog

from service.telemetry import logs
from service.telemetry.logs import SAME_MAX, SAME_S, set_up_logging


@pytest.fixture
def out() -> Any:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    yield stream
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_same_warning_is_told_a_few_times_and_then_counted(out: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
    log = structlog.get_logger()
    for _ in range(1000):
        log.warning("request.unavailable", route="/v1/tasks", reason="full", duration_ms=clock[0])
    assert len(lines(out)) == SAME_MAX
    log.warning("request.unavailable", route="/v1/events", reason="full")
    log.error("worker.failed", lane="acedata")
    assert len(lines(out)) == SAME_MAX + 2
    clock[0] += SAME_S
    log.warning("request.unavailable", route="/v1/tasks", reason="full")
    assert lines(out)[-1]["hidden"] == 1000 - SAME_MAX


def test_what_was_done_is_told_each_time(out: Any) -> None:
    for _ in range(100):
        structlog.get_logger().info("task.created", outcome="created")
    assert len(lines(out)) == 100


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    set_up_logging("info", "json", Full())
    structlog.get_logger().error("worker.failed", lane="acedata")
    structlog.reset_defaults()
