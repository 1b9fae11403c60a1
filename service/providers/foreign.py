"""Reading error texts and links in the shapes that providers are known to send. Nothing here raises."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from service.providers.base import is_web_url

TEXTS_MAX = 5
DEPTH_MAX = 4
LINK_MAX = 8_192
_TEXT_KEYS = ("message", "msg", "detail", "details", "error", "errors", "reason", "description", "title", "failMsg")
"""The names under which providers put the text of an error, the most specific first."""
_CODE_KEYS = ("code", "type", "status", "error_code", "errorCode")
_LINK_SAFE = "%/:?#[]@!$&'()*+,;=~-._"
_PLAIN = re.compile(r"[A-Za-z0-9%/:?#\[\]@!$&'()*+,;=~._-]*")
_QUOTES = "\"'`<>"


def error_text(value: Any) -> str | None:
    """Return the words of an error in whatever shape it has: text, object, list, or JSON inside a text."""
    texts = list(dict.fromkeys(_texts(value, DEPTH_MAX)))[:TEXTS_MAX]
    return "; ".join(texts) or None


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    match value:
        case str() if (inner := _embedded(value)) is not None:
            yield from _texts(inner, depth - 1)
        case str() if value.strip():
            yield value.strip()
        case dict():
            yield from _texts_of_object(value, depth)
        case list():
            for item in value[:TEXTS_MAX]:
                yield from _texts(item, depth - 1)


def _texts_of_object(found: dict[str, Any], depth: int) -> Iterator[str]:
    """FastAPI names the wrong field as `loc` beside its `msg`."""
    for key in _TEXT_KEYS:
        texts = list(_texts(found.get(key), depth - 1))
        if texts:
            place = ".".join(str(part) for part in found["loc"][:8]) if isinstance(found.get("loc"), list) else ""
            yield from (f"{place}: {text}" if place else text for text in texts)
            return


def _embedded(text: str) -> Any:
    """Return the object or list that a text holds as JSON, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None


def error_code(value: Any) -> str | None:
    """Return the code word or number of an error object."""
    if not isinstance(value, dict):
        return None
    codes = (value.get(key) for key in _CODE_KEYS)
    return next(
        (str(code) for code in codes if isinstance(code, str | int) and not isinstance(code, bool) and code), None
    )


def read_link(value: Any) -> str | None:
    """Return a link as an absolute http(s) URL without spaces, or None if the value is none.

    White space and quotes around it are dropped, characters that no URL may hold are percent-encoded, and a link that
    starts with `//` gets https.
    """
    if not isinstance(value, str) or len(value) > LINK_MAX:
        return None
    link = value.strip().strip(_QUOTES).strip()
    if link.startswith("//"):
        link = f"https:{link}"
    if not _PLAIN.fullmatch(link):
        link = quote("".join(char for char in link if char not in "\t\r\n"), safe=_LINK_SAFE, errors="replace")
    return link if is_web_url(link) else None
