"""Where connections come in: uvicorn's protocol, bounded in time, size and number, and strict where others differ.

Uvicorn with httptools bounds none of these: a header sent a byte a minute holds a connection for ever, and a header of
a gigabyte is read whole. What is refused here never reaches the routes, and leaves a count and a line for debugging.
"""

import asyncio
import math
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.core.env import Env
from service.core.problems import Malformed, Problem, Unavailable
from service.telemetry import Metrics
from service.web.errors import HeadTooLarge, TooSlow, render_problem
from service.web.middleware import SECURITY

log = structlog.get_logger()

SINGLE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"transfer-encoding"}
)
"""Two of one of these could be read in two ways by us and by a proxy in front."""
REFUSED_EXTRA = 256
"""Connections beyond the limit that are told so; what comes on top of these is closed unheard."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`head_s` and `body_s` are whole times, not pauses; `write_s` is how long a client may not read at all."""

    connections: int
    head_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 30.0
    linger_s: float = 1.0
    goodbye_s: float = 0.5
    head_bytes: int = 32 * 1024
    headers: int = 100


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome` is the metric's word for it."""

    outcome: str
    problem: Problem

    def render(self, request_id: str) -> bytes:
        """As the routes would tell it, and the last that is said on this connection."""
        answer = render_problem(self.problem, request_id)
        headers = (*answer.headers, *SECURITY, (b"x-request-id", request_id.encode()), (b"connection", b"close"))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        status = HTTPStatus(answer.status)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), lines, answer.body)


MALFORMED = Refusal(outcome="malformed", problem=Malformed("This is no HTTP request."))
AMBIGUOUS = Refusal(
    outcome="ambiguous",
    problem=Malformed(
        "The headers can be read in more than one way: Host is needed, and it, Authorization, Content-Type and"
        " Idempotency-Key may each be given once."
    ),
)
SLOW = Refusal(outcome="slow", problem=TooSlow("The request took too long to arrive."))
LARGE = Refusal(outcome="large", problem=HeadTooLarge("The headers are too many or too large."))
FULL = Refusal(outcome="full", problem=Unavailable("Too many connections.", retry_after_s=1))


def edge(limits: Limits, metrics: Metrics, env: Env) -> type["Edge"]:
    """The protocol class that uvicorn makes one of for each connection."""
    return type("LimitedEdge", (Edge,), {"limits": limits, "metrics": metrics, "env": env})


class Edge(HttpToolsProtocol):
    limits: Limits
    metrics: Metrics
    env: Env

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._clock: asyncio.TimerHandle | None = None
        self._until = math.inf
        self._write_clock: asyncio.TimerHandle | None = None
        self._in_head = True
        self._is_idle = True
        self._is_deaf = False
        self._is_full = False
        self._is_last = False
        self._head_bytes = 0

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        extra = len(self.connections) - self.limits.connections
        if extra > REFUSED_EXTRA:
            transport.abort()
            return
        self._is_full = extra > 0
        self._time(self.limits.linger_s if self._is_full else self.limits.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self.resume_writing()
        super().connection_lost(exc)
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._is_full:
            self._refuse(FULL)
            return
        self._unset_keepalive_if_required()
        if self._is_idle:
            self._is_idle = False
            self._time(self.limits.head_s)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_deaf = True  # what follows would be another protocol, of which there is none
            if latest := self._latest():
                latest.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(MALFORMED)
        else:
            self._weigh_head(len(data))

    # --- one request --------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """What stands behind a body (trailers) would be taken for headers that were judged already; it is left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        if refusal := self._judge():
            self._refuse(refusal)
            return
        self._time(self.limits.body_s)
        super().on_headers_complete()
        self._in_head = False
        if self._is_last and (latest := self._latest()):
            latest.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if not self._is_deaf:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_deaf:
            self._stop_clock()
            super().on_message_complete()
            self._in_head = self._is_idle = True

    def _judge(self) -> Refusal | None:
        size, seen = len(self.url), {b""}
        for name, value in self.headers:
            size += len(name) + len(value)
            if name in SINGLE:
                if name in seen or (name == b"transfer-encoding" and value.lower() != b"chunked"):
                    return AMBIGUOUS
                seen.add(name)
        if size > self.limits.head_bytes or len(self.headers) > self.limits.headers:
            return LARGE
        return self._judge_version(seen)

    def _judge_version(self, seen: set[bytes]) -> Refusal | None:
        match self.parser.get_http_version():
            case "1.1":
                return None if b"host" in seen else AMBIGUOUS
            case "1.0":
                return AMBIGUOUS if b"transfer-encoding" in seen else None
        return MALFORMED

    def _weigh_head(self, size: int) -> None:
        """One that is not complete yet; how large a complete one is, `_judge` knows."""
        if self._in_head and not self._is_idle:
            self._head_bytes += size
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(LARGE)

    # --- the end of the service ---------------------------------------------------------------------------------------

    def shutdown(self) -> None:
        """A request that is on its way is answered all the same, and is the last one here."""
        self._is_last = True
        if self._is_answering():
            super().shutdown()
        elif self._is_idle:
            self.loop.call_later(self.limits.goodbye_s, self._leave)

    def _leave(self) -> None:
        """Unless something came meanwhile; that ends with its answer, or with its time."""
        if self._is_idle and not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        latest = self._latest()
        return latest is not None and not latest.response_complete

    # --- what ends it -------------------------------------------------------------------------------------------------

    def _time(self, seconds: float) -> None:
        """From now on. A clock that rings earlier than that is left to ring: one a request would cost more than it."""
        self._until = self.loop.time() + seconds
        if self._clock is not None and self._clock.when() > self._until:
            self._clock.cancel()
            self._clock = None
        if self._clock is None:
            self._clock = self.loop.call_at(self._until, self._ring)

    def _stop_clock(self) -> None:
        self._until = math.inf

    def _ring(self) -> None:
        self._clock = None
        if self._until <= self.loop.time():
            self._time_is_over()
        elif self._until < math.inf:
            self._clock = self.loop.call_at(self._until, self._ring)

    def _time_is_over(self) -> None:
        if self._is_deaf:
            self.transport.abort()
        elif self._is_full:
            self._refuse(FULL)
        elif self._is_silent():
            self.transport.close()
        else:
            self._refuse(SLOW)

    def _is_silent(self) -> bool:
        """Nothing came at all: a connection opened ahead of its use, to be closed without a word."""
        return self._is_idle and self._latest() is None

    def _refuse(self, refusal: Refusal) -> None:
        """Answers where that can be taken for no other request's answer, and hears nothing more on this connection."""
        if self._is_deaf:
            return
        self.metrics.refused.labels(refusal.outcome).inc()
        self._is_deaf = True
        self._stop_clock()
        self.pipeline.clear()
        self.flow.resume_reading()
        latest = self._latest()
        mine, before = (None, latest) if self._in_head else (latest, None)
        if before is not None and not before.response_complete:
            before.keep_alive = False  # it is being answered, and that is the last answer here
            return
        if mine is None or not mine.response_started:
            request_id = self.env.new_id("request")
            log.debug("request.refused", request_id=request_id, outcome=refusal.outcome)
            self.transport.write(refusal.render(request_id))
        if mine is not None:
            mine.disconnected = True
            mine.message_event.set()
        self._linger()

    def _latest(self) -> RequestResponseCycle | None:
        """The request whose head came last; uvicorn's own type does not say that there may be none."""
        return self.cycle

    def _linger(self) -> None:
        """Reads for a moment without looking: closing on a client that still sends would cost it the answer."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._time(self.limits.linger_s)

    # --- clients that do not read -------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_clock is None:
            self._write_clock = self.loop.call_later(self.limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self.pause_writing()  # until the client has read it all, or its time is over

    def timeout_keep_alive_handler(self) -> None:
        """Closing waits for what is not read yet, so that ends as well."""
        super().timeout_keep_alive_handler()
        self._is_deaf = True
        self._time(self.limits.linger_s)
