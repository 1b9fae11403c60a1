"""Sessions of the dashboard: a signed cookie that names the key somebody came in with, and never holds it.

The cookie ends with its time, and at once when it is signed out or its key is revoked or taken out of the settings.
"""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
from itsdangerous import BadSignature, Signer

from service.web.auth import Caller, KeyRing

LIFE = timedelta(hours=12)
CODE_LIFE_S = 3600.0
NOTICE_MAX = 300


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A signed-in key: `mark` is the id of a stored key, or a keyed hash of one of the settings.

    `csrf` is a secret of this session that every form carries.
    """

    mark: str
    csrf: str
    until: datetime

    def __repr__(self) -> str:
        return f"Session(until={self.until:%Y-%m-%dT%H:%M})"

    @property
    def id(self) -> str:
        """A hash that names the session in the database and opens nothing."""
        return hashlib.sha256(f"session {self.csrf}".encode()).hexdigest()


class OneTimeCode:
    """A code that signs in once, within an hour: for a link, since links stay in the history of browsers."""

    def __init__(self, code: str, key: str, monotonic: Callable[[], float]) -> None:
        self._code: str | None = code
        self._key = key
        self._monotonic = monotonic
        self._until = monotonic() + CODE_LIFE_S

    def redeem(self, code: str) -> str | None:
        """Return the API key that the code stands for, the first time; None for any other code, or too late."""
        if self._code is None or self._monotonic() > self._until:
            return None
        if not hmac.compare_digest(self._code.encode(), code.encode("utf-8", "replace")):
            return None
        self._code = None
        return self._key


class Sessions:
    """Signs with the first of the secret keys, verifies with all of them."""

    def __init__(self, secret_keys: Sequence[str]) -> None:
        oldest_first = list(reversed(secret_keys))
        self._sessions = _signer(oldest_first, "session")
        self._notices = _signer(oldest_first, "notice")
        self._mark_keys = [_signer([key], "mark").derive_key() for key in secret_keys]

    def __repr__(self) -> str:
        return "Sessions()"

    def open(self, caller: Caller, keys: KeyRing, csrf: str, now: datetime) -> tuple[Session, str]:
        """A new session and its cookie."""
        session = Session(mark=self._mark(caller, keys), csrf=csrf, until=now + LIFE)
        return session, self._sessions.sign(urlsafe_b64encode(msgspec.json.encode(session))).decode()

    async def recall(self, cookie: str, keys: KeyRing, now: datetime) -> tuple[Session, Caller] | None:
        """Whose cookie it is; None when it is not ours, is over, or its key no longer holds. Raises Unavailable."""
        try:
            session = msgspec.json.decode(urlsafe_b64decode(self._sessions.unsign(cookie)), type=Session)
        except (BadSignature, ValueError):  # msgspec's errors are ValueErrors
            return None
        if now >= session.until:
            return None
        caller = await keys.recall(session.mark) if session.mark.startswith("key_") else self._given(session, keys)
        return None if caller is None else (session, caller)

    def sign_notice(self, text: str) -> str:
        return self._notices.sign(urlsafe_b64encode(text[:NOTICE_MAX].encode())).decode()

    def read_notice(self, cookie: str) -> str | None:
        try:
            return urlsafe_b64decode(self._notices.unsign(cookie)).decode()
        except (BadSignature, ValueError):
            return None

    def _mark(self, caller: Caller, keys: KeyRing) -> str:
        if caller.key_id is not None:
            return caller.key_id
        digest = next(digest for digest, given in keys.given if given == caller)
        return _keyed(self._mark_keys[0], digest)

    def _given(self, session: Session, keys: KeyRing) -> Caller | None:
        known = ((_keyed(key, digest), caller) for key in self._mark_keys for digest, caller in keys.given)
        return next((caller for mark, caller in known if hmac.compare_digest(mark, session.mark)), None)


def _signer(secret_keys: Sequence[str], use: str) -> Signer:
    salt = f"taskhook.dashboard.{use}"
    return Signer(list(secret_keys), salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)


def _keyed(key: bytes, digest: bytes) -> str:
    return hmac.digest(key, digest, hashlib.sha256).hex()
