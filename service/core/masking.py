"""Masking: secrets that others echo are removed before text is cut, stored, shown or logged."""

import re
from base64 import b64decode
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import islice
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import msgspec

from service.core.foreign_json import is_costly

MASKED = "***"
SECRET_MIN = 8
"""Characters of a secret; masking shorter ones would mask ordinary words."""
CUT_MIN = 6
"""Characters of a secret at the end of a cut text that are masked as its beginning."""
SEGMENT_MIN = 20
"""Characters of a path segment that is treated as a token."""
ESCAPES_MAX = 1_000
REPAIRED_MAX = 2_000
"""Lone surrogates that are repaired in one body; more of them come from no provider."""
UNREADABLE_MAX = 16 * 1024
"""Bytes kept of a body that is not JSON; it is only shown."""
_SCHEME = re.compile(r"(?:Bearer|Basic|Key|Token|ApiKey|Digest)\s+(?=\S)", re.IGNORECASE)
_ESCAPE = re.compile(
    r"\\u00(?P<json>[0-7][0-9a-fA-F])|\\(?P<char>[\"\\/])|%(?P<url>[2-7][0-9a-fA-F])"
    r"|&(?:#(?P<dec>3[3-9]|[4-9][0-9]|1[01][0-9]|12[0-6]);|#[xX](?P<hex>[2-7][0-9a-fA-F]);|(?P<name>amp|lt|gt|quot|apos);)"
)
_CUT_ESCAPE = re.compile(r"(?:\\u?[0-9a-fA-F]{0,3}|%[0-9a-fA-F]?|&#?[xX]?\w{0,4})\Z")
_NAMES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
_HALF = re.compile(
    rb"\\(?:\\|u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][\da-fA-F]{2}))"
)
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def mask(text: str, secrets: Iterable[str]) -> str:
    """Mask the secrets in a text of a few KiB that may be cut at its end.

    All spellings are found: JSON, percent and HTML escapes, other case, a credential without its scheme, and the
    beginning of a secret at the end of the text. A text with over 1,000 escapes is cut there.
    """
    forms = secret_forms(secrets)
    if excess := next(islice(_ESCAPE.finditer(text), ESCAPES_MAX, None), None):
        text = text[: excess.start()]
    plain, place = _unescape(text)
    lowered = plain.translate(_ASCII_LOWER)
    spans = [span for form in forms for span in _find_all(lowered, form)]
    if not spans and not forms:
        return text
    spans += _find_cut(lowered, forms)
    for start, end in _merge(spans):
        text = text[: place(start)] + MASKED + text[place(end) :]
    return text


def secret_forms(secrets: Iterable[str]) -> list[str]:
    """Return the forms of the secrets to look for, in lower case, the longest first."""
    found = set[str]()
    for secret in secrets:
        found.add(secret)
        if scheme := _SCHEME.match(secret):
            credential = secret[scheme.end() :]
            found |= {credential, *_basic_parts(credential)}
    return sorted((form.translate(_ASCII_LOWER) for form in found if len(form) >= SECRET_MIN), key=len, reverse=True)


def _basic_parts(credential: str) -> set[str]:
    """Return `user:password` and the password of HTTP basic authentication."""
    try:
        decoded = b64decode(credential, validate=True).decode()
    except ValueError:
        return set()
    return {decoded, decoded.partition(":")[2]}


def _unescape(text: str) -> tuple[str, Callable[[int], int]]:
    """Return the text without escapes, twice over, and a function from its positions to those of the text."""
    once, place_of_once = _unescape_once(text)
    twice, place_of_twice = _unescape_once(once)
    return twice, lambda at: place_of_once(place_of_twice(at))


def _unescape_once(text: str) -> tuple[str, Callable[[int], int]]:
    pieces, at, length = list[str](), 0, 0
    plain_at, text_at = [0], [0]
    for escape in _ESCAPE.finditer(text):
        pieces += (text[at : escape.start()], _char_of(escape))
        length += escape.start() - at
        plain_at += (length, length + 1)
        text_at += (escape.start(), escape.end())
        length, at = length + 1, escape.end()
    pieces.append(text[at:])

    def place(position: int) -> int:
        index = bisect_right(plain_at, position) - 1
        return text_at[index] + position - plain_at[index]

    return "".join(pieces), place


def _char_of(escape: re.Match[str]) -> str:
    found = escape.groupdict()
    if number := found["json"] or found["url"] or found["hex"]:
        return chr(int(number, 16))
    return chr(int(found["dec"])) if found["dec"] else found["char"] or _NAMES[found["name"]]


def _find_all(text: str, form: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(re.escape(form), text)]


def _find_cut(text: str, forms: Iterable[str]) -> list[tuple[int, int]]:
    """Return the span at the end of the text that begins a secret, with an escape that was cut in two."""
    end = len(text)
    if half := _CUT_ESCAPE.search(text):
        text = text[: half.start()]
    for form in forms:
        longest = min(len(form) - 1, len(text))
        size = next((size for size in range(longest, CUT_MIN - 1, -1) if text.endswith(form[:size])), 0)
        if size:
            return [(len(text) - size, end)]
    return []


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans without overlaps, the last first."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged[::-1]


def mask_body(body: bytes, hide: Callable[[bytes], bytes], secrets: Iterable[str]) -> bytes:
    """Mask a provider's body of up to some MiB in linear time; `hide` masks what else it may hold.

    JSON with escapes is searched as standard JSON, in which printable ASCII is never escaped. If nothing is found,
    the body stays as it is. A body with escapes that is not JSON is cut to 16 KiB.
    """
    plain = body
    if b"\\" in body:
        if is_costly(body):
            return _mask_text(body, hide, secrets)
        try:
            plain = msgspec.json.encode(msgspec.json.decode(body))
        except (ValueError, RecursionError):
            return _mask_text(body, hide, secrets)
    hidden = hide(plain)
    for spelling in _spellings(secrets):
        hidden = hidden.replace(spelling, MASKED.encode())
    return hidden if hidden != plain else body


def _mask_text(body: bytes, hide: Callable[[bytes], bytes], secrets: Iterable[str]) -> bytes:
    text = hide(body[:UNREADABLE_MAX]).decode("utf-8", "surrogateescape")
    return mask(text, secrets).encode("utf-8", "surrogateescape")


def _spellings(secrets: Iterable[str]) -> list[bytes]:
    """Return each secret as it is and percent-encoded, in both cases, the longest first."""
    found = set[str]()
    for secret in secrets:
        if len(secret) >= SECRET_MIN:
            for encoded in (quote(secret, safe=""), quote(secret, safe="/"), quote(secret, safe="/+=")):
                found |= {secret, encoded, re.sub(r"%..", lambda escape: escape[0].lower(), encoded)}
    return sorted((spelling.encode() for spelling in found), key=len, reverse=True)


def secrets_in_url(url: str) -> list[str]:
    """Return the values of the query, the parts of the path that are long enough to be a token, and a password."""
    parts = urlsplit(url)
    values = [value for _, value in parse_qsl(parts.query)]
    segments = [segment for segment in parts.path.split("/") if len(segment) >= SEGMENT_MIN]
    return [*values, *segments, *map(unquote, segments)]


def repair_escapes(body: bytes) -> bytes:
    """Replace lone surrogates in JSON, which some writers cut out of a pair, so that the rest can be read."""
    if not 0 < body.count(b"\\ud") + body.count(b"\\uD") <= REPAIRED_MAX:
        return body
    return _HALF.sub(lambda escape: rb"\ufffd" if escape["lone"] else escape[0], body)
