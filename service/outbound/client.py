"""The two clients: provider calls that distinguish "not sent" from "unconfirmed", and guarded posts to endpoints."""

import asyncio
import io
import math
import ssl
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from service.core.env import Env
from service.core.observation import NotSent, Unconfirmed
from service.outbound.failures import clean, reason_of, surely_not_sent
from service.outbound.guard import URL_MAX, Guard, Target
from service.outbound.head import BrokenAnswer, Head, HeadResponse, first_values, keep_heads
from service.outbound.resolver import Resolver
from service.providers.base import HttpReply, HttpRequest

USER_AGENT = "Taskhook"
REPLY_MAX = 2 * 1024 * 1024
EXCERPT_MAX = 1024

# Below the shortest idle times of common servers (2 s), so that a paid submit hardly ever meets a connection that its
# server is just closing.
_KEEPALIVE_S = 1.0
_CONNECT_S = 10.0
_LATE_S, _TO_READ_S = 1.0, 2.0
_EXCERPT_S = 1.0
"""For the beginning of a body, once the head said that the event is received."""
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_ONE_PIECE_MAX = 1 << 20


class ProviderClient:
    """Calls providers. Follows no redirect, keeps no cookie, sends no POST twice."""

    def __init__(
        self, env: Env, *, resolver: AbstractResolver | None = None, tls: ssl.SSLContext | None = None, limit: int = 256
    ) -> None:
        self._env = env
        self._resolver = resolver
        self._tls = tls
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def send(self, request: HttpRequest) -> HttpReply | NotSent | Unconfirmed:
        """The answer, whatever its status, within `request.timeout_s`; NotSent only when no byte can have arrived."""
        if self._is_closed:
            return NotSent(reason="shutting down")
        if not all(text.isascii() and text.isprintable() for pair in request.headers.items() for text in pair):
            return NotSent(reason="invalid URL or header")
        connect_s = min(_CONNECT_S, request.timeout_s / 2)
        try:
            async with asyncio.timeout(None) as limit:
                ending = _end(limit, request.timeout_s)
                try:
                    return await self._exchange(request, connect_s)
                finally:
                    ending.cancel()
        except TimeoutError:
            return Unconfirmed(reason=f"timed out after {request.timeout_s:g} s")

    async def close(self) -> None:
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, request: HttpRequest, connect_s: float) -> HttpReply | NotSent | Unconfirmed:
        response: aiohttp.ClientResponse | None = None
        try:
            response = await self._send(request, connect_s)
            return await self._read(response)
        except Exception as exc:
            reason = reason_of(exc, connect_s=connect_s, total_s=request.timeout_s)
            is_sent = response is not None or not surely_not_sent(exc)
            return Unconfirmed(reason=reason) if is_sent else NotSent(reason=reason)
        finally:
            if response is not None:
                response.release()

    async def _send(self, request: HttpRequest, connect_s: float) -> aiohttp.ClientResponse:
        session = self._session or self._open_session()
        timeout = aiohttp.ClientTimeout(total=None, connect=connect_s, ceil_threshold=math.inf)
        return await session.request(
            request.method,
            URL(request.url, encoded=True),  # signed links are valid byte for byte only
            headers=request.headers,
            data=_in_pieces(request.body),
            timeout=timeout,
            allow_redirects=False,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> HttpReply:
        sent = await _bounded(response)
        body = None if sent is None else _decoded(sent, response.headers.get("Content-Encoding", ""))
        return HttpReply(
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body or b"",
            received_at=self._env.now(),
            too_long=REPLY_MAX if body is None else None,
        )

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver or Resolver(),
            ssl=self._tls or True,
            keepalive_timeout=_KEEPALIVE_S,
            limit=self._limit,
        )
        self._session = _session(connector)
        return self._session


class Attempted(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a post to an endpoint; `error` is None exactly if it was received."""

    status_code: int | None
    error: str | None
    excerpt: str
    retry_after: str | None
    location: str | None
    duration_ms: int

    @property
    def received(self) -> bool:
        """Whether the head of a 2xx came in time. Its body decides nothing, even if it breaks the rules."""
        return self.error is None and self.status_code is not None


class Poster:
    """Posts to subscribers: aiohttp over one connector whose every socket the guard opens.

    Nothing else can open one: no proxy, no redirect, TCP alone; a pooled connection leads to an address judged before.
    What waits for a connection spends its own time, so the caller bounds how many are under way; 0 sets no limit here.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        timeout_s: float = 15.0,
        limit: int = 0,
        limit_per_host: int = 0,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._resolver = resolver or guard.resolver
        self._timeout_s = timeout_s
        self._limits = (limit, limit_per_host)
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float | None = None) -> Attempted:
        """Make one attempt within `timeout_s`, or the time of this poster; never raise, whatever the network does."""
        timeout_s = timeout_s or self._timeout_s
        started = _clock()
        target = self._guard.target(url)
        if isinstance(target, str):
            return _attempted(None, f"refused: URL {target}", b"", started)
        head: Head | None = None
        kept = bytearray()
        try:
            async with self._send(target, headers, body, timeout_s) as response:
                head = Head(status=response.status, headers=first_values(response.headers.items()))
                error = _verdict(head)
                await _keep_excerpt(kept, response, received=error is None)
        except BrokenAnswer as broken:
            head, error = broken.head, _verdict(broken.head)
        except Exception as exc:
            error = reason_of(exc, connect_s=timeout_s, total_s=timeout_s)
        return _attempted(head, error, kept, started)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _send(
        self, target: Target, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        session = self._session or self._open_session()
        # Without the infinite threshold aiohttp rounds long times up to whole seconds of the loop's clock.
        timeout = aiohttp.ClientTimeout(total=timeout_s, ceil_threshold=math.inf)
        response = await session.post(
            target.url, data=_in_pieces(body), headers=headers, allow_redirects=False, timeout=timeout
        )
        try:
            yield response
        finally:
            if not response.closed:
                response.close()

    def _open_session(self) -> aiohttp.ClientSession:
        limit, limit_per_host = self._limits
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            socket_factory=self._guard.socket_factory,
            ssl=self._tls or True,
            limit=limit,
            limit_per_host=limit_per_host,
        )
        keep_heads(connector)
        self._session = _session(connector, read_bufsize=8 * EXCERPT_MAX, response_class=HeadResponse)
        return self._session


def _clock() -> float:
    """The clock of the event loop, which measures the timeouts too: an attempt that timed out took at least as long."""
    return asyncio.get_running_loop().time()


def _end(limit: asyncio.Timeout, after_s: float) -> asyncio.TimerHandle:
    """A process that stood still has yet to read what came meanwhile: the answer to a paid submit may be in it."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + after_s

    def end() -> None:
        stood_still = loop.time() - ends_at > _LATE_S
        limit.reschedule(loop.time() + (_TO_READ_S if stood_still else 0.0))

    return loop.call_at(ends_at, end)


def _session(connector: aiohttp.TCPConnector, **more: Any) -> aiohttp.ClientSession:
    """Keeps no cookie, follows no proxy of the environment, unpacks nothing."""
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        **more,
    )


def _in_pieces(body: bytes | None) -> bytes | io.BytesIO | None:
    """Above a size aiohttp wants a file, which it writes in pieces."""
    return io.BytesIO(body) if body is not None and len(body) > _ONE_PIECE_MAX else body


async def _keep_excerpt(kept: bytearray, response: aiohttp.ClientResponse, *, received: bool) -> None:
    """Read the first KiB, or all there is. Where the event is received already, nothing hangs on it."""
    try:
        async with asyncio.timeout(_EXCERPT_S if received else None):
            while len(kept) < EXCERPT_MAX and not response.content.at_eof():
                kept += await response.content.read(EXCERPT_MAX - len(kept))
    except Exception:
        if not received:
            raise


def _verdict(head: Head) -> str | None:
    if 200 <= head.status < 300:
        return None
    location = head.headers.get("location")
    if location and 300 <= head.status < 400:
        return f"redirect to {clean(location, 200)}"
    return f"status {head.status}"


def _attempted(head: Head | None, error: str | None, kept: bytes | bytearray, started: float) -> Attempted:
    retry_after = location = None
    if head is not None:
        retry_after, location = head.headers.get("retry-after"), head.headers.get("location")
    return Attempted(
        status_code=None if head is None else head.status,
        error=error,
        excerpt=kept.decode(errors="replace").replace("\0", ""),
        retry_after=retry_after and clean(retry_after),
        location=location and clean(location, URL_MAX),
        duration_ms=round((_clock() - started) * 1000),
    )


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The body as sent; None when it is over the limit."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > REPLY_MAX:
            response.close()
            return None
    return bytes(body)


def _decoded(body: bytes, encoding: str) -> bytes | None:
    """The body out of the encoding that nobody asked for; None when it would be over the limit, raises when broken."""
    wbits = _WBITS.get(encoding.strip().lower())
    if wbits is None or not body:
        return body
    inflater = zlib.decompressobj(wbits)
    plain = inflater.decompress(body, REPLY_MAX + 1)
    if len(plain) > REPLY_MAX:
        return None
    if not inflater.eof:
        raise zlib.error("incomplete")
    return plain
