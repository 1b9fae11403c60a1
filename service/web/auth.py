"""Authentication by bearer key (RFC 6750), compared in constant time."""

import asyncio
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
import structlog

from service.core.env import Env
from service.core.keys import SCOPES, ApiKey, Scope, digest_of, hint_of, is_key
from service.core.problems import Forbidden, TooMany, Unauthorized, Unavailable
from service.store.keys import KeyStore
from service.telemetry import Metrics
from service.web.throttle import Failures

log = structlog.get_logger()

ALL: frozenset[Scope] = frozenset(SCOPES)
LOOK_S = 1.0
"""A key that was revoked elsewhere is taken this much longer at most."""
USE_EVERY = timedelta(minutes=1)
GATHER_S = 1.0


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The sender of a request: a name that is no secret, and the id of its key if it is one of the store.

    `ticket_expires_at` is set for a ticket, which reads a single task.
    """

    name: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    ticket_expires_at: datetime | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def check(self, scope: Scope) -> None:
        """Raises Forbidden."""
        if scope not in self.scopes:
            raise Forbidden(f"This key does not have the right {scope}.")


NOBODY = Caller(name="nobody", scopes=frozenset())


class KeyRing:
    """All keys that hold: those of the settings, which may do everything, and those of the store.

    `given` are the first kind, each as the digest of the key and its caller.
    """

    def __init__(self, api_keys: Iterable[str], keys: KeyStore, env: Env, metrics: Metrics) -> None:
        self.given = [
            (_digest(key.encode()), Caller(name=f"key-{number}", scopes=ALL))
            for number, key in enumerate(api_keys, start=1)
        ]
        self._live = _LiveKeys(keys, env)
        self._uses = _Uses(keys, env)
        self._failures = Failures(env.monotonic)
        self._metrics = metrics

    async def authenticate(self, authorization: str | None, address: str) -> Caller:
        """The caller. Raises Unauthorized, or TooMany when this address failed too often; a good key always holds."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Unauthorized("Send a key of this service: Authorization: Bearer KEY.")
        caller = self._find_given(key) or await self._find_live(key, address)
        if caller is None:
            raise self._refuse(address)
        return caller

    async def recall(self, key_id: str) -> Caller | None:
        """Return the caller of a stored key that signed in earlier; None if it is revoked. Raise Unavailable."""
        key = await self._live.find(key_id)
        return None if key is None else self._use(key)

    async def until_revoked(self, caller: Caller) -> None:
        """Returns when the caller's key no longer holds; those of the settings hold as long as this process."""
        if caller.key_id is None:
            await asyncio.Event().wait()
        while await self.holds(caller):  # noqa: ASYNC110 (it is another process that revokes)
            await asyncio.sleep(LOOK_S)

    def fingerprint(self, caller: Caller) -> str | None:
        """Return a text that identifies the caller's key, to bind tickets to it; None for a caller without a key."""
        if caller.key_id is not None:
            return caller.key_id
        return next((digest.hex() for digest, known in self.given if known.name == caller.name), None)

    async def fingerprints(self, key_id: str | None) -> list[str]:
        """Return the fingerprints of the valid keys with this id; None stands for all keys of the settings."""
        if key_id is None:
            return [digest.hex() for digest, _ in self.given]
        return [] if await self._live.find(key_id) is None else [key_id]

    async def holds(self, caller: Caller) -> bool:
        """Return True also while the store is unavailable: accepted callers stay until it answers."""
        try:
            return caller.key_id is None or await self._live.find(caller.key_id) is not None
        except Unavailable:
            return True

    def _find_given(self, key: str) -> Caller | None:
        given = _digest(key.encode("latin-1"))
        found = [caller for digest, caller in self.given if hmac.compare_digest(digest, given)]
        return found[0] if found else None

    async def _find_live(self, key: str, address: str) -> Caller | None:
        """Found by its public beginning, judged by the digest of the whole."""
        if not is_key(key):
            return None
        found = _match(await self._live.read(), key)
        if found is None and not self._failures.is_full(address):
            found = _match(await self._live.read(anew=True), key)  # it may have been made a moment ago
        if found is None:
            return None
        return self._use(found)

    def _use(self, key: ApiKey) -> Caller:
        self._uses.note(key)
        return Caller(name=key.id, scopes=ALL if "admin" in key.scopes else frozenset(key.scopes), key_id=key.id)

    def _refuse(self, address: str) -> Unauthorized | TooMany:
        wait_s = self._failures.note(address)
        self._metrics.auth_failures.labels("unknown" if wait_s is None else "limited").inc()
        if wait_s is None:
            return Unauthorized("This key is not known here.")
        return TooMany("Too many attempts with unknown keys came from this address.", retry_after_s=int(wait_s))


class _LiveKeys:
    """The keys of the store by their hints, as last read, with the version they had: most looks find it unchanged."""

    def __init__(self, keys: KeyStore, env: Env) -> None:
        self._keys = keys
        self._env = env
        self._version = -1
        self._found: dict[str, ApiKey] = {}
        self._by_id: dict[str, ApiKey] = {}
        self._fresh_until = 0.0
        self._reading = asyncio.Lock()

    async def read(self, *, anew: bool = False) -> dict[str, ApiKey]:
        """Not older than a second. Raises Unavailable: a key that may be revoked is not taken on trust."""
        asked_at = self._env.monotonic()
        if anew or asked_at >= self._fresh_until:
            async with self._reading:
                if asked_at >= self._fresh_until - LOOK_S:  # else somebody has read while this one waited
                    await self._read()
        return self._found

    async def find(self, key_id: str) -> ApiKey | None:
        await self.read()
        return self._by_id.get(key_id)

    async def _read(self) -> None:
        begun_at = self._env.monotonic()
        changed = await self._keys.read_live(self._version)
        if changed is not None:
            self._version, found = changed
            self._found = {key.hint: key for key in found}
            self._by_id = {key.id: key for key in found}
        self._fresh_until = begun_at + LOOK_S


class _Uses:
    """When keys were used last: gathered for a second and written together, at most once a minute for each key."""

    def __init__(self, keys: KeyStore, env: Env) -> None:
        self._keys = keys
        self._env = env
        self._told: dict[str, datetime] = {}
        self._waiting: dict[str, datetime] = {}
        self._writing: asyncio.Task[None] | None = None

    def note(self, key: ApiKey) -> None:
        now = self._env.now()
        told = self._told.get(key.id) or key.used_at
        if told is not None and abs(now - told) < USE_EVERY:
            return
        self._told[key.id] = self._waiting[key.id] = now
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="key uses")

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_S)
            uses, self._waiting = self._waiting, {}
            try:
                await self._keys.note_uses(uses)
            except Unavailable as problem:
                log.warning("key.use_lost", reason=problem.detail, cause=problem.cause)


def _match(live: dict[str, ApiKey], key: str) -> ApiKey | None:
    found = live.get(hint_of(key))
    known = found.digest if found else ""
    return found if hmac.compare_digest(digest_of(key), known) else None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
