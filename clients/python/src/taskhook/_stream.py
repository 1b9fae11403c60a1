"""The event stream without its connections: server-sent events out of bytes, and where to go on after a loss."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import httpx

from taskhook._plan import Plan, Request, asked_pause_s, is_final, not_ours
from taskhook.errors import APIConnectionError, APIError
from taskhook.events import Event, decode_event

SILENCE_S = 45.0
"""Three times as long as the service is ever silent: the connection is taken for dead."""
PAUSE_S, PAUSE_MAX_S = 1.0, 30.0
FRAME_MAX = 16 * 1024 * 1024


class Place:
    """How far a stream was read, over all its connections."""

    def __init__(self, params: Mapping[str, str], last_event_id: str | None) -> None:
        self.last_event_id = last_event_id
        self._params = params
        self._frames = Frames()
        self._was_open = False
        self._retry_s = PAUSE_S
        self._failures = 0
        self._pause_s = 0.0

    def open(self) -> Plan[httpx.Response]:
        """An answered stream. One that was open once is opened again for as long as it is not refused."""
        while True:
            try:
                response = yield self._request()
            except APIError as error:
                if not self._was_open or is_final(error):
                    raise
                self.lost(asked_pause_s(error))
                continue
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise not_ours(response)
            self.last_event_id = self.last_event_id or response.headers.get("last-event-id")
            self._was_open, self._failures, self._frames = True, 0, Frames()
            return response

    def _request(self) -> Request:
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return Request(
            method="GET",
            path="/v1/events/stream",
            params=self._params,
            headers=headers,
            repeatable=True,
            retries=not self._was_open,
            read_timeout_s=SILENCE_S,
            pause_s=self._pause_s,
        )

    def lost(self, asked_s: float = 0.0) -> None:
        """The pause before the next connection is the service's `retry:`, doubled with each failure."""
        longest_s = max(PAUSE_MAX_S, self._retry_s, asked_s)
        self._pause_s = min(max(self._retry_s * 2.0 ** min(self._failures, 10), asked_s), longest_s)
        self._failures += 1

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        for fields in self._frames.feed(chunk):
            self.last_event_id = fields.get("id", self.last_event_id)
            if fields.get("retry", "").isdecimal():
                self._retry_s = int(fields["retry"]) / 1000
            if fields.get("data"):
                yield _event(fields["data"])


def _event(text: str) -> Event:
    try:
        return decode_event(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise APIConnectionError(f"the stream holds what is no event: {error}") from error


class Frames:
    """Server-sent events as their fields (HTML standard, 9.2.6), from bytes in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False
        self._fields: dict[str, str] = {}

    def feed(self, chunk: bytes) -> Iterator[dict[str, str]]:
        for line in self._lines(chunk):
            if line:
                self._read(line.decode("utf-8", "replace"))
            elif self._fields:
                fields, self._fields = self._fields, {}
                yield fields

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Lines end with CR, LF or CRLF alone: the line separators of Unicode are part of the text."""
        fresh = chunk.removeprefix(b"\n") if self._after_cr else chunk
        self._after_cr = chunk.endswith(b"\r")
        *lines, self._rest = re.split(rb"\r\n|\n|\r", self._rest + fresh)
        if len(self._rest) > FRAME_MAX:
            raise httpx.RemoteProtocolError("an event of unreasonable size")
        return lines

    def _read(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in self._fields:
            self._fields["data"] += "\n" + value
        elif name and not (name == "id" and "\0" in value):
            self._fields[name] = value
