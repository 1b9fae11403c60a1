"""API keys: scopes, and a format that secret scanners can detect and check offline.

A key is `tk_live_`, 33 base62 digits (the first 8 are its hint, the rest hold 149 random bits) and 6 digits of a
CRC-32 over all of that.
"""

import hashlib
import hmac
import re
import zlib
from datetime import datetime
from typing import Literal, get_args

import msgspec

Scope = Literal["tasks:write", "tasks:read", "endpoints", "admin"]
"""The scopes of a key.

tasks:write  create, cancel and erase tasks
tasks:read   see tasks, their timelines and events, and the providers
endpoints    see and change endpoints and deliveries, and see the events about endpoints
admin        create, list and revoke keys; implies all scopes, since it can create a key that has them
"""

SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "tk_live_"
HINT_DIGITS, RANDOM_DIGITS, CHECK_DIGITS = 8, 33, 6
RANDOM_BITS = 196
"""Random bits that fill the 33 digits."""

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{RANDOM_DIGITS}}})([0-9A-Za-z]{{{CHECK_DIGITS}}})", re.ASCII)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key: `hint` is its public beginning, `digest` the hash of the whole key."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    hint: str
    digest: str
    created_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"ApiKey(id={self.id!r})"


def render_key(random_bits: int) -> str:
    digits = _base62(random_bits % (1 << RANDOM_BITS), RANDOM_DIGITS)
    return PREFIX + digits + _check(digits)


def is_key(text: str) -> bool:
    """Return whether the text has the format of a key, of any installation."""
    found = _SHAPE.fullmatch(text)
    return found is not None and hmac.compare_digest(_check(found[1]), found[2])


def hint_of(key: str) -> str:
    return key[: len(PREFIX) + HINT_DIGITS]


def digest_of(key: str) -> str:
    """Hash a key with SHA-256: 149 random bits cannot be guessed, so a slow hash would only slow down each request."""
    return hashlib.sha256(key.encode("latin-1", "replace")).hexdigest()


def _check(digits: str) -> str:
    return _base62(zlib.crc32((PREFIX + digits).encode()), CHECK_DIGITS)


def _base62(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
