"""The callback token: names a task and can't be made without a secret key.

A token is `task_<32 hex>.<64 base64url>`: the signature is an HMAC-SHA384, whose 48 bytes fill base64 exactly, so that
each signature has one spelling. The provider is the signer's salt: a token holds for its own provider alone.
"""

import hashlib
import re
from collections.abc import Sequence

from itsdangerous import BadSignature, Signer

from service.core.problems import Forbidden

_SHAPE = re.compile(r"task_[0-9a-f]{32}\.[A-Za-z0-9_-]{64}", re.ASCII)
_IN_BYTES = re.compile(rb"task[_%](?:5[fF])?[0-9a-f]{32}[.%](?:2[eE])?[A-Za-z0-9_%-]{16,192}")
"""A token, also cut or percent-encoded: any 16 characters of a signature reveal nothing of the rest."""
HIDDEN = b"(token)"


def hide_tokens(body: bytes) -> bytes:
    """Hide callback tokens in what a provider echoes, since it is stored and shown."""
    return _IN_BYTES.sub(HIDDEN, body) if b"task" in body else body


class CallbackTokens:
    """Signs with the first of the keys, verifies with all of them."""

    def __init__(self, secret_keys: Sequence[str], providers: Sequence[str]) -> None:
        oldest_first = list(reversed(secret_keys))
        self._signers = {provider: _signer(oldest_first, f"taskhook.callback.{provider}") for provider in providers}

    def sign(self, provider: str, task_id: str) -> str:
        return self._signers[provider].sign(task_id).decode()

    def verify(self, provider: str, token: str) -> str:
        """Return the task's id. Raise Forbidden, which never shows the token."""
        if _SHAPE.fullmatch(token) is None:
            raise Forbidden("This callback URL is not one of ours.")
        try:
            return self._signers[provider].unsign(token).decode()
        except BadSignature:
            raise Forbidden("This callback URL is not one of ours.") from None


def _signer(oldest_first: Sequence[str], salt: str) -> Signer:
    """Return a signer with keys derived once: itsdangerous derives them for each token."""
    deriving = Signer(oldest_first, salt=salt, key_derivation="hmac", digest_method=hashlib.sha384)
    derived = [deriving.derive_key(key) for key in deriving.secret_keys]
    return Signer(derived, salt=salt, key_derivation="none", digest_method=hashlib.sha384)
