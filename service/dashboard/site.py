"""Shared by all pages beyond a request: the web side, sessions, assets, templates, and figures for charts."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from service.dashboard.assets import Assets
from service.dashboard.checks import Checks
from service.dashboard.pages import Templates
from service.dashboard.sessions import OneTimeCode, Sessions
from service.dashboard.spending import Spending
from service.dashboard.statistics import Statistics
from service.web.context import Web
from service.web.prefix import prefix_of
from service.web.shares import Shares

SIGN_INS_BYTES = 1 << 20
"""What slow forms of the sign-in may take together: about sixty of them."""


class Site:
    """`public_url` is where browsers reach it, as far as that is known. `sandbox` is the simulator's own address, whose
    pictures are shown though they are not encrypted. `new_secret` makes what forms carry.
    """

    def __init__(
        self,
        web: Web,
        sessions: Sessions,
        new_secret: Callable[[], str],
        *,
        public_url: str | None = None,
        sandbox: str | None = None,
        code: OneTimeCode | None = None,
    ) -> None:
        self.web = web
        self.sessions = sessions
        self.new_secret = new_secret
        self.https = (public_url or "").startswith("https:")
        self.prefix = prefix_of(public_url)
        self.public_host = urlsplit(public_url or "").netloc.lower()
        self.sandbox = sandbox
        self.code = code
        self.assets = _assets()
        self.checks = Checks(web.env.monotonic)
        self.sign_ins = Shares(SIGN_INS_BYTES)
        self.spending = Spending(web.store.reads, web.env.monotonic)
        self.statistics = Statistics(web.store.reads, web.providers, web.env.monotonic)
        self.templates = _templates()
        pictures = f"https: {sandbox}" if sandbox else "https:"
        self.policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
            f"img-src 'self' {pictures}; connect-src 'self'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        ).encode()

    def is_secure(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the browser came over TLS, by the public URL or by what a trusted proxy says."""
        return self.https or scope.get("scheme") == "https"

    def session_cookie(self, scope: Mapping[str, Any]) -> str:
        """Browsers refuse such names from an unencrypted page, and `__Host-` from another host or path as well."""
        if not self.is_secure(scope):
            return "taskhook_session"
        return "__Secure-taskhook_session" if self.prefix else "__Host-taskhook_session"


@cache
def _assets() -> Assets:
    return Assets()


@cache
def _templates() -> Templates:
    return Templates(_assets().path)
