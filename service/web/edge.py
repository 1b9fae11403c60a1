"""Where connections come in: uvicorn's protocol, bounded in time, size and number, and strict where others differ.

Uvicorn with httptools bounds none of these: a header sent a byte a minute holds a connection for ever, and a header of
a gigabyte is read whole. What is refused here never reaches the routes, and leaves a count and a line for debugging.
Whoever reads and parses here knows nothing of the caller yet, so nothing is kept of a body beyond one small read until
the application asks for it; what slow clients hold is bounded together, and the largest holder pays for it.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import httptools
import msgspec
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.core.env import Env
from service.telemetry import Metrics
from service.web.cycle import Cycle, Flow
from service.web.inlet import SMALL, Inlet
from service.web.refusals import CROWDED, FULL, LARGE, MALFORMED, SLOW, Refusal, judge_head
from service.web.shares import Share, Shares
from service.web.throttle import place_of

log = structlog.get_logger()

REFUSED_EXTRA = 256
"""Connections beyond the limit that get a 503; further ones are closed at once."""
PIPELINE_MAX = 200
"""Requests that wait for the answers of those before them on one connection."""
ROOM = 16
"""One of so many connections of the largest client is closed when there are too many."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """`head_s` and `body_s` are whole times, not pauses; `write_s` is how long a client may not read at all.

    `heads_bytes` is for all heads that are not complete, `unread_bytes` for all answers that clients do not read.
    """

    connections: int
    head_s: float = 10.0
    body_s: float = 30.0
    write_s: float = 30.0
    linger_s: float = 2.0
    goodbye_s: float = 0.5
    head_bytes: int = 32 * 1024
    headers: int = 100
    heads_bytes: int = 16 << 20
    unread_bytes: int = 64 << 20


def edge(limits: Limits, metrics: Metrics, env: Env) -> Callable[..., Inlet]:
    """Return what uvicorn calls for a protocol of each connection."""
    heads, unread = Shares(limits.heads_bytes), Shares(limits.unread_bytes)
    given = {"limits": limits, "metrics": metrics, "env": env, "heads": heads, "unread": unread}
    protocol = type("LimitedEdge", (Edge,), given)

    def connect(*args: Any, **named: Any) -> Inlet:
        return Inlet(protocol(*args, **named))

    return connect


class Edge(HttpToolsProtocol):
    limits: Limits
    metrics: Metrics
    env: Env
    heads: Shares
    unread: Shares

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
        self._is_offer = False
        self._since_progress = 0
        self._head_share: Share | None = None
        self._unread_share: Share | None = None
        self.wants_more = False
        self.address = ""
        self.waiting_since = 0.0

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self.address = place_of(self.client[0] if self.client else "")
        self.waiting_since = self.loop.time()
        if len(self.connections) > self.limits.connections:
            self._make_room()
        extra = len(self.connections) - self.limits.connections
        if extra > REFUSED_EXTRA:
            transport.abort()
            return
        self._is_full = extra > 0
        self._time(self.limits.linger_s if self._is_full else self.timeout_keep_alive)

    def _make_room(self) -> None:
        """Close the oldest connections that wait for a request, of the address that has most of them."""
        waiting = [one for one in self.connections if isinstance(one, Edge) and one is not self and one.is_waiting]
        if waiting:
            largest = Counter(one.address for one in waiting).most_common(1)[0][0]
            theirs = sorted((one for one in waiting if one.address == largest), key=lambda one: one.waiting_since)
            for one in theirs[: len(theirs) // ROOM + 1]:
                self.metrics.refused.labels(FULL.outcome).inc()
                one.drop()

    @property
    def is_waiting(self) -> bool:
        """Whether the service owes this client nothing: there is no complete head without its answer."""
        return not self._is_answering() and not self.transport.is_closing()

    def drop(self) -> None:
        self._is_deaf = True
        self.connections.discard(self)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._clock is not None:
            self._clock.cancel()
        self.resume_writing()
        self._release_head()
        super().connection_lost(exc)
        self.pipeline.clear()

    def data_received(self, data: bytes | memoryview) -> None:
        if self._is_deaf:
            return
        if self._is_full:
            self._refuse(FULL)
            return
        self._unset_keepalive_if_required()
        if self._is_idle:
            self._is_idle = False
            self._time(self.limits.head_s)
        self._since_progress += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(MALFORMED)
        else:
            self._weigh()

    def _feed(self, data: bytes | memoryview) -> None:
        while not self._is_deaf:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._decline_offer()
                data = data[offer.args[0] :]
            else:
                return

    def _decline_offer(self) -> None:
        """Read a head that offers another protocol again without the offer (RFC 9110 7.8).

        The parser would take all that follows for that protocol, though a body follows.
        """
        if not self._is_offer:
            return
        self._is_offer = False
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        version, method = self.parser.get_http_version().encode(), self.parser.get_method()
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(head)

    # --- one request --------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_deaf:
            raise ConnectionAbortedError  # ends the parsing of what is left of this read
        super().on_message_begin()
        self._in_head = True
        self._since_progress = 0
        self.wants_more = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Ignore trailers: they would be taken for headers, which were judged already."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._is_deaf:
            return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._is_offer = True
            return
        if refusal := self._judge():
            self._refuse(refusal)
            return
        self._time(self.limits.body_s)
        super().on_headers_complete()
        self.cycle.__class__ = Cycle  # uvicorn makes it itself; no part of it has run yet
        self._in_head = False
        self._since_progress = 0
        self._release_head()
        if self._is_last and (latest := self._latest()):
            latest.keep_alive = False

    def _judge(self) -> Refusal | None:
        if len(self.pipeline) >= PIPELINE_MAX:
            return CROWDED
        version, method = self.parser.get_http_version(), self.parser.get_method()
        size_max, count_max = self.limits.head_bytes, self.limits.headers
        return judge_head(method, self.url, version, self.headers, size_max=size_max, count_max=count_max)

    def on_body(self, body: bytes) -> None:
        """Reading stops after a little, and continues when the application asks for it: it knows the caller."""
        self._since_progress = 0
        cycle = self.cycle
        if self._is_deaf or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) >= SMALL:
            self.wants_more = True  # the next read is one that was asked for
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._is_deaf or self._is_offer:
            return
        self._stop_clock()
        super().on_message_complete()
        self._in_head = self._is_idle = True
        self.wants_more = False
        self.waiting_since = self.loop.time()
        if self.cycle.response_complete and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _weigh(self) -> None:
        """Refuse what is larger than a head may be and no part of a body: heads, trailers, extensions of chunks."""
        if self._is_idle or self._is_deaf:
            return
        if self._since_progress > self.limits.head_bytes:
            self._refuse(LARGE)
        elif self._in_head:
            self._head_share = self._head_share or self.heads.hold(self.address, self.drop)
            self._head_share.set(self._since_progress)

    def _release_head(self) -> None:
        if self._head_share is not None:
            self._head_share.release()
            self._head_share = None

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
        self._is_deaf = self.wants_more = True
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
        self._unread_share = self._unread_share or self.unread.hold(self.address, self.drop)
        self._unread_share.set(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_clock is not None:
            self._write_clock.cancel()
            self._write_clock = None
        if self._unread_share is not None:
            self._unread_share.release()
            self._unread_share = None

    # --- after an answer ----------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.waiting_since = self.loop.time()
        if self.transport.is_closing():
            self.pause_writing()  # until the client has read it all, or its time is over
        elif self._is_deaf or getattr(self.cycle, "lingers", False):
            self._unset_keepalive_if_required()
            self._is_deaf = self.wants_more = True
            self._linger()
        else:
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Closing waits for what is not read yet, so that ends as well."""
        super().timeout_keep_alive_handler()
        self._is_deaf = True
        self._time(self.limits.linger_s)
