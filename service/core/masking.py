"""What others send back may hold what they were sent: secrets are taken out before it is kept, shown or logged."""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASKED = "***"
SECRET_MIN = 8
"""What is shorter is no secret, and would mask half of the text."""
SEGMENT_MIN = 20
"""A path has words, too; what is that long is taken for a token."""
_ESCAPES = re.compile(
    rb"\\(?:u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[dD][89a-fA-F][\da-fA-F]{2}|u00[2-7][\da-fA-F]|.)",
    re.DOTALL,
)
_LONE = re.compile(rb"\\u[dD][\da-fA-F]{3}")
_NEEDED = b'"\\\x7f'


def mask(text: str, secrets: Iterable[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SECRET_MIN:
            text = text.replace(secret, MASKED).replace(quote(secret, safe=""), MASKED)
    return text


def secrets_in_url(url: str) -> list[str]:
    """The values of its query, and the parts of its path that are long enough to be a token."""
    parts = urlsplit(url)
    values = [value for _, value in parse_qsl(parts.query)]
    segments = [segment for segment in parts.path.split("/") if len(segment) >= SEGMENT_MIN]
    return [*values, *segments, *map(unquote, segments)]


def mend_escapes(body: bytes) -> bytes:
    """JSON in which no escape names half a character, which some writers cut out of one: nobody could read it."""
    return _ESCAPES.sub(_mended, body) if b"\\u" in body else body


def spell_plainly(body: bytes) -> bytes:
    """JSON whose printable ASCII is written as itself where an escape stood for it, so that a search finds it."""
    return _ESCAPES.sub(_plain, body) if b"\\" in body else body


def _mended(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if _LONE.fullmatch(escape[0]) else escape[0]


def _plain(escape: re.Match[bytes]) -> bytes:
    if escape[0] == rb"\/":
        return b"/"
    if not escape[0].startswith(rb"\u00"):
        return escape[0]
    char = bytes([int(escape[0][2:], 16)])
    return escape[0] if char in _NEEDED else char
