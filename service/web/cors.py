"""Cross-origin requests of browsers (CORS): any origin with a ticket, listed origins with an API key."""

import re
from collections.abc import Collection

from starlette.types import Scope

from service.web.calls import Answer, Headers, find_header

MAX_AGE_S = 600
_TICKETED = re.compile(r"/v1/tasks/[^/]+(/stream)?")
_EXPOSED = b"location, retry-after, idempotent-replayed, x-request-id"
_METHODS = b"GET, HEAD, POST, PATCH, DELETE"
_REQUEST_HEADERS = b"authorization, content-type, idempotency-key, last-event-id, x-request-id, traceparent"


def find_ticket(scope: Scope) -> str | None:
    """Return the ticket in the query of a request that may use one, or None."""
    if scope["method"] not in ("GET", "HEAD", "OPTIONS") or b"ticket=" not in scope["query_string"]:
        return None
    if _TICKETED.fullmatch(scope["path"]) is None:
        return None
    pairs = scope["query_string"].decode("latin-1").split("&")
    return next((value for name, _, value in (pair.partition("=") for pair in pairs) if name == "ticket"), None)


def cors_headers(scope: Scope, origins: Collection[str]) -> Headers:
    """Return the headers that let the browser's page read the answer, if its origin may."""
    origin = find_header(scope, b"origin")
    if origin is None or not scope["path"].startswith("/v1/"):
        return ()
    if find_ticket(scope) is not None:
        return ((b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED))
    if origin in origins:
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        )
    return ()


def answer_preflight(scope: Scope, allowed: Headers) -> Answer | None:
    """Return the answer to a preflight request of an allowed origin; None for all other requests."""
    if scope["method"] != "OPTIONS" or not allowed or find_header(scope, b"access-control-request-method") is None:
        return None
    return Answer(
        204,
        headers=(
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _REQUEST_HEADERS),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
        ),
    )
