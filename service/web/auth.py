"""Who calls: bearer keys (RFC 6750), compared so that the time taken tells nothing."""

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from service.core.problems import Unauthorized

ALL = frozenset({"*"})


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever sent the request, by a name that is no secret; `scopes` are what it may do."""

    name: str
    scopes: frozenset[str]


NOBODY = Caller(name="nobody", scopes=frozenset())


class Keys:
    """The keys of the settings, which may do everything. Their digests alone are kept."""

    def __init__(self, api_keys: Iterable[str]) -> None:
        self._callers = [
            (_digest(key.encode()), Caller(name=f"key-{number}", scopes=ALL))
            for number, key in enumerate(api_keys, start=1)
        ]

    def authenticate(self, authorization: str | None) -> Caller:
        """The caller. Raises Unauthorized."""
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("Send a key of this service: Authorization: Bearer KEY.")
        given = _digest(key.strip().encode("latin-1"))
        found = [caller for digest, caller in self._callers if hmac.compare_digest(digest, given)]
        if not found:
            raise Unauthorized("This key is not known here.")
        return found[0]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
