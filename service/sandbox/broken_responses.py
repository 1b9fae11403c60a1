"""Broken responses: a proxy's HTML page, and a connection that breaks in the middle."""

import logging
from contextvars import ContextVar
from typing import Final

from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

_cut: Final = ContextVar("cut", default=False)


class _QuietCuts(logging.Filter):
    """Drop the server's warning about an unfinished response, only for requests that are cut on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _cut.get()


_QUIET_CUTS: Final = _QuietCuts()


class CutResponse(Response):
    """A response that announces more bytes than it sends, so that the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        logging.getLogger("uvicorn.error").addFilter(_QUIET_CUTS)
        _cut.set(True)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"512")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"', "more_body": True})


def gateway_page(status: int, title: str) -> Response:
    head = f"<head><title>{status} {title}</title></head>"
    body = f"<body>\r\n<center><h1>{status} {title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>"
    return HTMLResponse(f"<html>\r\n{head}\r\n{body}\r\n</html>\r\n", status)


def bad_gateway() -> Response:
    return gateway_page(502, "Bad Gateway")


def gateway_timeout() -> Response:
    return gateway_page(504, "Gateway Time-out")
