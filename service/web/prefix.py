"""The path of the public URL, such as `/hooks`: taken away from what comes in, put before what goes out.

A proxy may strip the path or pass it on; both work. Pages, cookies and the API's document get it where they are made.
"""

from typing import Any
from urllib.parse import quote, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_NAMES = frozenset(
    {
        "assets", "callbacks", "compat", "deliveries", "docs", "endpoints", "faults", "healthz", "keys", "live",
        "metrics", "openapi.json", "outputs", "playground", "providers", "quarantine", "readyz", "sandbox", "sign-in",
        "sign-out", "tasks", "theme", "v1",
    }
)  # fmt: skip
"""First parts of our own paths. A public path that begins with one would be ambiguous."""


def prefix_of(public_url: str | None) -> str:
    """Return the path of the public URL without a slash at its end; empty if there is none."""
    return urlsplit(public_url or "").path.rstrip("/")


class Prefixed:
    """ASGI middleware: strip `prefix` from request paths and put it before `Location` headers that are paths."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._raw_prefix = quote(prefix, safe="/%:@!$&'()*+,;=~").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_prefixed(message: Message) -> None:
            await send(self._prefix_location(message) if message["type"] == "http.response.start" else message)

        await self._app(self._strip(scope), receive, send_prefixed)

    def _strip(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        if path != self._prefix and not path.startswith(f"{self._prefix}/"):
            return scope
        raw_path: bytes = scope.get("raw_path") or b""
        return {
            **scope,
            "path": path[len(self._prefix) :] or "/",
            "raw_path": raw_path.removeprefix(self._raw_prefix) or b"/",
        }

    def _prefix_location(self, message: Message) -> dict[str, Any]:
        headers = [(name, self._place(value) if name == b"location" else value) for name, value in message["headers"]]
        return {**message, "headers": headers}

    def _place(self, value: bytes) -> bytes:
        is_path = value.startswith(b"/") and not value.startswith(b"//")
        return self._raw_prefix + value if is_path else value
