"""The only I/O of this library: carries out plans, blocking or with asyncio."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from taskhook._plan import Attempt, Plan, Policy, Request, steps
from taskhook._version import __version__

T = TypeVar("T")
CONNECT_S = 5.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options shared by all calls of a client. The key never shows in a repr."""

    base_url: str
    api_key: str = field(repr=False)
    timeout: httpx.Timeout
    policy: Policy

    @property
    def trusts_environment(self) -> bool:
        """A proxy can't reach this machine's own ports."""
        return httpx.URL(self.base_url).host not in _LOOPBACK

    def arguments(self, request: Request) -> dict[str, Any]:
        """Return the arguments from which httpx builds the request."""
        headers = {
            "Authorization": f"Bearer {self.api_key}",
            "Accept": "application/json",
            "User-Agent": f"taskhook-python/{__version__}",
            **request.headers,
        }
        body = {} if request.body is None else {"json": request.body}
        return {
            "method": request.method,
            "url": self.base_url + request.path,
            "params": request.params,
            "headers": headers,
            "timeout": self._timeout(request.read_timeout_s),
            **body,
        }

    def _timeout(self, read_s: float | None) -> httpx.Timeout:
        own = self.timeout
        if read_s is None or own.read is None:
            return own
        return httpx.Timeout(connect=own.connect, read=read_s, write=own.write, pool=own.pool)


class Caller:
    """Carries out plans, blocking."""

    def __init__(self, options: Options, http: httpx.Client) -> None:
        self._options = options
        self._http = http

    def run(self, plan: Plan[T], *, stream: bool = False) -> T:
        """With `stream` a good response is left open, its body unread."""
        todo = steps(plan, self._options.policy)
        try:
            attempt = next(todo)
            while True:
                try:
                    response = self._perform(attempt, stream)
                except httpx.TransportError as error:
                    attempt = todo.throw(error)
                else:
                    attempt = todo.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def _perform(self, attempt: Attempt, stream: bool) -> httpx.Response:
        if attempt.pause_s:
            time.sleep(attempt.pause_s)
        request = self._http.build_request(**self._options.arguments(attempt.request))
        response = self._http.send(request, stream=stream)
        if not response.is_success:
            response.read()
        return response


class AsyncCaller:
    """Carries out plans with asyncio."""

    def __init__(self, options: Options, http: httpx.AsyncClient) -> None:
        self._options = options
        self._http = http

    async def run(self, plan: Plan[T], *, stream: bool = False) -> T:
        """With `stream` a good response is left open, its body unread."""
        todo = steps(plan, self._options.policy)
        try:
            attempt = next(todo)
            while True:
                try:
                    response = await self._perform(attempt, stream)
                except httpx.TransportError as error:
                    attempt = todo.throw(error)
                else:
                    attempt = todo.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _perform(self, attempt: Attempt, stream: bool) -> httpx.Response:
        if attempt.pause_s:
            await asyncio.sleep(attempt.pause_s)
        request = self._http.build_request(**self._options.arguments(attempt.request))
        response = await self._http.send(request, stream=stream)
        if not response.is_success:
            await response.aread()
        return response
