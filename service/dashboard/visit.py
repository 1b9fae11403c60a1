"""A request to a page: the caller, the query and form, and the ways to answer."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from service.core.keys import Scope as Right
from service.core.problems import Forbidden, NotFound
from service.dashboard.api import ask
from service.dashboard.sessions import Session
from service.dashboard.site import Site
from service.web.auth import NOBODY, Caller
from service.web.calls import ID_SHAPES, Answer, Headers, find_header

T = TypeVar("T")
HTML = b"text/html; charset=utf-8"
NOTICE = "taskhook_notice"
THEMES = ("light", "dark")


class Visit:
    """`caller` is NOBODY and `session` None where nobody is signed in. `form` holds what was posted."""

    def __init__(
        self,
        site: Site,
        scope: dict[str, Any],
        session: Session | None,
        caller: Caller,
        query: Mapping[str, str],
        form: Mapping[str, str],
    ) -> None:
        self.site = site
        self.web = site.web
        self.scope = scope
        self.session = session
        self.caller = caller
        self.query = query
        self.form = form
        self.now: datetime = site.web.env.now()

    @property
    def address(self) -> str:
        return address_of(self.scope)

    def find_cookie(self, name: str) -> str | None:
        return find_cookie(self.scope, name)

    def may(self, right: Right) -> bool:
        return self.caller.may(right)

    def path_id(self, kind: str) -> str:
        """The id in the path. One that can't be an id names nothing."""
        found: str = self.scope["path_params"]["id"]
        if ID_SHAPES[kind].fullmatch(found) is None:
            raise NotFound(f"There is no such {kind}.")
        return found

    async def ask(
        self,
        line: str,
        kind: type[T],
        *,
        id: str = "",
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Headers = (),
    ) -> T:
        """An operation of the API with this visitor's rights, as `ask("GET /v1/tasks/{id}", TaskView, id=...)`.

        Raise the Problem that a caller of the API would get.
        """
        return await ask(self.web, self.caller, line, kind, id=id, query=query, body=body, headers=headers)

    def render(self, template: str, status: int = 200, headers: Headers = (), **values: Any) -> Answer:
        """A page. Every template gets the names below and `values`."""
        notice = self.site.sessions.read_notice(self.find_cookie(NOTICE) or "")
        theme = self.find_cookie("taskhook_theme")
        body = self.site.templates.render(
            template,
            **{
                "path": self.scope["path"],
                "prefix": self.site.prefix,
                "caller": self.caller,
                "may": self.may,
                "csrf": self.session.csrf if self.session else "",
                "now": self.now,
                "theme": theme if theme in THEMES else "",
                "notice": notice,
                "sandbox": self.site.sandbox is not None,
                "providers": tuple(self.web.providers),
            }
            | values,
        )
        cleared = (self.cookie(NOTICE, "", 0),) if notice else ()
        return Answer(status, body, HTML, (*self.page_headers(), *cleared, *headers))

    def redirect(self, to: str, notice: str | None = None, headers: Headers = ()) -> Answer:
        """To a page of ours, after a form was taken; `notice` is shown there once."""
        told = (self.cookie(NOTICE, self.site.sessions.sign_notice(notice), 30),) if notice else ()
        return Answer(303, b"", HTML, ((b"location", to.encode()), *told, *headers))

    def page_headers(self) -> Headers:
        """`same-origin`, since without any referrer a browser sends forms with the origin `null`."""
        return (
            (b"content-security-policy", self.site.policy),
            (b"referrer-policy", b"same-origin"),
            (b"cross-origin-opener-policy", b"same-origin"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
            (b"vary", b"cookie"),
        )

    def cookie(self, name: str, value: str, life_s: int) -> tuple[bytes, bytes]:
        secure = "; Secure" if self.site.is_secure(self.scope) else ""
        text = f"{name}={value}; Path={self.site.prefix or '/'}; Max-Age={life_s}; HttpOnly; SameSite=Lax{secure}"
        return (b"set-cookie", text.encode())


def address_of(scope: dict[str, Any]) -> str:
    address: str = (scope.get("client") or ("", 0))[0]
    return address


async def recall(site: Site, scope: dict[str, Any]) -> tuple[Session | None, Caller]:
    """Return the session of the cookie and its caller, or None and NOBODY. Raise Unavailable."""
    cookie = find_cookie(scope, site.session_cookie(scope))
    found = await site.sessions.recall(cookie, site.web.keys, site.web.env.now()) if cookie else None
    if found is None or await site.web.store.ended_sessions.has(found[0].id):
        return None, NOBODY
    return found


def find_cookie(scope: dict[str, Any], name: str) -> str | None:
    """Return one cookie; what else stands in the header costs nothing."""
    found = re.search(rf"(?:^|;)[ \t]*{re.escape(name)}[ \t]*=([^;]*)", find_header(scope, b"cookie") or "")
    return None if found is None else found[1].strip()


def check_origin(site: Site, scope: dict[str, Any]) -> None:
    """Raises Forbidden for a form that another site's page sent. Browsers that encrypt say so; the rest name a host."""
    fetched_from = find_header(scope, b"sec-fetch-site")
    if fetched_from is not None:
        is_ours = fetched_from == "same-origin"
    else:
        origin = (find_header(scope, b"origin") or "").partition("://")[2].lower()
        is_ours = bool(origin) and origin in ((find_header(scope, b"host") or "").lower(), site.public_host)
    if not is_ours:
        raise Forbidden("This form was not sent from a page of this dashboard.")
