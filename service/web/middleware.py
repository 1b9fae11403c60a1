"""Around every request, in one pass: its id, its problem, its security headers, its metrics."""

import logging
import re
from collections.abc import Collection

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.env import Env
from service.core.problems import Problem, Unavailable
from service.telemetry import Metrics, request_context
from service.telemetry.tracing import METHODS, OFF, Span, Tracing
from service.web.calls import Headers, find_header
from service.web.cors import answer_preflight, cors_headers
from service.web.errors import ClientGone, Failure, render_problem

log = structlog.get_logger()

ALWAYS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered however much is going on."""
GONE = 499
"""In metrics alone: the client hung up before it was answered."""
SECURITY: Headers = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)


class Gate:
    """The outermost layer: nothing leaves without it, and no exception passes it."""

    def __init__(
        self,
        app: ASGIApp,
        env: Env,
        metrics: Metrics,
        tracing: Tracing = OFF,
        cors_origins: Collection[str] = (),
    ) -> None:
        self._app = app
        self._env = env
        self._metrics = metrics
        self._tracing = tracing
        self._cors_origins = cors_origins
        self._is_told: bool | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = self._env.monotonic()
        given = find_header(scope, b"x-request-id")
        request_id = given if given and _REQUEST_ID.fullmatch(given) else self._env.new_id("request")
        exchange = _Exchange(send, request_id, cors_headers(scope, self._cors_origins))
        with request_context(request_id), self._tracing.request(scope) as span:
            try:
                await self._answer(scope, receive, exchange)
            finally:
                self._count(scope, exchange.status or GONE, self._env.monotonic() - started, span)

    async def _answer(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        try:
            preflight = answer_preflight(scope, exchange.cors)
            await (preflight(receive, exchange.send) if preflight else self._app(scope, receive, exchange.send))
        except ClientGone:
            return
        except Problem as problem:
            if isinstance(problem, Unavailable):
                log.warning("request.unavailable", route=_route(scope), reason=problem.detail, cause=problem.cause)
            await _refuse(problem, receive, exchange)
        except Exception:
            log.exception("request.failed", route=_route(scope))
            failure = Failure("Something went wrong here; it is written down under this request id.")
            await _refuse(failure, receive, exchange)

    def _count(self, scope: Scope, status: int, duration_s: float, span: Span) -> None:
        route = _route(scope)
        span.record_answer(route, status)
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.request_seconds.labels(method, route).observe(duration_s, span.find_exemplar())
        if self._is_told is None:
            self._is_told = log.bind().is_enabled_for(logging.DEBUG)  # asked once: a line that is dropped costs, too
        if self._is_told:
            log.debug("request.answered", route=route, status=status, duration_ms=round(duration_s * 1000, 1))


class _Exchange:
    """The sending side of one request; `status` is 0 until an answer has begun."""

    __slots__ = ("_send", "cors", "request_id", "status")

    def __init__(self, send: Send, request_id: str, cors: Headers = ()) -> None:
        self._send = send
        self.cors = cors
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = message["headers"]
            names = {name for name, _ in own}
            added = [header for header in SECURITY if header[0] not in names]
            headers = [*own, *added, *self.cors, (b"x-request-id", self.request_id.encode())]
            message = {"type": "http.response.start", "status": self.status, "headers": headers}
        await self._send(message)


async def _refuse(problem: Problem, receive: Receive, exchange: _Exchange) -> None:
    """Once an answer has begun, breaking it off is all that is left to say."""
    if not exchange.status:
        await render_problem(problem, exchange.request_id)(receive, exchange.send)


def _route(scope: Scope) -> str:
    """The template of the path, never the path itself: it may hold ids and tokens."""
    return getattr(scope.get("route"), "path_format", "unmatched")
