"""Signatures of events by Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`."""

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64


def render_secret(random_bytes: bytes) -> str:
    return PREFIX + b64encode(random_bytes).decode()


def derive_secret(secret_key: str) -> str:
    """Derive the default signing secret from the secret key, which it does not reveal."""
    return render_secret(hmac.digest(secret_key.encode(), b"taskhook.signing-secret", hashlib.sha256))


def decode_secret(secret: str) -> bytes:
    """Return the key's bytes. Raises ValueError, whose text says what is wrong without the secret."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"must start with {PREFIX}")
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"must be base64 after {PREFIX}") from None
    if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
        raise ValueError(f"must hold {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")
    return key


def sign(secrets: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of one attempt, with one signature for each secret, as a rotation needs."""
    signed = b"%b.%d.%b" % (webhook_id.encode(), timestamp, body)
    signatures = (b64encode(hmac.digest(decode_secret(secret), signed, hashlib.sha256)).decode() for secret in secrets)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
