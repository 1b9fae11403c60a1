"""Every page and form on one screen, and what each request goes through before one of them sees it."""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from service.core.keys import Scope as Right
from service.core.problems import Forbidden, InvalidRequest, Malformed, NotFound, Problem, TooMany, Unavailable
from service.dashboard import (
    checking,
    deliveries,
    delivery,
    endpoint,
    endpoints,
    entering,
    faults,
    keys,
    live,
    overview,
    playground,
    providers,
    recovery,
    task,
    tasks,
)
from service.dashboard.site import Site
from service.dashboard.visit import Visit, check_origin, recall
from service.telemetry.logs import request_id
from service.web.auth import NOBODY
from service.web.bodies import read_body
from service.web.calls import Answer, Reply, find_header
from service.web.codings import is_gzipped
from service.web.errors import STATUSES, ClientGone, Failure, MethodNotAllowed, UnsupportedCoding
from service.web.pairs import read_pairs

log = structlog.get_logger()
FORM = "application/x-www-form-urlencoded"
OF_PROGRAMS = ("/v1/", "/callbacks/")
"""Paths below these get the API's own 404."""
FIELDS_MAX = 200
FORM_MAX = 256 * 1024


class Page(msgspec.Struct, frozen=True):
    """A method of a path. `right` is the scope that a key must have; None: everybody who is signed in."""

    right: Right | None
    method: str
    path: str
    show: Callable[[Visit], Awaitable[Reply]]
    is_open: bool = False


def _page(right: Right | None, line: str, show: Callable[[Visit], Awaitable[Reply]], *, is_open: bool = False) -> Page:
    method, _, path = line.partition(" ")
    return Page(right, method, path, show, is_open)


# fmt: off
PAGES: tuple[Page, ...] = (
    _page(None, "GET /", overview.show),
    _page(None, "POST /sign-in", entering.sign_in, is_open=True),
    _page(None, "POST /sign-out", entering.sign_out),
    _page(None, "GET /live", live.follow),
    _page("tasks:read", "GET /tasks", tasks.show),
    _page("tasks:read", "GET /tasks/{id}", task.show),
    _page("tasks:write", "POST /tasks/{id}/cancel", task.cancel),
    _page("tasks:write", "POST /tasks/{id}/poll", task.poll),
    _page("tasks:write", "POST /tasks/{id}/again", task.submit_again),
    _page("tasks:write", "POST /tasks/{id}/erase", task.erase),
    _page("endpoints", "POST /tasks/{id}/retry", task.retry_delivery),
    _page("endpoints", "GET /endpoints", endpoints.show),
    _page("endpoints", "POST /endpoints", endpoints.create),
    _page("endpoints", "GET /endpoints/new", endpoints.show_new),
    _page("endpoints", "GET /endpoints/{id}", endpoint.show),
    _page("endpoints", "GET /endpoints/{id}/settings", endpoint.show_settings),
    _page("endpoints", "POST /endpoints/{id}/settings", endpoint.change),
    _page("endpoints", "POST /endpoints/{id}/enable", endpoint.enable),
    _page("endpoints", "POST /endpoints/{id}/disable", endpoint.disable),
    _page("endpoints", "POST /endpoints/{id}/rotate", endpoint.rotate),
    _page("endpoints", "POST /endpoints/{id}/test", endpoint.test),
    _page("endpoints", "POST /endpoints/{id}/delete", endpoint.delete),
    _page("endpoints", "GET /endpoints/{id}/recover", recovery.show),
    _page("endpoints", "POST /endpoints/{id}/recover", recovery.recover),
    _page("endpoints", "GET /endpoints/{id}/check", checking.show),
    _page("endpoints", "POST /endpoints/{id}/check", checking.check),
    _page("endpoints", "GET /deliveries", deliveries.show),
    _page("endpoints", "GET /deliveries/{id}", delivery.show),
    _page("endpoints", "POST /deliveries/{id}/retry", delivery.retry),
    _page("tasks:read", "GET /providers", providers.show),
    _page("tasks:write", "GET /playground", playground.show),
    _page("tasks:write", "POST /playground", playground.submit),
    _page("tasks:write", "POST /playground/preview", playground.preview),
    _page("admin", "GET /keys", keys.show),
    _page("admin", "POST /keys", keys.create),
    _page("admin", "POST /keys/{id}/revoke", keys.revoke),
    _page("admin", "GET /faults", faults.show),
    _page("admin", "POST /faults/{id}/retry", faults.retry),
)
# fmt: on


def build_pages(site: Site) -> Sequence[BaseRoute]:
    by_path: dict[str, dict[str, Page]] = {}
    for page in PAGES:
        by_path.setdefault(page.path, {})[page.method] = page
    routes = [Route(path, _Place(site, found, _find_parent(path, by_path))) for path, found in by_path.items()]
    return (*routes, Route("/assets/{digest}/{name}", _Shelf(site)), _Elsewhere(site))


def _find_parent(path: str, by_path: Mapping[str, Mapping[str, Page]]) -> int:
    """How far above a form's address its page is: the address may be typed or reloaded."""
    steps = 0
    while "GET" not in by_path.get(path, {}):
        path, steps = path.rpartition("/")[0] or "/", steps + 1
    return steps


class _Elsewhere(Route):
    """All other addresses, when a person looks at one: a page says that nothing is there."""

    def __init__(self, site: Site) -> None:
        super().__init__("/{path:path}", _Place(site, {}, 0))
        self.path_format = "unmatched"  # in metrics and logs, as where nobody looks

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_person = scope["type"] == "http" and "text/html" in (find_header(scope, b"accept") or "")
        if not is_person or scope["method"] != "GET" or scope["path"].startswith(OF_PROGRAMS):
            return Match.NONE, {}
        return super().matches(scope)


class _Shelf:
    """Styles, scripts and the typeface, for everybody."""

    def __init__(self, site: Site) -> None:
        self._assets = site.assets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked: dict[str, str] = scope["path_params"]
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("GET, HEAD")
        found = self._assets.find(asked["digest"], asked["name"], find_header(scope, b"accept-encoding") or "")
        if found is None:
            raise NotFound("There is nothing at this address.")
        await found(receive, send)


class _Place:
    """Handles a path: authentication, method, form. `steps` is how far above a form its page is."""

    def __init__(self, site: Site, pages: Mapping[str, Page], steps: int) -> None:
        self._site = site
        self._pages = {**pages, **({"HEAD": pages["GET"]} if "GET" in pages else {})}
        self._steps = steps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._answer(scope, receive)
        except (ClientGone, MethodNotAllowed):
            raise
        except Problem as problem:
            if isinstance(problem, Unavailable):
                log.warning("request.unavailable", route=_route(scope), reason=problem.detail, cause=problem.cause)
            reply = await self._tell(scope, problem)
        except Exception:
            log.exception("request.failed", route=_route(scope))
            reply = await self._tell(scope, Failure("Something went wrong here. The log of the service says what."))
        await reply(receive, send)

    async def _answer(self, scope: Any, receive: Receive) -> Reply:
        if not self._pages:
            raise NotFound("There is nothing at this address.")
        page = self._pages.get(scope["method"])
        if page is None and scope["method"] in ("GET", "HEAD"):
            return Answer(303, headers=((b"location", self._parent(scope["path"]).encode()),))
        if page is None:
            raise MethodNotAllowed(", ".join(self._pages))
        if page.method == "POST":
            return await self._take_form(page, scope, receive)
        session, caller = await recall(self._site, scope)
        visit = Visit(self._site, scope, session, caller, _read_pairs(scope["query_string"]), {})
        if session is None and not page.is_open:
            return _send_to_door(visit, page)
        if page.right is not None:
            caller.check(page.right)
        with self._site.web.requests:
            return await page.show(visit)

    async def _take_form(self, page: Page, scope: Any, receive: Receive) -> Reply:
        """Nothing of the body is read before it is known that a page of ours sent it, and that its sender may."""
        check_origin(self._site, scope)
        _check_form(scope)
        query = _read_pairs(scope["query_string"])
        if page.is_open:
            sent = await entering.read_form(self._site, scope, receive)
            return await page.show(Visit(self._site, scope, None, NOBODY, query, _read_pairs(sent)))
        session, caller = await recall(self._site, scope)
        if session is None:
            return _send_to_door(Visit(self._site, scope, None, caller, query, {}), page)
        if page.right is not None:
            caller.check(page.right)
        web = self._site.web
        sent = await read_body(scope, receive, web.slow_bodies, caller.name, FORM_MAX)
        with web.requests:
            visit = Visit(self._site, scope, session, caller, query, _read_pairs(sent))
            _check_csrf(visit)
            return await page.show(visit)

    def _parent(self, path: str) -> str:
        return quote(path.rsplit("/", self._steps)[0]) or "/"

    async def _tell(self, scope: Any, problem: Problem) -> Answer:
        """The refusal as a page, in the frame if somebody is signed in and that can be found out now."""
        session, caller = None, NOBODY
        if not isinstance(problem, Unavailable | Failure):
            with suppress(Unavailable):
                session, caller = await recall(self._site, scope)
        return tell(Visit(self._site, scope, session, caller, {}, {}), problem)


def _route(scope: Scope) -> str:
    """The template of the path, never the path itself: it may hold ids."""
    return getattr(scope.get("route"), "path_format", "unmatched")


def tell(visit: Visit, problem: Problem) -> Answer:
    status, title = next(STATUSES[kind] for kind in type(problem).__mro__ if kind in STATUSES)
    wait = problem.retry_after_s if isinstance(problem, TooMany | Unavailable) else None
    headers = ((b"retry-after", b"%d" % wait),) if wait is not None else ()
    told = {
        "title": title,
        "detail": problem.detail,
        "errors": problem.errors if isinstance(problem, InvalidRequest) else [],
        "request_id": request_id.get() if isinstance(problem, Failure) else None,
    }
    return visit.render("problem.html", status, headers, code=status, **told)


def _send_to_door(visit: Visit, page: Page) -> Answer:
    """Redirect to the sign-in page and back; a script gets a 401 and reloads the page."""
    path = visit.scope["path"]
    if find_header(visit.scope, b"x-live") is not None or page.show is live.follow:
        return Answer(401, b"Sign in.", b"text/plain; charset=utf-8")
    if path == "/":
        return entering.show_door(visit)
    if page.method == "POST":
        return visit.redirect("/", notice=None)
    asked = visit.scope["query_string"].decode("latin-1")
    return visit.redirect(f"/?next={quote(f'{path}?{asked}' if asked else path, safe='')}")


def _check_csrf(visit: Visit) -> None:
    sent = visit.form.get("csrf", "")
    expected = visit.session.csrf if visit.session else ""
    if not expected or not hmac.compare_digest(sent.encode(), expected.encode()):
        raise Forbidden("This form is not of this session: load the page again and send it once more.")


def _check_form(scope: Any) -> None:
    if (find_header(scope, b"content-type") or "").partition(";")[0].strip().lower() != FORM:
        raise Malformed(f"A form is sent as {FORM}.")
    if is_gzipped(scope):
        raise UnsupportedCoding("A form is sent without a Content-Encoding.")


def _read_pairs(text: bytes) -> dict[str, str]:
    """Of a name that is given twice the last holds."""
    try:
        pairs = read_pairs(text, FIELDS_MAX)
    except ValueError:
        raise Malformed("This is no UTF-8, or has too many fields.") from None
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise Malformed("This holds a NUL.")
    return dict(pairs)
