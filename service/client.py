"""A plain user of the public HTTP API: what the commands, and any other Python program, need of it."""

import itertools
import json
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

FINAL = frozenset({"succeeded", "failed", "canceled"})
WAIT_MAX_S = 60.0  # the longest wait that one GET /v1/tasks/{id} takes
PAGE = 100
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_PAUSES_S = (0.2, 0.8)  # between the attempts of a call that may be repeated
_RETRY_AFTER_MAX_S = 10.0
_BUSY = frozenset({429, 502, 503, 504})
_OUTAGE_MAX_S = 60.0  # how long a wait outlives a service that is away, such as for a restart
_STREAM_SILENCE_S = 60.0  # longer than any keep-alive: the connection is taken for dead
_STREAM_PAUSE_S = 1.0  # until the service says otherwise with `retry:`
_STREAM_PAUSE_MAX_S = 30.0
_LINE_MAX = 16 * 1024 * 1024

Json = dict[str, Any]


class ClientError(Exception):
    """Base class of the errors of this module: Unreachable, ApiError."""


class Unreachable(ClientError):
    """No answer, or none that Taskhook would give."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason


class ApiError(ClientError):
    """A problem+json answer; `errors` are {loc, msg}."""

    def __init__(self, status: int, title: str, detail: str, errors: list[Json]) -> None:
        super().__init__(f"{status} {title}: {detail}" if detail else f"{status} {title}")
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = errors

    @property
    def final(self) -> bool:
        """Whether the same call would be refused again."""
        return self.status < 500 and self.status not in {408, 429}


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event; `text` is its JSON as received, the bytes that a signature covers."""

    id: str
    type: str
    text: str

    @property
    def body(self) -> Json:
        return parse_object(self.text) or {}


class StreamNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the stream's connection; `pause_s` is the time until the next try after a loss."""

    connected: bool
    last_event_id: str | None
    first: bool = False
    reason: str = ""
    pause_s: float = 0.0


class Client:
    """A client of the service at `base_url`. Threads may share it."""

    def __init__(self, base_url: str, api_key: str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url,
            headers={"User-Agent": "taskhook", **({"Authorization": f"Bearer {api_key}"} if api_key else {})},
            timeout=httpx.Timeout(20.0, connect=5.0),
            trust_env=httpx.URL(self.base_url).host not in LOOPBACK,  # a proxy can't reach this machine's own ports
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def submit(self, request: Json) -> Json:
        """The new task. Safe to lose an answer: the same Idempotency-Key travels with every attempt of this call."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        return self._object(self._send_repeatedly("POST", "/v1/tasks", headers=headers, content=json.dumps(request)))

    def get(self, task_id: str, wait_s: float = 0.0) -> Json:
        """The task; with `wait_s` (60 at most) the service holds its answer until the task is final."""
        params = {"wait": f"{min(wait_s, WAIT_MAX_S):g}"} if wait_s > 0 else {}
        return self._get(f"/v1/tasks/{quote(task_id, '')}", params, timeout=httpx.Timeout(wait_s + 20.0, connect=5.0))

    def follow(self, task_id: str, wait_s: float | None = None) -> Iterator[Json | None]:
        """The task again and again until it is final or `wait_s` is over; None while the service is away."""
        until = time.monotonic() + wait_s if wait_s is not None else float("inf")
        slice_s, away_since = 1.0, None
        while (left := until - time.monotonic()) > 0:
            try:
                task = self.get(task_id, wait_s=min(slice_s, left))
            except Unreachable:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > _OUTAGE_MAX_S:
                    raise
                yield None
                time.sleep(min(0.5, left))
                continue
            away_since, slice_s = None, min(slice_s * 1.5, 15.0)
            yield task
            if task.get("status") in FINAL:
                return

    def list(self, filters: Mapping[str, str] | None = None, limit: int | None = None) -> Iterator[Json]:
        """Tasks, newest first; `filters` as in the API: status, provider, model, metadata.KEY and so on."""
        return self._pages("/v1/tasks", filters or {}, limit)

    def timeline(self, task_id: str) -> Iterator[Json]:
        return self._endless_pages(f"/v1/tasks/{quote(task_id, '')}/timeline", {})

    def why(self, task_id: str) -> Json:
        return self._get(f"/v1/tasks/{quote(task_id, '')}/why")

    def cancel(self, task_id: str) -> Json:
        return self._object(self._send_once("POST", f"/v1/tasks/{quote(task_id, '')}/cancel"))

    def create_key(self, name: str, scopes: Iterable[str]) -> Json:
        """The new key; its text is in `key`, this once."""
        return self._object(self._send_once("POST", "/v1/keys", json={"name": name, "scopes": [*scopes]}))

    def keys(self) -> Iterator[Json]:
        return self._endless_pages("/v1/keys", {})

    def revoke_key(self, key_id: str) -> None:
        response = self._send_once("DELETE", f"/v1/keys/{quote(key_id, '')}")
        if response.is_error:
            raise parse_problem(response)

    def deliveries(self, task_id: str | None = None, limit: int | None = None) -> Iterator[Json]:
        return self._pages("/v1/deliveries", {"task_id": task_id} if task_id else {}, limit)

    def endpoints(self) -> Iterator[Json]:
        return self._endless_pages("/v1/endpoints", {})

    def events(self, filters: Mapping[str, str] | None = None, limit: int | None = None) -> Iterator[Json]:
        """Stored events, oldest first."""
        return self._pages("/v1/events", filters or {}, limit)

    def stream_events(
        self,
        last_event_id: str | None = None,
        task_id: str | None = None,
        on_notice: Callable[[StreamNotice], None] = lambda _: None,
        on_beginning: Callable[[str], None] = lambda _: None,
    ) -> Iterator[StreamEvent]:
        """Events as they happen, without end: a lost connection is made again and resumes after the last event.

        `on_beginning` gets the event id after which a stream without `after` begins.

        Raises where trying again is useless: Unreachable if the first connection fails, ApiError if it is refused.
        """
        place = _Place(last_event_id, on_beginning)
        while True:
            try:
                with self._open_stream(place.last_event_id, task_id) as response:
                    place.begin(response.headers.get("last-event-id"))
                    on_notice(place.connected())
                    yield from place.read(response.iter_bytes())
                reason = "the service closed the stream"
            except (httpx.TransportError, ClientError) as error:
                if not place.may_continue(error):
                    raise
                reason = _reason(error)
            notice = place.lost(reason)
            on_notice(notice)
            time.sleep(notice.pause_s)

    def _open_stream(self, last_event_id: str | None, task_id: str | None) -> "_Stream":
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(_STREAM_SILENCE_S, connect=5.0)
        params = {"task_id": task_id} if task_id else {}
        request = self._http.build_request("GET", "/v1/events/stream", headers=headers, params=params, timeout=timeout)
        try:
            return _Stream(self.base_url, self._http.send(request, stream=True))
        except httpx.TransportError as error:
            raise Unreachable(self.base_url, _reason(error)) from error

    def read(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """The body of one GET, byte for byte."""
        response = self._send_repeatedly("GET", path, params=params or {})
        if response.is_error:
            raise parse_problem(response)
        return response.content

    def _get(self, path: str, params: Mapping[str, str] | None = None, **options: Any) -> Json:
        return self._object(self._send_repeatedly("GET", path, params=params or {}, **options))

    def _pages(self, path: str, params: Mapping[str, str], limit: int | None) -> Iterator[Json]:
        size = PAGE if limit is None else max(1, min(limit, PAGE))
        return itertools.islice(self._endless_pages(path, {**params, "limit": str(size)}), limit)

    def _endless_pages(self, path: str, params: dict[str, str]) -> Iterator[Json]:
        while True:
            page = self._get(path, params)
            yield from page.get("data", [])
            cursor = page.get("next_cursor")
            if not cursor or not page.get("data"):
                return
            params = {**params, "cursor": cursor}

    def _send_repeatedly(self, method: str, path: str, **options: Any) -> httpx.Response:
        """For calls that do no harm when they arrive twice."""
        for pause_s in _PAUSES_S:
            try:
                response = self._http.request(method, path, **options)
            except httpx.ConnectError:
                break
            except httpx.TransportError:
                time.sleep(pause_s)
                continue
            if response.status_code not in _BUSY:
                return response
            time.sleep(_retry_after(response, pause_s))
        return self._send_once(method, path, **options)

    def _send_once(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unreachable(self.base_url, _reason(error)) from error

    def _object(self, response: httpx.Response) -> Json:
        if response.is_error:
            raise parse_problem(response)
        found = parse_object(response.text) if response.is_success else None
        if found is None:
            raise Unreachable(self.base_url, f"something answers ({response.status_code}), but not as Taskhook does")
        return found


class _Stream:
    """An answered stream request; entering it makes sure that it is an event stream."""

    def __init__(self, url: str, response: httpx.Response) -> None:
        self._url = url
        self._response = response

    def __enter__(self) -> httpx.Response:
        if self._response.is_error:
            self._response.read()
            self._response.close()
            raise parse_problem(self._response)
        if not self._response.headers.get("content-type", "").startswith("text/event-stream"):
            self._response.close()
            raise Unreachable(self._url, "something answers, but not with an event stream")
        return self._response

    def __exit__(self, *_: object) -> None:
        self._response.close()


class _Place:
    """How far a stream was read, over all its connections."""

    def __init__(self, last_event_id: str | None, on_beginning: Callable[[str], None]) -> None:
        self.last_event_id = last_event_id
        self._on_beginning = on_beginning
        self._opened = False
        self._retry_s = _STREAM_PAUSE_S
        self._failures = 0

    def connected(self) -> StreamNotice:
        first, self._opened, self._failures = not self._opened, True, 0
        return StreamNotice(connected=True, last_event_id=self.last_event_id, first=first)

    def begin(self, event_id: str | None) -> None:
        """The event after which the stream begins; None where it resumes."""
        if event_id and not self.last_event_id:
            self.last_event_id = event_id
            self._on_beginning(event_id)

    def may_continue(self, error: Exception) -> bool:
        """A stream that never was is the caller's business; one that was is made again unless it is refused."""
        return self._opened and not (isinstance(error, ApiError) and error.final)

    def lost(self, reason: str) -> StreamNotice:
        """The pause is the server's `retry:`, doubled with each failure, with jitter so that not all return at once."""
        pause_s = min(self._retry_s * 2.0 ** min(self._failures, 10), max(_STREAM_PAUSE_MAX_S, self._retry_s))
        pause_s *= 0.75 + secrets.randbelow(500) / 1000
        self._failures += 1
        return StreamNotice(connected=False, last_event_id=self.last_event_id, reason=reason, pause_s=pause_s)

    def read(self, chunks: Iterable[bytes]) -> Iterator[StreamEvent]:
        for fields in parse_frames(chunks):
            self.last_event_id = fields.get("id", self.last_event_id) or None
            if fields.get("retry", "").isdecimal():
                self._retry_s = int(fields["retry"]) / 1000
            if fields.get("data"):
                yield StreamEvent(
                    id=self.last_event_id or "", type=fields.get("event") or "message", text=fields["data"]
                )


def parse_frames(chunks: Iterable[bytes]) -> Iterator[dict[str, str]]:
    """Server-sent events as their fields (HTML standard 9.2.6); an unfinished one at the end is dropped."""
    fields: dict[str, str] = {}
    for line in split_lines(chunks):
        if not line:
            if fields:
                yield fields
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and "data" in fields:
            fields["data"] += "\n" + value
        elif name and not (name == "id" and "\0" in value):
            fields[name] = value


def split_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines, ended by CR, LF or CRLF alone: the line separators of Unicode are part of the text."""
    rest, after_cr, start = b"", False, True
    for chunk in chunks:
        fresh = chunk[1:] if after_cr and chunk.startswith(b"\n") else chunk
        if not fresh:
            after_cr = after_cr and not chunk
            continue
        after_cr = fresh.endswith(b"\r")
        *lines, rest = re.split(rb"\r\n|\n|\r", rest + fresh)
        if len(rest) > _LINE_MAX:
            raise httpx.RemoteProtocolError("an event of unreasonable size")
        for line in lines:
            text = line.decode("utf-8", "replace")
            yield text.removeprefix("\ufeff") if start else text
            start = False


def parse_problem(response: httpx.Response) -> ApiError:
    """Return the error in any answer, of Taskhook or of a proxy in front of it."""
    problem = parse_object(response.text) or {}
    errors = [entry for entry in problem.get("errors") or [] if isinstance(entry, dict)]
    title = str(problem.get("title") or response.reason_phrase or "Error")
    return ApiError(response.status_code, title, str(problem.get("detail") or ""), errors)


def parse_object(text: str) -> Json | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def utc_now() -> datetime:
    return datetime.now(UTC)


def _retry_after(response: httpx.Response, otherwise: float) -> float:
    text: str = response.headers.get("retry-after", "")
    return min(int(text), _RETRY_AFTER_MAX_S) if text.isdecimal() else otherwise


def _reason(error: Exception) -> str:
    """The plain cause: 'connection refused' rather than the layers that pass it on."""
    if isinstance(error, Unreachable):
        return error.reason
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.RemoteProtocolError):
        return "the connection broke"
    text = str(error) or type(error).__name__
    return re.sub(r"^\[Errno -?\d+\] ", "", text)
