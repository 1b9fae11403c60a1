"""Notify open pages of changes, so that they reload: server-sent events without content."""

from contextlib import suppress

from starlette.types import Receive, Send

from service.dashboard.visit import Visit
from service.store.bus import DELIVERIES, EVENTS, tasks_of
from service.web.auth import Caller
from service.web.calls import Reply, first_of, gone
from service.web.context import Web
from service.web.stream import HEADERS, HEARTBEAT, OPENING

AT_MOST_EVERY_S = 1.0
STILL_HERE_S = 15.0
CHANGED = b"event: changed\ndata: {}\nretry: 3000\n\n"


async def follow(visit: Visit) -> Reply:
    return _Follower(visit.web, visit.caller)


class _Follower:
    """An open page that follows changes."""

    def __init__(self, web: Web, caller: Caller) -> None:
        self._web = web
        self._caller = caller

    async def __call__(self, receive: Receive, send: Send) -> None:
        running = self._web.running
        with self._web.pages, running.metrics.streams.track_inprogress():
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            revoked = self._web.keys.until_revoked(self._caller)
            await first_of(None, self._tell(send), gone(receive), running.stopping.wait(), revoked)
        with suppress(TimeoutError, OSError):
            await send({"type": "http.response.body", "body": b""})

    async def _tell(self, send: Send) -> None:
        topics = (EVENTS, DELIVERIES, *map(tasks_of, self._web.providers))
        with self._web.store.bus.subscribed(*topics) as bell:
            await _send(send, OPENING)
            while True:
                rang = await first_of(STILL_HERE_S, bell.wait(None))
                await _send(send, HEARTBEAT if rang is None else CHANGED)
                await first_of(AT_MOST_EVERY_S, self._web.running.stopping.wait())


async def _send(send: Send, chunk: bytes) -> None:
    await send({"type": "http.response.body", "body": chunk, "more_body": True})
