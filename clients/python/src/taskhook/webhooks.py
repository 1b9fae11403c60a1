"""Webhooks: believe a delivery only after its signature held (Standard Webhooks), and get it as a typed event."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable, Mapping

from taskhook._decode import DecodeError
from taskhook.errors import MissingHeaderError, PayloadError, SignatureError, TimestampError
from taskhook.events import Event, decode_event

TOLERANCE_S = 300.0


def verify(
    payload: bytes | str,
    headers: Mapping[str, str],
    secret: str | Iterable[str],
    tolerance: float = TOLERANCE_S,
    *,
    now: float | None = None,
) -> Event:
    """The event in a delivery, or a WebhookVerificationError.

    `payload` is the request's body exactly as received, `headers` may be of any case, `secret` is the endpoint's
    `whsec_...` or several of which one must fit. `tolerance` is how many seconds the timestamp may lie from `now`.
    """
    body = payload.encode() if isinstance(payload, str) else payload
    message_id, timestamp, signatures = _read_headers(headers)
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        raise TimestampError(f"webhook-timestamp is more than {tolerance:g} s away from now")
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [_signature(one, message_id, timestamp, body) for one in secrets]
    if not any([hmac.compare_digest(one, given) for one in expected for given in signatures]):
        raise SignatureError("no signature fits: another secret, or an altered body")
    try:
        return decode_event(json.loads(body))
    except (DecodeError, ValueError, RecursionError) as error:
        raise PayloadError(f"signed, but no event: {error}") from error


def sign(payload: bytes | str, secret: str, *, id: str = "evt_test", timestamp: float | None = None) -> dict[str, str]:
    """The headers of a delivery, for the tests of your own receiver."""
    body = payload.encode() if isinstance(payload, str) else payload
    at = str(int(time.time() if timestamp is None else timestamp))
    signature = _signature(secret, id, at, body).decode()
    return {"webhook-id": id, "webhook-timestamp": at, "webhook-signature": signature}


def _read_headers(headers: Mapping[str, str]) -> tuple[str, str, list[bytes]]:
    given = {name.lower(): value for name, value in headers.items()}
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        if not given.get(name):
            raise MissingHeaderError(f"there is no {name}")
    if not re.fullmatch(r"[0-9]{1,12}", given["webhook-timestamp"]):
        raise MissingHeaderError("webhook-timestamp is no time in seconds")
    return given["webhook-id"], given["webhook-timestamp"], given["webhook-signature"].encode().split()


def _signature(secret: str, message_id: str, timestamp: str, body: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the secret is not whsec_ and base64") from None
    if not key:
        raise ValueError("the secret is empty")
    signed = f"{message_id}.{timestamp}.".encode() + body
    return b"v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
