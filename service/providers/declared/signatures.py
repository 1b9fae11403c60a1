"""Signature recipes: how a provider's callbacks prove where they come from, and tokens minted for its API.

Every signature is computed over the raw bytes. Comparisons are constant-time, over decoded bytes.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.providers.base import HttpReply
from service.providers.declared.schema import Signature, Timestamp, Verify

CANDIDATES_MAX = 16
"""Signatures tried in one header: a sender that rotates its key sends two or three."""
KEYS_MAX = 16
WRONG = "its signature is missing or wrong"
_SECONDS = re.compile(r"\d{1,12}", re.ASCII)


def verify(recipe: Verify, request: HttpReply, secret: str | None, keys: Sequence[bytes] = ()) -> str | None:
    """Why this callback can't be trusted; None if it can. `keys` are the public keys of the recipe's key set."""
    if recipe.algorithm == "equals":
        return None if _is_equal(recipe, request.headers, secret) else WRONG
    sent_at = _item(request.headers, recipe.timestamp.header, recipe.timestamp.item) if recipe.timestamp else None
    if recipe.timestamp and not _is_fresh(sent_at, recipe.timestamp, request.received_at):
        return "its timestamp is missing, malformed or too far from now"
    message = recipe.message.render(request, sent_at) if recipe.message else None
    if message is None:
        return "a part that the signature covers is missing"
    candidates = _candidates(recipe.signature, request.headers)
    if recipe.algorithm == "ed25519":
        return None if _is_signed_by(keys, candidates, message) else WRONG
    if not secret:
        return "the account has no secret to verify it with"
    digest = hmac.digest(_key(recipe, secret), message, hashlib.sha256)
    return None if any([hmac.compare_digest(digest, given) for given in candidates]) else WRONG


def read_key_set(body: bytes) -> tuple[bytes, ...]:
    """The Ed25519 keys of a JWKS (RFC 7517, RFC 8037); empty for anything else."""
    try:
        found = msgspec.json.decode(body)["keys"]
        texts = [key["x"] for key in found if key.get("kty", "OKP") == "OKP" and key.get("crv", "Ed25519") == "Ed25519"]
        keys = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in texts]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ()
    return tuple(key for key in keys if len(key) == 32)


def mint_hs256(claims: Mapping[str, Any], secret: str) -> str:
    """A JSON Web Token (RFC 7519) signed with HMAC-SHA256. The claims keep their order."""
    head, body = (_base64url(msgspec.json.encode(part)) for part in ({"alg": "HS256", "typ": "JWT"}, dict(claims)))
    signature = hmac.digest(secret.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{_base64url(signature)}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- the parts of a verification --------------------------------------------------------------------------------------


def _is_fresh(text: str | None, recipe: Timestamp, now: datetime) -> bool:
    if text is None or not _SECONDS.fullmatch(text):
        return False
    return abs(int(now.timestamp()) - int(text)) <= recipe.tolerance


def _is_equal(recipe: Verify, headers: Mapping[str, str], secret: str | None) -> bool:
    given = _item(headers, recipe.signature.header, recipe.signature.item) or ""
    wanted = f"{recipe.prefix}{secret}".encode()
    return bool(secret) and hmac.compare_digest(given.encode("latin-1", "replace"), wanted)


def _is_signed_by(keys: Sequence[bytes], candidates: Sequence[bytes], message: bytes) -> bool:
    """Every key is tried: a provider that rotates its keys publishes several."""
    for key in keys[:KEYS_MAX]:
        for candidate in candidates:
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(candidate, message)
            except (InvalidSignature, ValueError):
                continue
            return True
    return False


def _candidates(recipe: Signature, headers: Mapping[str, str]) -> list[bytes]:
    """The signatures that the header offers, decoded; what has another prefix or encoding is left out."""
    value = _item(headers, recipe.header, recipe.item) or ""
    offered = value.split(recipe.split) if recipe.split and not recipe.item else [value]
    texts = [text.strip() for text in offered[:CANDIDATES_MAX]]
    decoded = [_decode(text.removeprefix(recipe.strip), recipe) for text in texts if text.startswith(recipe.strip)]
    return [signature for signature in decoded if signature]


def _decode(text: str, recipe: Signature) -> bytes | None:
    try:
        return bytes.fromhex(text) if recipe.encoding == "hex" else base64.b64decode(text, validate=True)
    except ValueError:
        return None


def _item(headers: Mapping[str, str], header: str, item: str | None) -> str | None:
    """The header's value, or of `t=1,v0=ab` the part that the item names."""
    value = headers.get(header.lower())
    if value is None or item is None:
        return value
    parts = dict(part.strip().partition("=")[::2] for part in value.split(","))
    return parts.get(item)


def _key(recipe: Verify, secret: str) -> bytes:
    """OpenAI's SDK takes a secret that is no base64 as it stands, so we do, too (openai-python `_webhooks.py`)."""
    text = secret.removeprefix(recipe.key_strip)
    try:
        return base64.b64decode(text, validate=True) if recipe.key_encoding == "base64" else text.encode()
    except ValueError:
        return text.encode()
