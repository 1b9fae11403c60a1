"""For unauthenticated callers no byte of a body is requested, nothing is parsed, and no slot is taken."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message

from service.dashboard import site as dashboard
from service.dashboard.entering import FORM_MAX
from service.dashboard.routes import PAGES, build_pages
from service.dashboard.sessions import Sessions
from service.web.context import Web
from service.web.routes import OPERATIONS, build_app
from tests.dashboard.conftest import SECRET_KEYS, Door
from tests.web.conftest import Site

WRITES = [
    *((one.method, one.path, "application/json") for one in OPERATIONS if one.method not in ("GET", "HEAD")),
    *((page.method, page.path, "application/x-www-form-urlencoded") for page in PAGES if page.method == "POST"),
]
SIGN_IN = ("POST", "/sign-in", "application/x-www-form-urlencoded")


def build(site: Site, requests_max: int = 1_000) -> ASGIApp:
    def pages(web: Web) -> Sequence[BaseRoute]:
        return build_pages(dashboard.Site(web, Sessions(SECRET_KEYS), lambda: "a secret"))

    running = replace(site.context.running, requests_max=requests_max)
    return build_app(replace(site.context, running=running), (), pages)


async def ask(app: ASGIApp, method: str, path: str, *headers: tuple[bytes, bytes]) -> int:
    """The status; fails if the application asks for the body."""
    path = path.replace("{id}", f"task_{'0' * 32}").replace("{token:path}", "forged").replace("{provider}", "acedata")
    scope: dict[str, Any] = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
    scope |= {"query_string": b"", "http_version": "1.1", "client": ("192.0.2.1", 1)}
    scope |= {"headers": [(b"host", b"x"), (b"content-length", b"1000000"), *headers]}
    answered: list[Message] = []

    async def receive() -> Message:
        raise AssertionError(f"{method} {path} asks a stranger for a body")

    async def send(message: Message) -> None:
        answered.append(message)

    await app(scope, receive, send)
    return int(answered[0]["status"])


@pytest.mark.parametrize("line", WRITES, ids=lambda line: f"{line[0]} {line[1]}")
async def test_no_byte_of_a_strangers_body_is_read(site: Site, line: tuple[str, str, str]) -> None:
    method, path, content_type = line
    kind = (b"content-type", content_type.encode())
    app = build(site)
    for key in ((b"authorization", b"Bearer wrong"), (b"cookie", b"taskhook_session=x"), (b"x-a", b"b")):
        assert await ask(app, method, path, kind, key) in (401, 403)
    if line != SIGN_IN:
        assert await ask(app, method, path, kind, (b"sec-fetch-site", b"same-origin")) in (303, 401, 403)


async def test_a_form_of_the_sign_in_is_refused_by_its_length_alone(site: Site) -> None:
    kind = (b"content-type", SIGN_IN[2].encode())
    assert await ask(build(site), "POST", "/sign-in", kind, (b"sec-fetch-site", b"same-origin")) == 413


async def test_a_form_of_the_sign_in_takes_four_kibibytes(door: Door) -> None:
    browser = door.browser()
    filled = "a" * (FORM_MAX - len("csrf=&key="))
    assert (await browser.send("/sign-in", key=filled)).status_code == 401
    assert (await browser.send("/sign-in", key=filled + "a")).status_code == 413


async def test_a_stranger_needs_no_place_and_gets_none(site: Site) -> None:
    """With no place left for work, strangers are still refused, and the sign-in page still shown."""
    app = build(site, requests_max=0)
    assert await ask(app, "POST", "/v1/tasks") == 401
    assert await ask(app, "POST", "/callbacks/{provider}/{token:path}") == 403
    assert await ask(app, "GET", "/") == 200
    assert await ask(app, "GET", "/tasks") == 303
