"""What Taskhook tells about itself: one wide log line for each thing done, and the table of all metrics."""

import contextlib
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any, TextIO, cast

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from service.core.fault import Fault
from service.core.task import Task

log = structlog.get_logger()
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being answered, on every log line that it causes."""

Event = MutableMapping[str, Any]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SAME = ("event", "lane", "route", "reason", "cause", "fault_id", "endpoint_id")
SAME_MAX = 5
SAME_S = 10.0
KINDS_MAX = 1_000
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
        self.endpoint_events = counter("taskhook_endpoint_events_total", "Endpoints failing, recovered, off", "type")
        self.refused = counter("taskhook_connections_refused_total", "Requests refused unread", "outcome")
        self.auth_failures = counter("taskhook_auth_failures_total", "Requests with a key that is not known", "outcome")
        self.loop_failures = counter("taskhook_loop_failures_total", "Rounds of a loop that failed", "loop")
        self.faults = counter("taskhook_faults_total", "Failures of rows that were put aside", "kind", "outcome")
        self.parked = gauge("taskhook_parked", "Rows parked until a retry by hand")
        self.accounts_open = gauge("taskhook_account_open", "1 while the account's circuit breaker is open", "provider")
        self.submit_window = histogram(
            "taskhook_submit_window_seconds", "How long a kill would leave a submit's outcome unknown", "provider"
        )
        self.streams = gauge("taskhook_stream_clients", "Clients of the event stream")
        self.tasks_open = gauge("taskhook_tasks_open", "Tasks not final", "status")
        self.deliveries_open = gauge("taskhook_deliveries_open", "Deliveries not received", "status")
        self.oldest_due = gauge("taskhook_oldest_due_seconds", "How long the oldest due work has been waiting")

    def tell_fault(self, fault: Fault) -> None:
        """Work on a row has failed, and it was put aside."""
        outcome = "parked" if fault.parked_at else "again"
        self.faults.labels(fault.kind, outcome).inc()
        log.error(
            "fault.noted",
            fault_id=fault.id,
            kind=fault.kind,
            outcome=outcome,
            failures=fault.failures,
            reason=fault.reason,
        )

    def tell_finished(self, task: Task) -> None:
        """A task has reached its final state, whichever way."""
        duration_s = ((task.finished_at or task.created_at) - task.created_at).total_seconds()
        self.tasks_finished.labels(task.provider, task.status, task.via or "").inc()
        self.task_seconds.labels(task.provider, task.status).observe(duration_s)
        code = task.error.code if task.error else None
        log.info(
            "task.finished",
            task_id=task.id,
            provider=task.provider,
            outcome=task.status,
            via=task.via,
            code=code,
            duration_ms=round(duration_s * 1000),
        )


def set_up_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """`json`, `console`, or `auto`: console on a terminal. Libraries' own records go the same way."""
    out = stream or sys.stderr
    quiet = cast(TextIO, _Quiet(out))
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    shared: list[Any] = [
        Throttle(),
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # not the console's own way, which shows the values of variables
        _escape,
    ]
    renderer: Any = structlog.processors.JSONRenderer(_to_json)
    if console:
        renderer = structlog.dev.ConsoleRenderer(colors=out.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(quiet),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(quiet)
    formatter = structlog.stdlib.ProcessorFormatter(processors=[_drop_own_keys, renderer], foreign_pre_chain=shared)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _Quiet:
    """A stream whose disk may be full: what can't be told must not undo what was done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class Throttle:
    """Of warnings and errors that say the same, a few in a while are told; the next one says how many were not."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Any, ...], list[float]] = OrderedDict()

    def __call__(self, _logger: Any, level: str, event: Event) -> Event:
        if level not in ("warning", "error"):
            return event
        key = (level, *(event.get(name) for name in SAME), type(event.get("exc_info")))
        now = time.monotonic()
        until, told, hidden = self._told.get(key, (0.0, 0, 0))
        if now >= until:
            until, told, event = now + SAME_S, 0, {**event, "hidden": hidden} if hidden else event
            hidden = 0
        drops = told >= SAME_MAX
        self._told[key] = [until, told + (not drops), hidden + drops]
        self._told.move_to_end(key)
        if len(self._told) > KINDS_MAX:
            self._told.popitem(last=False)
        if drops:
            raise structlog.DropEvent
        return event


def _to_json(event: Event, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()


def _add_request_id(_logger: Any, _name: str, event: Event) -> Event:
    if (found := request_id.get()) is not None:
        event.setdefault("request_id", found)
    return event


def _escape(_logger: Any, _name: str, event: Event) -> Event:
    """Texts from outside can't end a line or steer a terminal, and an exception's lines can't pass for ours."""
    exception = event.pop("exception", None)
    for name, value in event.items():
        event[name] = _clean(value)
    if exception is not None:
        event["exception"] = "\n".join(f"  {_printable(line)}" for line in str(exception).split("\n"))
    return event


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _printable(value)
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
    return value


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


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
