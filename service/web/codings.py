"""Content codings of request bodies: gzip is decoded within the size limit, any other is refused."""

import zlib

from starlette.types import Scope

from service.core.problems import Malformed, TooLarge
from service.web.errors import UnsupportedCoding

MEMBERS_MAX = 16
"""Streams one after the other in a body (RFC 1952 2.2): each costs some work though it may hold nothing."""
GZIP = 16 + zlib.MAX_WBITS


def is_gzipped(scope: Scope) -> bool:
    """Judge by the headers alone. Raises UnsupportedCoding."""
    given = b",".join(value for name, value in scope["headers"] if name == b"content-encoding")
    named = given[:100].lower().replace(b" ", b"").split(b",")
    codings = [coding for coding in named if coding not in (b"", b"identity")]
    if codings and codings not in ([b"gzip"], [b"x-gzip"]):
        raise UnsupportedCoding("The body must be sent with Content-Encoding gzip or without any.")
    return bool(codings)


def gunzip(body: bytes, limit: int) -> bytes:
    """Decode at most `limit` bytes. Raises TooLarge before more is decoded, and Malformed."""
    parts: list[bytes] = []
    room = limit
    for _ in range(MEMBERS_MAX):
        member = zlib.decompressobj(GZIP)
        try:
            part = member.decompress(body, room + 1)
        except zlib.error:
            raise Malformed("The body is not valid gzip.") from None
        room -= len(part)
        if room < 0:
            raise TooLarge(f"The decoded body is larger than {limit} bytes.")
        if not member.eof:
            raise Malformed("The gzip stream of the body is incomplete.")
        parts.append(part)
        body = member.unused_data.lstrip(b"\0")
        if not body:
            return b"".join(parts)
    raise Malformed(f"The body has more than {MEMBERS_MAX} gzip streams.")
