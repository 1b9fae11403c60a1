"""What Taskhook tells about itself: one wide log line for each thing done, and the table of all metrics."""

import contextlib
import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being answered, on every log line that it causes."""

Event = MutableMapping[str, Any]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)


class Metrics:
    """Every metric there is; labels are bounded sets, never ids."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("taskhook_http_requests_total", "Requests answered", "route", "status")
        self.request_seconds = histogram("taskhook_http_request_seconds", "Time to answer a request", "route")
        self.tasks_created = counter("taskhook_tasks_created_total", "Tasks accepted", "provider")
        self.tasks_finished = counter("taskhook_tasks_finished_total", "Tasks ended", "provider", "outcome", "via")
        self.task_seconds = histogram(
            "taskhook_task_seconds", "From a task's creation to its end", "provider", "outcome", buckets=LONG_SECONDS
        )
        self.calls = counter("taskhook_provider_calls_total", "Calls to providers", "provider", "call", "outcome")
        self.call_seconds = histogram(
            "taskhook_provider_call_seconds", "Time of calls to providers", "provider", "call", buckets=LONG_SECONDS
        )
        self.callbacks = counter("taskhook_callbacks_total", "Callbacks received", "provider", "outcome")
        self.attempts = counter("taskhook_delivery_attempts_total", "Attempts to deliver an event", "outcome")
        self.attempt_seconds = histogram("taskhook_delivery_attempt_seconds", "Time of an attempt")
        self.endpoints_disabled = counter("taskhook_endpoints_disabled_total", "Endpoints disabled by their failures")
        self.loop_failures = counter("taskhook_loop_failures_total", "Rounds of a loop that failed", "loop")
        self.streams = gauge("taskhook_stream_clients", "Clients of the event stream")
        self.tasks_open = gauge("taskhook_tasks_open", "Tasks not final", "status")
        self.deliveries_open = gauge("taskhook_deliveries_open", "Deliveries not received", "status")
        self.oldest_due = gauge("taskhook_oldest_due_seconds", "How long the oldest due work has been waiting")


def set_up_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """`json`, `console`, or `auto`: console on a terminal. Libraries' own records go the same way."""
    out = stream or sys.stderr
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info if not console else _pass,
    ]
    renderer = structlog.dev.ConsoleRenderer(colors=out.isatty()) if console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    formatter = structlog.stdlib.ProcessorFormatter(processors=[_drop_own_keys, renderer], foreign_pre_chain=shared)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def _add_request_id(_logger: Any, _name: str, event: Event) -> Event:
    if (found := request_id.get()) is not None:
        event.setdefault("request_id", found)
    return event


def _pass(_logger: Any, _name: str, event: Event) -> Event:
    return event


def _drop_own_keys(_logger: Any, _name: str, event: Event) -> Event:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


@contextlib.contextmanager
def request_context(value: str) -> Iterator[None]:
    token = request_id.set(value)
    try:
        yield
    finally:
        request_id.reset(token)
