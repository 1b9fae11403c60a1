"""Encryption at rest: AES-256-GCM under keys derived from the secret keys; the newest encrypts, all of them decrypt.

Values stay encrypted in memory too: they are sealed where they come in, and opened where they are used.
"""

import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

log = structlog.get_logger()

MARK = "\x02sealed."
"""Begins every sealed value: where secrets stand, no caller can give a control character."""
NONCE_BYTES = 12
TOLD_MAX = 100
_ORIGIN = re.compile(r"[a-z]+://[^/?#]*", re.IGNORECASE)


class Unopened(Exception):
    """A value that none of the keys opens. It stays as it is: with the right key it is readable again."""

    def __init__(self) -> None:
        super().__init__("encrypted under a key that TASKHOOK_SECRET_KEYS does not list")


class Vault:
    """A sealed text is the mark, the name of its key, a dot, and base64 of nonce and ciphertext.

    `use` says what the text is for and is authenticated with it, so that no value can be put in another's place.
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        made = [(_derive(key, b"name", 4).hex(), AESGCM(_derive(key, b"key", 32))) for key in secret_keys]
        self._newest, self._cipher = made[0]
        self._ciphers = dict(reversed(made))
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return "Vault()"

    def seal(self, text: str, use: str) -> str:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, text.encode(), use.encode())
        return f"{MARK}{self._newest}.{urlsafe_b64encode(sealed).decode()}"

    def open(self, text: str, use: str) -> str:
        """Decrypt a text. One that was stored before encryption existed is returned as it is. Raise Unopened."""
        if not text.startswith(MARK):
            return text
        name, _, encoded = text.removeprefix(MARK).partition(".")
        try:
            sealed = urlsafe_b64decode(encoded)
            return self._ciphers[name].decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], use.encode()).decode()
        except (KeyError, ValueError, InvalidTag):
            self._tell(name)
            raise Unopened from None

    def seal_url(self, url: str) -> str:
        """Path and query alone may hold a token; the origin stays readable, since it is what limits are kept by."""
        origin, rest = _split(url)
        return f"{origin}/{self.seal(rest, f'url of {origin}')}"

    def open_url(self, url: str) -> str:
        """Raises Unopened."""
        origin, rest = _split(url)
        sealed = rest.removeprefix("/")
        return origin + self.open(sealed, f"url of {origin}") if sealed.startswith(MARK) else url

    def seal_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: self.seal(value, "header") for name, value in headers.items()}

    def open_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Raises Unopened."""
        return {name: self.open(value, "header") for name, value in headers.items()}

    def is_newest(self, text: str) -> bool:
        return f"{MARK}{self._newest}." in text

    def _tell(self, name: str) -> None:
        """Once for each key: one error, not one for each value."""
        if name not in self._told and len(self._told) < TOLD_MAX:
            self._told.add(name)
            log.error("vault.unopened", setting="TASKHOOK_SECRET_KEYS", key_name=name[:8], reason=str(Unopened()))


def _split(url: str) -> tuple[str, str]:
    found = _ORIGIN.match(url)
    origin = found[0] if found else ""
    return origin, url[len(origin) :]


def _derive(secret_key: str, what: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=b"taskhook.vault." + what).derive(secret_key.encode())
