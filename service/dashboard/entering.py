"""Coming in with an API key, and leaving."""

import asyncio
import re
from typing import Any

import structlog
from starlette.types import Receive

from service.core.problems import TooMany, Unauthorized
from service.dashboard.site import Site
from service.dashboard.visit import Visit, address_of
from service.web.bodies import read_body
from service.web.calls import Answer
from service.web.errors import TooSlow
from service.web.throttle import place_of

log = structlog.get_logger()
_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*", re.ASCII)
NEXT_MAX = 2_000
FORM_MAX = 4 * 1024
FORM_S = 5.0


def show_door(visit: Visit, error: str | None = None, status: int = 200, wait_s: int | None = None) -> Answer:
    headers = ((b"retry-after", b"%d" % wait_s),) if wait_s is not None else ()
    wanted = safe_next(visit.form.get("next") or visit.query.get("next", ""))
    ended = bool(visit.find_cookie(visit.site.session_cookie(visit.scope))) and error is None
    return visit.render("sign_in.html", status, headers, error=error, ended=ended, next=wanted)


async def read_form(site: Site, scope: Any, receive: Receive) -> bytes:
    """The one body that is taken from strangers: small, soon, and within a bound of its own that addresses share."""
    try:
        async with asyncio.timeout(FORM_S):
            return await read_body(scope, receive, site.sign_ins, place_of(address_of(scope)), FORM_MAX)
    except TimeoutError:
        raise TooSlow(f"The form took more than {FORM_S:g} s to arrive. Send it again.") from None


async def sign_in(visit: Visit) -> Answer:
    """The key is checked as a caller's of the API, by the same throttle, and kept nowhere."""
    code, coded = visit.form.get("code", ""), None
    if code and visit.site.code is not None:
        coded = visit.site.code.redeem(code)
    key = coded or visit.form.get("key", "").strip().removeprefix("Bearer ").strip()
    try:
        # As a header would bring it: its bytes, each as a character.
        caller = await visit.web.keys.authenticate(f"Bearer {key.encode().decode('latin-1')}", visit.address)
    except Unauthorized:
        if code and not key:
            return show_door(visit, "This link was used, or is too old. Sign in with an API key.", 401)
        return show_door(visit, "This key is not known here." if key else "Enter an API key.", 401)
    except TooMany as problem:
        return show_door(visit, f"{problem.detail} Try again in a minute.", 429, problem.retry_after_s)
    session, cookie = visit.site.sessions.open(caller, visit.web.keys, visit.site.new_secret(), visit.now)
    log.info("session.opened", caller=caller.name)
    name = visit.site.session_cookie(visit.scope)
    life_s = round((session.until - visit.now).total_seconds())
    return visit.redirect(safe_next(visit.form.get("next", "")), headers=(visit.cookie(name, cookie, life_s),))


async def sign_out(visit: Visit) -> Answer:
    """End the session for every replica, so that a copy of the cookie ends too."""
    if visit.session is not None:
        await visit.web.store.ended_sessions.add(visit.session.id, visit.session.until, visit.now)
    log.info("session.closed", caller=visit.caller.name)
    name = visit.site.session_cookie(visit.scope)
    return visit.redirect("/", "You are signed out.", (visit.cookie(name, "", 0),))


def safe_next(path: str) -> str:
    """A path of ours, or the first page: never another host, whichever way it is written."""
    return path if len(path) <= NEXT_MAX and _PATH.fullmatch(path) else "/"
