"""The message that a signature covers, such as `{header:webhook-id}.{timestamp}.{raw}`, as bytes."""

import hashlib
import re
from typing import Any

from service.providers.base import HttpReply
from service.providers.declared.document import REPLY_NAMES, read_callback
from service.providers.declared.expressions import Expression, WrongExpressionError
from service.providers.declared.templates import WrongTemplateError

_HEADER = re.compile(r"header:([A-Za-z0-9_-]+)")
_KNOWN = "{raw}, {raw.sha256}, {timestamp}, {header:NAME} and {body:EXPRESSION}"


class SignedMessage:
    """A template over the raw request."""

    def __init__(self, source: str) -> None:
        """Raise WrongTemplateError for a part that has no meaning."""
        self.source = source
        self._parts = _parse(source)
        self.has_timestamp = "timestamp" in self._parts

    def __repr__(self) -> str:
        return f"SignedMessage({self.source!r})"

    def render(self, request: HttpReply, timestamp: str | None) -> bytes | None:
        """The signed bytes; None if the request lacks a part of them."""
        parts = [_render(part, request, timestamp) for part in self._parts]
        return None if None in parts else b"".join(part for part in parts if part)


Part = bytes | str | Expression
"""Literal bytes, `raw`, `raw.sha256`, `timestamp`, `header:name`, or an expression over the body."""


def _parse(source: str) -> list[Part]:
    parts: list[Part] = []
    while source:
        literal, opening, rest = source.partition("{")
        parts.append(literal.encode())
        if opening:
            inner, rest = _split_braces(rest)
            parts.append(_part(inner))
        source = rest
    return parts


def _split_braces(text: str) -> tuple[str, str]:
    """Return the text before the closing brace, and the text after it: expressions have braces of their own."""
    depth = 1
    for index, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return text[:index], text[index + 1 :]
    raise WrongTemplateError("has a { that is never closed")


def _part(inner: str) -> Part:
    if inner in ("raw", "raw.sha256", "timestamp"):
        return inner
    if match := _HEADER.fullmatch(inner):
        return f"header:{match[1].lower()}"
    if not inner.startswith("body:"):
        raise WrongTemplateError(f"uses {{{inner}}}; known are {_KNOWN}")
    try:
        return Expression(inner.removeprefix("body:"), REPLY_NAMES)
    except WrongExpressionError as error:
        raise WrongTemplateError(f"uses {{{inner}}}, whose expression {error}") from None


def _render(part: Part, request: HttpReply, timestamp: str | None) -> bytes | None:
    match part:
        case bytes():
            return part
        case Expression():
            return _bytes(part.find(read_callback(request)), "utf-8")
        case "raw":
            return request.body
        case "raw.sha256":
            return hashlib.sha256(request.body).hexdigest().encode()
        case "timestamp":
            return _bytes(timestamp, "latin-1")
        case _:
            return _bytes(request.headers.get(part.removeprefix("header:")), "latin-1")


def _bytes(value: Any, encoding: str) -> bytes | None:
    """A text or an id; None for what is empty or neither."""
    is_text = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value).encode(encoding, "replace") if is_text and value != "" else None
