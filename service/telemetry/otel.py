"""OpenTelemetry tracing: spans by its semantic conventions, exported in batches by a thread of its SDK.

A span holds ids, routes, hosts and our own words only: no prompt, body, callback path, endpoint path, query, header or
error message.
"""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from threading import Thread
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import Counter

from service.core.delivery import Delivery
from service.core.task import Task
from service.core.times import to_ms
from service.core.trace import TraceContext, read_trace_context
from service.telemetry.logs import request_id
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import METHODS, NO_SPAN, Span, Tracing, enter_span, leave_span

log = structlog.get_logger()

FLUSH_S = 3.0
"""The rest of the 25 s that a platform gives a stop, after the longest that web and worker take."""
UNTRACED = ("/healthz", "/readyz", "/metrics", "/sandbox/")
"""Probes, many times a minute; and the simulator, which stands for another service."""
PATH_MAX = 256
DEFAULT_PORTS = {"http": 80, "https": 443}
GONE = 499

Attributes = dict[str, str | int]


def start(otel: Mapping[str, str], metrics: Metrics) -> "OtelTracing":
    """Start tracing. The SDK reads the environment, so variables that only `.env` holds are copied there."""
    os.environ.update({name: value for name, value in otel.items() if name not in os.environ})
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)  # log a lost batch, not each try to send it
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    if otel.get("OTEL_TRACES_EXPORTER", "").strip().lower() != "none":
        exporter = _CountingExporter(OTLPSpanExporter(), metrics.trace_spans)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracing(provider)


def _resource() -> Resource:
    """Describe the service; attributes from the environment override these."""
    own = {
        "service.name": "taskhook",
        "service.version": version("taskhook"),
        "service.instance.id": secrets.token_hex(16),
    }
    given = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in own.items() if name not in given})


class OtelTracing(Tracing):
    is_on: ClassVar[bool] = True
    __slots__ = ("_provider", "_tracer")

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("taskhook", version("taskhook"))

    def request(self, scope: Mapping[str, Any]) -> Span:
        if scope["path"].startswith(UNTRACED):
            return NO_SPAN
        return _RequestSpan(self._tracer, scope)

    def call(self, kind: str, task: Task) -> Span:
        attributes = _describe(task)
        if kind == "submit" and task.submits > 1:
            attributes["http.request.resend_count"] = task.submits - 1
        name = f"{kind} {task.provider}"
        return _OtelSpan(self._tracer.start_span(name, _parent(task.trace), SpanKind.CLIENT, attributes))

    def delivery(self, delivery: Delivery, context: TraceContext | None) -> Span:
        attributes: Attributes = {
            "messaging.system": "taskhook",
            "messaging.operation.name": "deliver",
            "messaging.operation.type": "send",
            "messaging.destination.name": delivery.event_type,
            "messaging.message.id": delivery.event_id,
            "taskhook.delivery.id": delivery.id,
        }
        if delivery.task_id:
            attributes["taskhook.task.id"] = delivery.task_id
        if delivery.endpoint_id:
            attributes["taskhook.endpoint.id"] = delivery.endpoint_id
        if delivery.attempts:
            attributes["http.request.resend_count"] = delivery.attempts
        name = f"deliver {delivery.event_type}"
        return _OtelSpan(self._tracer.start_span(name, _parent(context), SpanKind.CLIENT, attributes))

    def life(self, task: Task) -> Span:
        attributes = _describe(task)
        attributes |= {
            "taskhook.task.status": task.status,
            "taskhook.task.via": task.via or "",
            "taskhook.task.submits": task.submits,
            "taskhook.task.polls": task.polls,
            "taskhook.task.callbacks": task.callbacks,
        }
        name, started_ns = f"task {task.provider}/{task.model}", _ns(task.created_at)
        span = self._tracer.start_span(name, _parent(task.trace), attributes=attributes, start_time=started_ns)
        if task.error is not None:
            _fail(span, task.error.code)
        return _OtelSpan(span, _ns(task.finished_at or task.created_at))

    async def close(self) -> None:
        """Flush on a daemon thread, so that a collector that does not answer cannot delay the stop."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def work() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop is closed: the timeout expired
                loop.call_soon_threadsafe(ended.set)

        Thread(target=work, name="tracing-stop", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await ended.wait()
        except TimeoutError:
            log.warning("tracing.cut_off", reason=f"the collector did not take the last spans within {FLUSH_S:g} s")


class _OtelSpan(Span):
    """A span of the SDK."""

    __slots__ = ("_ends_ns", "_span", "_token")

    def __init__(self, span: trace.Span, ends_ns: int | None = None) -> None:
        self._span = span
        self._ends_ns = ends_ns

    def find_context(self) -> TraceContext | None:
        context = self._span.get_span_context()
        if not context.is_valid:
            return None
        parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return TraceContext(traceparent=parent, tracestate=context.trace_state.to_header())

    def find_ids(self) -> tuple[str, str] | None:
        context = self._span.get_span_context()
        return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else None

    def find_exemplar(self) -> dict[str, str] | None:
        context = self._span.get_span_context()
        if not context.trace_flags.sampled:
            return None
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def headers(self) -> dict[str, str]:
        context = self.find_context()
        if context is None:
            return {}
        state = {"tracestate": context.tracestate} if context.tracestate else {}
        return {"traceparent": context.traceparent, **state}

    def record_task(self, task: Task) -> None:
        self._span.set_attributes(_describe(task))
        mine = self._span.get_span_context().trace_id
        if task.trace is not None and (theirs := _span_context(task.trace)).trace_id != mine:
            self._span.add_link(theirs)

    def record_call(self, method: str, url: str) -> None:
        self._span.set_attributes({"http.request.method": method, **_server(url)})

    def record_result(self, outcome: str, status: int | None, error_type: str | None) -> None:
        self._ends_ns = time.time_ns()
        self._span.set_attribute("taskhook.outcome", outcome)
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error_type is not None:
            _fail(self._span, error_type)

    def __enter__(self) -> Self:
        self._token = enter_span(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        leave_span(self._token)
        if kind is not None and self._ends_ns is None:
            _fail(self._span, kind.__name__)
        self._span.end(self._ends_ns)


class _RequestSpan(_OtelSpan):
    """The span of an inbound request.

    A callback's span starts when its token has named the task, backdated to the real start. Its sender is not trusted,
    so the trace context that it sends becomes a link at most, never the parent.
    """

    __slots__ = ("_brought", "_method", "_path", "_scope", "_started_ns", "_tracer")

    def __init__(self, tracer: trace.Tracer, scope: Mapping[str, Any]) -> None:
        super().__init__(trace.INVALID_SPAN)
        self._tracer = tracer
        self._scope = scope
        self._started_ns = time.time_ns()
        self._method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        self._brought = read_trace_context(_values(scope, b"traceparent"), _values(scope, b"tracestate"))
        if not scope["path"].startswith("/callbacks/"):
            self._begin(self._brought)

    def join(self, task: Task) -> None:
        if self._span is trace.INVALID_SPAN:
            links = () if self._brought is None else (trace.Link(_span_context(self._brought)),)
            self._begin(task.trace, links)
        self.record_task(task)

    def record_answer(self, route: str, status: int) -> None:
        if self._span is trace.INVALID_SPAN:
            self._begin(None)
        path = self._scope["path"] if route.startswith("/v1/") else route
        self._span.set_attribute("url.path", path[:PATH_MAX])
        if route != "unmatched":
            self._span.update_name(f"{self._method} {route}")
            self._span.set_attribute("http.route", route)
        if status == GONE:
            self._span.set_attribute("error.type", "client_disconnected")
            return
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            _fail(self._span, str(status))

    def _begin(self, parent: TraceContext | None, links: Sequence[trace.Link] = ()) -> None:
        attributes: Attributes = {
            "http.request.method": self._method,
            "url.scheme": self._scope["scheme"],
            "network.protocol.version": self._scope["http_version"],
            "taskhook.request.id": request_id.get() or "",
        }
        self._span = self._tracer.start_span(
            self._method, _parent(parent), SpanKind.SERVER, attributes, links, self._started_ns
        )


class _CountingExporter(SpanExporter):
    """Count exported and lost spans; the SDK only logs a failed export."""

    def __init__(self, exporter: SpanExporter, spans: Counter) -> None:
        self._exporter = exporter
        self._spans = spans

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        outcome = "exported" if result is SpanExportResult.SUCCESS else "failed"
        self._spans.labels(outcome).inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _describe(task: Task) -> Attributes:
    about: Attributes = {
        "taskhook.task.id": task.id,
        "taskhook.provider": task.provider,
        "taskhook.account": task.account,
        "taskhook.model": task.model,
    }
    if task.provider_task_id:
        about["taskhook.provider_task.id"] = task.provider_task_id
    return about


def _fail(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def _server(url: str) -> Attributes:
    """Return host and port only: paths and queries of endpoint URLs are often secrets."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    return {"server.address": parts.hostname or "", "server.port": port, "url.scheme": parts.scheme}


def _parent(context: TraceContext | None) -> Context:
    """Return the parent context; without one the span starts a new trace."""
    if context is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(_span_context(context)), Context())


def _span_context(context: TraceContext) -> trace.SpanContext:
    return trace.SpanContext(
        trace_id=int(context.trace_id, 16),
        span_id=int(context.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(context.flags),
        trace_state=trace.TraceState.from_header([context.tracestate]),
    )


def _values(scope: Mapping[str, Any], name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _ns(at: datetime) -> int:
    return to_ms(at) * 1_000_000
