"""An account: one set of credentials and limits at a provider. Limits, pauses and the circuit breaker are its own."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from service.core.foreign_json import repair_json
from service.core.masking import mask, mask_body, repair_escapes
from service.core.tokens import hide_tokens

DEFAULT = "default"
"""The account whose settings name no account."""
ID_SHAPE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
"""Ids of providers and accounts. A setting's name holds them in capitals, with `_` for `-`."""
SEPARATOR = ":"
KEY, WEBHOOK_SECRET = "key", "webhook_secret"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of an account: `submits` in any `window_s`, and tasks in flight."""

    submits: int
    window_s: float
    max_in_flight: int


NO_LIMITS = Limits(submits=1_000_000, window_s=1.0, max_in_flight=1_000_000)


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An account. `secrets` holds its credentials by the names that the provider declares; no repr shows them."""

    provider: str
    id: str = DEFAULT
    base_url: str
    secrets: dict[str, str]
    limits: Limits = NO_LIMITS

    def __repr__(self) -> str:
        return f"Account(key={self.key!r}, base_url={self.base_url!r})"

    @property
    def key(self) -> str:
        return account_key(self.provider, self.id)

    @property
    def api_key(self) -> str:
        return self.secrets[KEY]

    @property
    def webhook_secret(self) -> str | None:
        """Signs the provider's callbacks; None where they are accepted unsigned."""
        return self.secrets.get(WEBHOOK_SECRET)

    @property
    def fingerprint(self) -> str:
        """A hash that distinguishes keys and reveals nothing else."""
        sent = [f"{name}={value}" for name, value in sorted(self.secrets.items()) if name != WEBHOOK_SECRET]
        return hashlib.blake2b("\n".join([self.key, *sent]).encode(), digest_size=8).hexdigest()

    def clean(self, body: bytes) -> bytes:
        """Return the body as standard JSON without our keys and callback token, which a provider may echo.

        A valid body without secrets stays byte for byte.
        """
        return mask_body(repair_escapes(repair_json(body)), hide_tokens, list(self.secrets.values()))

    def clean_header(self, value: str) -> str:
        hidden = hide_tokens(value.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
        return mask(hidden, self.secrets.values())

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("key", self.key), ("base_url", self.base_url)]


def account_key(provider: str, account: str) -> str:
    """The one name under which everything of an account is stored, counted and notified.

    That of a default account is its provider's id, as it was when a provider had one account only. So replicas of that
    version share its limits and tasks with us, and leave the tasks of every other account alone.
    """
    return provider if account == DEFAULT else f"{provider}{SEPARATOR}{account}"


def split_key(key: str) -> tuple[str, str]:
    """Provider and account id."""
    provider, _, account = key.partition(SEPARATOR)
    return provider, account or DEFAULT


def setting_name(provider: str, account: str, suffix: str) -> str:
    """The environment variable of one setting of an account."""
    owner = provider if account == DEFAULT else f"{provider}__{account}"
    return f"TASKHOOK_{owner.replace('-', '_').upper()}_{suffix}"


def choose(rooms: Mapping[str, int], last: str | None) -> str:
    """Return the account with the most room; of those that have as much, the next after the last one chosen."""
    most = max(rooms.values())
    best = sorted(account for account, room in rooms.items() if room == most)
    return next((account for account in best if last is not None and account > last), best[0])
