"""Reading error texts and links in the shapes that providers are known to send. Nothing here raises."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import quote

from service.core.foreign_json import open_text
from service.providers.base import is_web_url

TEXTS_MAX = 5
DEPTH_MAX = 4
LINK_MAX = 8_192
LINKS_MAX = 200
WORDS_MAX = 4_000
"""Characters of an error that are searched for signs of moderation."""
FIELDS_MAX = 40
_TEXT_KEYS = (
    "message",
    "msg",
    "detail",
    "details",
    "error_message",
    "errorMessage",
    "error_msg",
    "errorMsg",
    "err_msg",
    "errmsg",
    "error_description",
    "failure_reason",
    "fail_reason",
    "failReason",
    "fail_msg",
    "failMsg",
    "error",
    "errors",
    "reason",
    "description",
    "title",
    "text",
    "info",
    "cause",
)
"""The names under which providers put the text of an error, the most specific first."""
_CODE_KEYS = ("code", "type", "status", "error_code", "errorCode")
_ASKED_KEYS = frozenset({"input", "ctx", "request", "prompt", "params", "param", "loc", "field", "url", "id", "name"})
"""Fields that repeat what was asked for: a prompt about moderation is no moderation."""
_LINK_KEYS = ("url", "image_url", "imageUrl", "video_url", "audio_url", "image", "src", "href", "link", "uri")
"""Fields of an object that hold its link."""
_LINK_SAFE = "%/:?#[]@!$&'()*+,;=~-._"
_PLAIN = re.compile(r"[A-Za-z0-9%/:?#\[\]@!$&'()*+,;=~._-]*")
_AROUND_LINK = "".join(map(chr, range(33))) + "\x7f\x85\xa0\u200b\u200e\u200f\u2028\u2029\u2060\ufeff\"'`<>"
"""Blanks, characters that are not seen, and the marks in which some senders wrap a link."""
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"https?://(?:[^/?#@\s]*@)?(?P<host>[^/?#:\[\]\s]+)", re.IGNORECASE)
_NEXT_LINK = re.compile(r"(?<=\s)(?=https?://)", re.IGNORECASE)


def error_text(value: Any) -> str | None:
    """Return the words of an error in whatever shape it has: text, object, list, or JSON inside a text."""
    texts = list(dict.fromkeys(_texts(value, DEPTH_MAX)))[:TEXTS_MAX]
    return "; ".join(texts) or None


def _texts(value: Any, depth: int) -> Iterator[str]:
    if depth == 0:
        return
    match value:
        case str() if (inner := open_text(value)) is not value:
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


def error_words(value: Any) -> str:
    """Return all that an error says, keys and codes too, to be searched for signs of moderation; bounded."""
    words, length = list[str](), 0
    for word in _words(value, DEPTH_MAX + 1):
        words.append(word)
        length += len(word)
        if length >= WORDS_MAX:
            break
    return " ".join(words)[:WORDS_MAX]


def _words(value: Any, depth: int) -> Iterator[str]:
    value = open_text(value)
    if isinstance(value, str):
        yield value[:WORDS_MAX]
    elif isinstance(value, list) and depth:
        for item in value[:FIELDS_MAX]:
            yield from _words(item, depth - 1)
    elif isinstance(value, dict) and depth:
        for name, item in islice(value.items(), FIELDS_MAX):
            inner = list(islice(_words(item, depth - 1), FIELDS_MAX)) if name not in _ASKED_KEYS else []
            if inner or (item and isinstance(item, int | float)):
                yield name[:100]
                yield from inner


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

    What surrounds it is dropped, characters that no URL may hold are percent-encoded, a host in another script is
    written in ASCII, and a link that starts with `//` gets https.
    """
    if not isinstance(value, str) or len(value) > LINK_MAX:
        return None
    link = value.strip(_AROUND_LINK).replace("\\/", "/")
    if link.startswith("//"):
        link = f"https:{link}"
    if not _PLAIN.fullmatch(link):
        link = "".join(char for char in link if char not in "\t\r\n")
        link = quote(_with_ascii_host(link), safe=_LINK_SAFE, errors="replace")
    link = _LONE_PERCENT.sub("%25", link)
    return link if is_web_url(link) and len(link) <= 3 * LINK_MAX else None


def _with_ascii_host(link: str) -> str:
    found = _HOST.match(link)
    if found is None or found["host"].isascii():
        return link
    try:
        return link[: found.start("host")] + found["host"].encode("idna").decode() + link[found.end("host") :]
    except UnicodeError:
        return link


def link_values(value: Any) -> list[Any]:
    """Return what stands where links belong: of a list, an object, JSON in a text, or several links in one text."""
    found = list(islice(_link_values(value, DEPTH_MAX), LINKS_MAX))
    return list(dict.fromkeys(found)) if all(isinstance(one, str) for one in found) else found


def _split_links(text: str) -> list[str]:
    """Return the links of a text that holds several after white space; a single one stays as it is."""
    parts = _NEXT_LINK.split(text)
    return [trimmed for part in parts if (trimmed := part.strip(" \t\r\n,;|"))] if len(parts) > 1 else parts


def _link_values(value: Any, depth: int) -> Iterator[Any]:
    value = open_text(value)
    if isinstance(value, list) and depth:
        for item in value:
            yield from _link_values(item, depth - 1)
    elif isinstance(value, dict) and depth and value:
        named = [value[name] for name in _LINK_KEYS if value.get(name)]
        yield from _link_values(named[0], depth - 1) if named else (value,)
    elif isinstance(value, str) and "://" in value:
        yield from _split_links(value)
    elif value not in (None, "", {}, []):
        yield value
