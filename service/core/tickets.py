"""Tickets: signed, short-lived tokens that read one task, for browsers.

A ticket is `tkt_<task>.<expiry>.<issuer>.<signature>`: the 32 hex digits of the task and of the issuing key, the
expiry as Unix seconds in hex, and 64 base64url characters of an HMAC-SHA384. The issuer is 0 for a key of the
settings. The salt of the signature names the key, so a ticket is invalid once its key is gone.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from itsdangerous import BadSignature, Signer

PREFIX = "tkt_"
TTL_S_DEFAULT, TTL_S_MAX = 900, 86_400
_SHAPE = re.compile(
    r"tkt_(?P<task>[0-9a-f]{32})\.(?P<expiry>[0-9a-f]{1,9})\.(?P<issuer>0|[0-9a-f]{32})\.[A-Za-z0-9_-]{64}", re.ASCII
)


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a ticket. `key_id` is the API key that issued it, None for a key of the settings."""

    task_id: str
    key_id: str | None
    expires_at: datetime


def read_ticket(text: str) -> Ticket | None:
    """Parse a ticket without verifying it; None if it does not have the format."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        return None
    issuer = found["issuer"]
    return Ticket(
        task_id=f"task_{found['task']}",
        key_id=None if issuer == "0" else f"key_{issuer}",
        expires_at=datetime.fromtimestamp(int(found["expiry"], 16), UTC),
    )


def sign_ticket(ticket: Ticket, secret_keys: Sequence[str], salt: str) -> str:
    """Sign with the newest secret key, the first; `salt` identifies the API key that issues the ticket."""
    issuer = "0" if ticket.key_id is None else ticket.key_id.partition("_")[2]
    task, expiry = ticket.task_id.partition("_")[2], int(ticket.expires_at.timestamp())
    return _signer(secret_keys, salt).sign(f"{PREFIX}{task}.{expiry:x}.{issuer}").decode()


def is_signed(text: str, secret_keys: Sequence[str], salts: Sequence[str]) -> bool:
    """Return whether one of the salts and one of the secret keys signed the ticket."""
    return any(_verifies(text, secret_keys, salt) for salt in salts)


def _verifies(text: str, secret_keys: Sequence[str], salt: str) -> bool:
    try:
        _signer(secret_keys, salt).unsign(text)
    except BadSignature:
        return False
    return True


def _signer(secret_keys: Sequence[str], salt: str) -> Signer:
    oldest_first = list(reversed(secret_keys))
    return Signer(oldest_first, salt=f"taskhook.ticket.{salt}", key_derivation="hmac", digest_method=hashlib.sha384)
