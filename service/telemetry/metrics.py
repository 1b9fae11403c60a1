"""All metrics in one table, named by Prometheus' conventions."""

import platform
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from itertools import product
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics

from service.core.change import Change
from service.core.event import EVENT_TYPES
from service.core.fault import Fault
from service.core.task import ERROR_CODES, Task
from service.telemetry.tracing import current_span

log = structlog.get_logger()

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0)
"""Buckets up to the end of a long poll, and above the longest delivery attempt."""
CALL_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""Buckets up to the longest call of a provider that blocks until the result."""
LONG_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0)


M = TypeVar("M", Counter, Gauge, Histogram)


def _quick(metric: M) -> M:
    """Cache the series of each label set; the library's own look-up costs several times as much, and there are few."""
    metric.labels = cache(metric.labels)  # type: ignore[method-assign]
    return metric


class Metrics:
    """Every metric of the service. Labels are bounded sets, never ids."""

    def __init__(self, accounts: Iterable[tuple[str, str]] = ()) -> None:
        """`accounts` are those that tasks are sent with, as provider and id."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = self._gauge("taskhook_build_info", "Always 1; the version is in the label", "version", "python")
        build.labels(version("taskhook"), platform.python_version()).set(1)
        self._add_incoming()
        self._add_work(accounts)
        self._add_states()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return _quick(Counter(name, text, labels, registry=self.registry))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return _quick(Gauge(name, text, labels, registry=self.registry))

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return _quick(Histogram(name, text, labels, buckets=buckets, registry=self.registry))

    def _add_incoming(self) -> None:
        self.requests = self._counter(
            "taskhook_http_requests_total",
            "Requests answered; 499: the client closed the connection first",
            "method",
            "route",
            "status",
        )
        self.request_seconds = self._histogram(
            "taskhook_http_request_duration_seconds", "Time to answer a request, long polls included", "method", "route"
        )
        self.refused = self._counter(
            "taskhook_connections_refused_total", "Requests refused before they were read", "outcome"
        )
        self.auth_failures = self._counter("taskhook_auth_failures_total", "Requests with an unknown key", "outcome")
        self.callbacks = self._counter("taskhook_callbacks_total", "Callbacks received", "provider", "outcome")
        self.streams = self._gauge("taskhook_stream_clients", "Clients of the event stream now")

    def _add_work(self, accounts: Iterable[tuple[str, str]]) -> None:
        """Create the series that alerts watch at the start: a series that begins with its first failure has no rate."""
        self.tasks_created = self._counter("taskhook_tasks_created_total", "Tasks accepted", "provider", "account")
        self.tasks_finished = self._counter(
            "taskhook_tasks_finished_total", "Tasks ended", "provider", "account", "outcome", "via"
        )
        self.task_errors = self._counter(
            "taskhook_task_errors_total", "Tasks that failed, by their error", "provider", "account", "code"
        )
        for account, code in product(accounts, ERROR_CODES):
            self.task_errors.labels(*account, code)
        self.task_seconds = self._histogram(
            "taskhook_task_duration_seconds",
            "From a task's creation to its end",
            "provider",
            "account",
            "outcome",
            buckets=LONG_SECONDS,
        )
        self.calls = self._counter(
            "taskhook_provider_calls_total", "Calls to providers", "provider", "account", "call", "outcome"
        )
        self.call_seconds = self._histogram(
            "taskhook_provider_call_duration_seconds",
            "Time of calls to providers",
            "provider",
            "account",
            "call",
            buckets=CALL_SECONDS,
        )
        self.submit_window = self._histogram(
            "taskhook_submit_window_seconds",
            "Time in which a kill would leave a submit unconfirmed",
            "provider",
            "account",
        )
        self.attempts = self._counter("taskhook_delivery_attempts_total", "Attempts to deliver an event", "outcome")
        self.attempt_seconds = self._histogram("taskhook_delivery_attempt_duration_seconds", "Time of an attempt")
        self.endpoint_events = self._counter(
            "taskhook_endpoint_events_total", "Endpoint health events: failing, recovered, disabled", "type"
        )
        for kind in EVENT_TYPES:
            if kind.startswith("endpoint."):
                self.endpoint_events.labels(kind)
        for outcome in ("received", "failed"):
            self.attempts.labels(outcome)
        self.loop_failures = self._counter("taskhook_loop_failures_total", "Rounds of a loop that failed", "loop")
        self.faults = self._counter("taskhook_faults_total", "Failures of rows that were put aside", "kind", "outcome")
        self.trace_spans = self._counter(
            "taskhook_trace_spans_total", "Spans exported to the collector, or lost because it failed", "outcome"
        )

    def _add_states(self) -> None:
        self.parked = self._gauge("taskhook_parked_rows", "Rows parked until a retry by hand")
        self.accounts_open = self._gauge(
            "taskhook_account_circuit_open", "1 while the account's circuit breaker is open", "provider", "account"
        )
        self.accounts_disabled = self._gauge(
            "taskhook_account_disabled", "1 while the provider refuses the account's key", "provider", "account"
        )
        self.tasks_open = self._gauge("taskhook_tasks_open", "Tasks not final", "status")
        self.deliveries_open = self._gauge("taskhook_deliveries_open", "Deliveries not received", "status")
        self.due = self._gauge("taskhook_due", "Due work that has not started", "kind")
        self.database_up = self._gauge("taskhook_database_up", "1 while the database can be written")
        self.overdue = self._gauge(
            "taskhook_overdue_age_seconds", "Age of the oldest due work that no limit holds back; 0 up to a minute"
        )
        self.oldest_due = self._gauge("taskhook_oldest_due_age_seconds", "Age of the oldest due work; 0 if none is due")

    def tell_fault(self, fault: Fault) -> None:
        """Work on a row failed, and it was quarantined."""
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

    def record_finished(self, task: Task) -> None:
        """Count and log a task that reached its final state."""
        duration_s = ((task.finished_at or task.created_at) - task.created_at).total_seconds()
        self.tasks_finished.labels(task.provider, task.account, task.status, task.via or "").inc()
        self.task_seconds.labels(task.provider, task.account, task.status).observe(
            duration_s, current_span().find_exemplar()
        )
        code = task.error.code if task.error else None
        if code is not None:
            self.task_errors.labels(task.provider, task.account, code).inc()
        log.info(
            "task.finished",
            task_id=task.id,
            provider=task.provider,
            account=task.account,
            outcome=task.status,
            via=task.via,
            code=code,
            duration_ms=round(duration_s * 1000),
        )


def log_dropped_outputs(change: Change) -> None:
    """Warn about links of a result that are not usable; the timeline holds them."""
    for entry in change.timeline:
        if entry.type == "output.dropped":
            log.warning("output.dropped", task_id=entry.task_id, count=len(entry.detail["links"]))
