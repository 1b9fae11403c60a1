"""The event stream: server-sent events that resume without a gap."""

import asyncio
from contextlib import suppress
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.types import Receive, Send

from service.core.event import EVENT_TYPES
from service.core.problems import FieldError, InvalidRequest, Unavailable
from service.store.reads import StoredEvent
from service.web.auth import Caller
from service.web.calls import ID_SHAPES, Call, first_of, gone
from service.web.context import Web
from service.web.events import TaskId, types_for
from service.web.queries import query_error
from service.web.tail import PAGE

QUIET_S = 15.0
RETRY = b"retry: 2000\n"
GOODBYE_S = 1.0
RETRY_AFTER_S = 10
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
OPENING = b": connected\n\n"
"""A frame that has an id or a `retry` and no data is an empty event to httpx-sse, r3labs/sse and others."""
HEARTBEAT = b": still here\n"
"""A comment without the empty line that ends a frame: httpx-sse makes an empty event of that, too."""
_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


class StreamEvents(msgspec.Struct, frozen=True, kw_only=True):
    task_id: TaskId | UnsetType = UNSET
    types: Annotated[str, Meta(description="Only events of these types, comma-separated.")] | None = None
    last_event_id: Annotated[str, Meta(description="For clients that can't send `Last-Event-ID`.")] | None = None


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Filter of one client; empty selects everything."""

    task_id: str | None
    types: tuple[str, ...]

    def lets_through(self, event: StoredEvent) -> bool:
        return self.task_id in (None, event.task_id) and (not self.types or event.type in self.types)


async def stream_events(web: Web, call: Call[StreamEvents, None]) -> "EventStream":
    types = types_for(call.caller, _read_types(call.query.types))
    wanted = Wanted(task_id=call.query.task_id or None, types=types)
    given = _read_last_id(call)
    last_id = given or await web.store.reads.newest_event_id()
    position = await web.store.reads.position_of(last_id)
    begins_at = None if given else last_id
    return EventStream(web, call.caller, wanted, begins_at, position, is_head=call.scope["method"] == "HEAD")


def _read_last_id(call: Call[StreamEvents, None]) -> str | None:
    header = call.header(b"last-event-id")
    for loc, value in (["header", "Last-Event-ID"], header), (["query", "last_event_id"], call.query.last_event_id):
        if value:
            if not ID_SHAPES["event"].fullmatch(value):
                raise InvalidRequest([FieldError(loc=list(loc), msg="is no event's id")])
            return value
    return None


def _read_types(text: str | None) -> tuple[str, ...]:
    types = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    if any(name not in EVENT_TYPES for name in types):
        raise InvalidRequest([query_error("types", f"must be some of {', '.join(EVENT_TYPES)}, comma-separated")])
    return types


class EventStream:
    """The reply to one client, from a place in the stream on. It holds one page of events at most.

    `begins_at` is the event before that place, None when the client knows it. It is in a header: a client that is cut
    off before its first event can resume from it, and no client takes it for an event.
    """

    def __init__(
        self, web: Web, caller: Caller, wanted: Wanted, begins_at: str | None, position: int, *, is_head: bool
    ) -> None:
        self._web = web
        self._caller = caller
        self._tail = web.tail
        self._wanted = wanted
        self._begins_at = begins_at
        self._position = position
        self._is_head = is_head
        self._is_begun = False
        self._quiet_until = 0.0

    async def __call__(self, receive: Receive, send: Send) -> None:
        running = self._web.running
        if self._tail.clients >= running.stream_max:
            raise Unavailable("Too many clients follow the stream.", retry_after_s=RETRY_AFTER_S)
        with running.metrics.streams.track_inprogress():
            async with self._tail.followed():
                begins_at = () if self._begins_at is None else ((b"last-event-id", self._begins_at.encode()),)
                await send({"type": "http.response.start", "status": 200, "headers": (*HEADERS, *begins_at)})
                if not self._is_head:
                    revoked = self._web.keys.until_revoked(self._caller)
                    await first_of(None, self._write(send), gone(receive), running.stopping.wait(), revoked)
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send) -> None:
        await self._send(send, OPENING)
        while True:
            await self._catch_up(send)
            await self._follow(send)
            left_s = self._quiet_until - asyncio.get_running_loop().time()
            if left_s <= 0:
                await self._send(send, HEARTBEAT)
            elif self._position >= self._tail.last:
                await self._tail.grown(left_s)

    async def _catch_up(self, send: Send) -> None:
        """Send the events before the tail from the store; a page without more holds all there were."""
        while self._position < self._tail.floor:
            known = self._tail.last
            page = await self._web.store.reads.events_after(
                self._position, PAGE, task_id=self._wanted.task_id, types=self._wanted.types
            )
            for event in page:
                self._position = event.seq
                await self._send_event(send, event)
            if not page.has_more:
                self._position = max(self._position, known)

    async def _follow(self, send: Send) -> None:
        """From the tail, until it ends or has left a slow client behind."""
        while self._position >= self._tail.floor and (event := self._tail.after(self._position)):
            self._position = event.seq
            if self._wanted.lets_through(event):
                await self._send_event(send, event)

    async def _send_event(self, send: Send, event: StoredEvent) -> None:
        """The first frame says how soon to reconnect."""
        frame = render_frame(event)
        await self._send(send, frame if self._is_begun else frame[:-1] + RETRY + b"\n")
        self._is_begun = True

    async def _send(self, send: Send, chunk: bytes) -> None:
        """Waits while the client is slow, so that nothing piles up."""
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
        self._quiet_until = asyncio.get_running_loop().time() + QUIET_S


def render_frame(event: StoredEvent) -> bytes:
    """Render a frame with one line of data: a line break between JSON tokens becomes a space.

    A provider's payload is in the body as it came, line breaks and all, and each would end the line here.
    """
    data = event.body.translate(_ONE_LINE)
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), data)
