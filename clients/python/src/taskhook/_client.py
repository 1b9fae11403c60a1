"""The two clients: where the service is, how patient to be, and one attribute for each noun of the API."""

from __future__ import annotations

import os
from typing import Generic, Self, TypeVar

import httpx

from taskhook import _resources as resources
from taskhook._callers import CONNECT_S, AsyncCaller, Caller, Options
from taskhook._plan import Policy
from taskhook.errors import TaskhookError

DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
MAX_RETRIES = 2
LIMITS = httpx.Limits(max_connections=1_000, max_keepalive_connections=100)
"""Each wait and each stream holds a connection."""

H = TypeVar("H", httpx.Client, httpx.AsyncClient)


class _Client(Generic[H]):
    """Shared by both clients. `http_client` is used as it is, and left open by `close`."""

    _http: H

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float | httpx.Timeout | None = TIMEOUT_S,
        max_retries: int = MAX_RETRIES,
        http_client: H | None = None,
    ) -> None:
        """`timeout` is for one request; None is without end. Environment: TASKHOOK_API_KEY, TASKHOOK_URL."""
        key = (api_key or os.environ.get("TASKHOOK_API_KEY", "")).strip()
        if not key:
            raise TaskhookError("There is no API key: give api_key, or set TASKHOOK_API_KEY.")
        if max_retries < 0:
            raise ValueError("max_retries is below 0")
        connect = None if timeout is None else CONNECT_S
        self._options = Options(
            base_url=(base_url or os.environ.get("TASKHOOK_URL") or DEFAULT_URL).rstrip("/"),
            api_key=key,
            timeout=timeout if isinstance(timeout, httpx.Timeout) else httpx.Timeout(timeout, connect=connect),
            policy=Policy(max_retries=max_retries),
        )
        self._owns_http = http_client is None
        self._http = self._open() if http_client is None else http_client
        self._make_resources()

    def _open(self) -> H:
        raise NotImplementedError

    def _make_resources(self) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"

    @property
    def base_url(self) -> str:
        return self._options.base_url

    def with_options(
        self,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = None,
        max_retries: int | None = None,
    ) -> Self:
        """The same client with other options, on the same connections: `client.with_options(timeout=5).tasks...`."""
        return type(self)(
            api_key or self._options.api_key,
            base_url=self.base_url,
            timeout=self._options.timeout if timeout is None else timeout,
            max_retries=self._options.policy.max_retries if max_retries is None else max_retries,
            http_client=self._http,
        )


class Taskhook(_Client[httpx.Client]):
    """A Taskhook service. May be shared by threads; close it, or use it with `with`."""

    tasks: resources.Tasks
    events: resources.Events
    endpoints: resources.Endpoints
    deliveries: resources.Deliveries
    providers: resources.Providers
    keys: resources.Keys
    faults: resources.Faults

    def _open(self) -> httpx.Client:
        return httpx.Client(limits=LIMITS, trust_env=self._options.trusts_environment)

    def _make_resources(self) -> None:
        caller = Caller(self._options, self._http)
        self.tasks = resources.Tasks(caller)
        self.events = resources.Events(caller)
        self.endpoints = resources.Endpoints(caller)
        self.deliveries = resources.Deliveries(caller)
        self.providers = resources.Providers(caller)
        self.keys = resources.Keys(caller)
        self.faults = resources.Faults(caller)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owns_http:
            self._http.close()


class AsyncTaskhook(_Client[httpx.AsyncClient]):
    """A Taskhook service, for asyncio. Close it, or use it with `async with`."""

    tasks: resources.AsyncTasks
    events: resources.AsyncEvents
    endpoints: resources.AsyncEndpoints
    deliveries: resources.AsyncDeliveries
    providers: resources.AsyncProviders
    keys: resources.AsyncKeys
    faults: resources.AsyncFaults

    def _open(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(limits=LIMITS, trust_env=self._options.trusts_environment)

    def _make_resources(self) -> None:
        caller = AsyncCaller(self._options, self._http)
        self.tasks = resources.AsyncTasks(caller)
        self.events = resources.AsyncEvents(caller)
        self.endpoints = resources.AsyncEndpoints(caller)
        self.deliveries = resources.AsyncDeliveries(caller)
        self.providers = resources.AsyncProviders(caller)
        self.keys = resources.AsyncKeys(caller)
        self.faults = resources.AsyncFaults(caller)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._owns_http:
            await self._http.aclose()
