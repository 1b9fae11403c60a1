"""The dashboard over the real application and a real database, as a browser speaks to it."""

import re
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from starlette.routing import BaseRoute

from service.dashboard import site as dashboard
from service.dashboard.routes import build_pages
from service.dashboard.sessions import OneTimeCode, Sessions
from service.store.reads import Reads
from service.web.context import Web
from service.web.routes import build_app
from tests.web.conftest import KEY, Site, site

__all__ = ["site"]

ORIGIN = "http://taskhook.test"
SECRET_KEYS = ("a secret key", "an older secret key")


class Door:
    """The dashboard of one process; every browser that comes has its own cookies."""

    def __init__(
        self,
        site: Site,
        secret_keys: Sequence[str] = SECRET_KEYS,
        public_url: str | None = None,
        reads: Reads | None = None,
        code: OneTimeCode | None = None,
    ) -> None:
        numbers, store, running = count(1), site.context.store, site.context.running
        running = replace(running, public_url=public_url)
        context = replace(site.context, store=replace(store, reads=reads or store.reads), running=running)

        def pages(web: Web) -> Sequence[BaseRoute]:
            made = dashboard.Site(
                web,
                Sessions(secret_keys),
                lambda: f"secret-{next(numbers)}",
                public_url=public_url,
                sandbox=None,
                code=code,
            )
            return build_pages(made)

        self.site = site
        self._app = build_app(context, (), pages)

    def browser(self, origin: str = ORIGIN, **cookies: str) -> "Browser":
        return Browser(httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url=origin, cookies=cookies))


class Browser:
    """Sends forms as a page of the dashboard does."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.csrf = ""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        reply = await self.client.get(path, headers=headers)
        found = re.search(r'name="csrf" value="([^"]*)"', reply.text)
        self.csrf = found[1] if found else self.csrf
        return reply

    async def page(self, path: str) -> str:
        reply = await self.get(path)
        assert reply.status_code == 200, (path, reply.status_code, reply.text)
        return reply.text

    async def send(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        data = {"csrf": self.csrf} | fields
        return await self.client.post(path, data=data, headers={"Sec-Fetch-Site": "same-origin"} | (headers or {}))

    async def sign_in(self, key: str = KEY, **fields: str) -> httpx.Response:
        reply = await self.send("/sign-in", key=key, **fields)
        if reply.status_code == 303:
            await self.get("/")
        return reply

    @property
    def session(self) -> str | None:
        return self.client.cookies.get("taskhook_session")


@pytest.fixture
def door(site: Site) -> Door:
    return Door(site)


@pytest.fixture
async def browser(door: Door) -> AsyncIterator[Browser]:
    """Signed in with a key that may do everything."""
    made = door.browser()
    assert (await made.sign_in()).status_code == 303
    yield made
    await made.client.aclose()


@pytest.fixture
async def api(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        yield client


async def make_key(api: httpx.AsyncClient, *scopes: str) -> dict[str, Any]:
    reply = await api.post("/v1/keys", json={"name": "a test", "scopes": scopes})
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made
