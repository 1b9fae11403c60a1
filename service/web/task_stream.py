"""The stream of one task as server-sent events: its state now, and again whenever it changes, until it is final.

The `id` of a frame identifies the state, so a client that resumes with `Last-Event-ID` gets only what it has not seen.
A client that has seen the final state gets 204, upon which an EventSource stops reconnecting.
"""

import zlib
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.types import Receive, Send

from service.core.problems import Unauthorized
from service.core.task import Task
from service.core.times import rfc3339
from service.web.auth import Caller
from service.web.calls import Answer, Call, Reply, first_of, gone
from service.web.context import Web
from service.web.stream import HEADERS, HEARTBEAT, OPENING
from service.web.tickets import encode_task

HEARTBEAT_S = 15.0


class StreamTask(msgspec.Struct, frozen=True, kw_only=True):
    ticket: Annotated[str, Meta(description="A ticket of this task, instead of an API key.")] | None = None
    last_event_id: Annotated[str, Meta(description="For clients that cannot send `Last-Event-ID`.")] | None = None


class _Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The data of one frame; `data` is the task."""

    type: str
    timestamp: str
    data: msgspec.Raw


async def stream_task(web: Web, call: Call[StreamTask, None]) -> Reply:
    task_id = call.path_id("task")
    task = await web.store.reads.get_task(task_id)
    seen = call.header(b"last-event-id") or call.query.last_event_id
    if task.is_final and seen == _state_id(task, encode_task(task, call.caller)):
        return Answer(204)
    return TaskStream(web, call.caller, task_id, seen, is_head=call.scope["method"] == "HEAD")


class TaskStream:
    """The reply to one client. It holds one frame at most, and takes no place of a request."""

    def __init__(self, web: Web, caller: Caller, task_id: str, seen: str | None, *, is_head: bool) -> None:
        self._web = web
        self._caller = caller
        self._task_id = task_id
        self._seen = seen
        self._is_head = is_head

    async def __call__(self, receive: Receive, send: Send) -> None:
        web = self._web
        with web.waits, web.running.metrics.streams.track_inprogress():
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            if not self._is_head:
                await first_of(None, self._write(send), gone(receive), web.running.stopping.wait())
        await send({"type": "http.response.body", "body": b""})

    async def _write(self, send: Send) -> None:
        """Subscribe before reading, so that no change is missed; end after the final state or a revoked key."""
        await _send(send, OPENING)
        with self._web.store.bus.subscribed(self._task_id) as changed:
            while True:
                task = await self._web.store.reads.get_task(self._task_id)
                if not await self._may_see(task):
                    return
                frame, state = self._render(task)
                if state != self._seen:
                    await _send(send, frame)
                    self._seen = state
                if task.is_final:
                    return
                if await first_of(HEARTBEAT_S, changed.wait(None)) is None:
                    await _send(send, HEARTBEAT)

    async def _may_see(self, task: Task) -> bool:
        try:
            encode_task(task, self._caller)
        except Unauthorized:
            return False
        return await self._web.tickets.holds(self._caller)

    def _render(self, task: Task) -> tuple[bytes, str]:
        data = encode_task(task, self._caller)
        state, kind = _state_id(task, data), f"task.{task.status}"
        frame = _Frame(type=kind, timestamp=rfc3339(self._web.env.now()), data=msgspec.Raw(data))
        line = msgspec.json.encode(frame).translate(bytes.maketrans(b"\r\n", b"  "))
        return b"id: %b\nevent: %b\ndata: %b\n\n" % (state.encode(), kind.encode(), line), state


def _state_id(task: Task, data: bytes) -> str:
    return f"{task.status}-{zlib.crc32(data):08x}"


async def _send(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
