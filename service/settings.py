"""The environment and .env, read once into one frozen value; nothing else looks at the environment."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from ipaddress import ip_network
from math import ceil
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec

from service.core.account import DEFAULT, ID_SHAPE, WEBHOOK_SECRET, Account, Limits, setting_name
from service.core.schedule import RETRY_SCHEDULE_S
from service.core.signing import decode_secret
from service.core.strength import find_weakness
from service.environment import IN_FILE, PREFIX, SettingsError, clean, read_environment, read_secret
from service.providers.base import Provider, Secret
from service.providers.declared.files import read_directory
from service.providers.registry import Registry, build_registry, register
from service.store import postgres_url
from service.web.prefix import OWN_NAMES

T = TypeVar("T")
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
OF_THE_CLIENT = frozenset({"TASKHOOK_URL", "TASKHOOK_API_KEY"})
HOUR_S, DAY_S = 3_600.0, 86_400.0
COUNT_MAX = 1_000_000
SANDBOX_LIMITS = Limits(submits=1_000, window_s=1.0, max_in_flight=5_000)
"""The sandbox charges nothing and has no limits of its own to keep to."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Its repr shows no secret."""

    database_url: str
    public_url: str | None
    secret_keys: tuple[str, ...]
    api_keys: tuple[str, ...]
    signing_secret: str | None
    host: str
    port: int
    worker_port: int | None
    """Where a worker that runs alone answers the questions of operators."""
    sandbox: bool
    providers_dir: Path | None
    allow_private_networks: bool
    retry_schedule: tuple[float, ...]
    registry: Registry
    accounts: dict[str, dict[str, Account]]
    """By provider and id. The default account is always there, whether its secrets are set or not."""
    confirm_callbacks: bool
    poll_first_s: float
    poll_max_s: float
    callback_grace_s: float
    retention_days: float
    max_requests: int
    keepalive_s: float
    trusted_proxies: str
    """Proxies whose X-Forwarded-For and X-Forwarded-Proto are taken: addresses and networks, with commas; or `*`."""
    cors_origins: tuple[str, ...]
    dashboard: bool
    log_level: str
    log_format: str
    tracing: bool | None
    """None: as the OTEL_* variables say."""
    otel: dict[str, str]
    """Those variables, from the environment or the file, for the SDK, whose settings they are."""
    unknown: tuple[str, ...]
    """Unknown names that look like settings, each with the nearest known one."""

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value}' for name, value in self.public_items())})"

    def public_items(self) -> list[tuple[str, str]]:
        """Name and value of each setting, secrets hidden."""
        return [
            ("TASKHOOK_DATABASE_URL", postgres_url.hide_secrets(self.database_url)),
            ("TASKHOOK_PUBLIC_URL", self.public_url or ""),
            ("TASKHOOK_SECRET_KEYS", _hidden(*self.secret_keys)),
            ("TASKHOOK_API_KEYS", _hidden(*self.api_keys)),
            ("TASKHOOK_SIGNING_SECRET", _hidden(self.signing_secret)),
            ("TASKHOOK_HOST", self.host),
            ("TASKHOOK_PORT", str(self.port)),
            ("TASKHOOK_WORKER_PORT", "" if self.worker_port is None else str(self.worker_port)),
            ("TASKHOOK_SANDBOX", _word(self.sandbox)),
            ("TASKHOOK_PROVIDERS_DIR", str(self.providers_dir or "")),
            ("TASKHOOK_ALLOW_PRIVATE_NETWORKS", _word(self.allow_private_networks)),
            ("TASKHOOK_RETRY_SCHEDULE", ",".join(f"{delay:g}" for delay in self.retry_schedule)),
            ("TASKHOOK_CONFIRM_CALLBACKS", _word(self.confirm_callbacks)),
            ("TASKHOOK_POLL_FIRST_S", f"{self.poll_first_s:g}"),
            ("TASKHOOK_POLL_MAX_S", f"{self.poll_max_s:g}"),
            ("TASKHOOK_CALLBACK_GRACE_S", f"{self.callback_grace_s:g}"),
            ("TASKHOOK_RETENTION_DAYS", f"{self.retention_days:g}"),
            ("TASKHOOK_MAX_REQUESTS", str(self.max_requests)),
            ("TASKHOOK_KEEPALIVE_S", f"{self.keepalive_s:g}"),
            ("TASKHOOK_TRUSTED_PROXIES", self.trusted_proxies),
            ("TASKHOOK_CORS_ORIGINS", ",".join(self.cors_origins)),
            ("TASKHOOK_DASHBOARD", _word(self.dashboard)),
            ("TASKHOOK_LOG_LEVEL", self.log_level),
            ("TASKHOOK_LOG_FORMAT", self.log_format),
            ("TASKHOOK_TRACING", "" if self.tracing is None else _word(self.tracing)),
            *(
                item
                for name, accounts in self.accounts.items()
                for account in accounts.values()
                for item in _account_items(self.registry[name], account)
            ),
        ]

    def usable_accounts(self, provider: str) -> dict[str, Account]:
        """Return the accounts that can submit tasks; the sandbox needs no secrets."""
        is_simulated = self.sandbox and self.registry[provider].capabilities.simulated
        return {id: account for id, account in self.accounts[provider].items() if is_simulated or account.secrets}


def load(
    environ: Mapping[str, str],
    dotenv: Path | None = Path(".env"),
    *,
    dev: bool = False,
    build: Callable[[], Registry] = build_registry,
) -> Settings:
    """The settings in force: the environment wins over the file. `build` makes the providers. Raises SettingsError."""
    given = _Given(read_environment(environ, dotenv))
    sandbox = given.flag("SANDBOX", default=dev)
    registry = _with_declared(build(), given, dotenv)
    settings = Settings(
        database_url=given.read("DATABASE_URL", "sqlite:///var/taskhook.db", database_url),
        public_url=given.read("PUBLIC_URL", None, _public_url),
        secret_keys=given.read("SECRET_KEYS", (), _list),
        api_keys=given.read("API_KEYS", (), _list),
        signing_secret=given.read("SIGNING_SECRET", None, _signing_secret),
        host=given.read("HOST", "127.0.0.1", _text),
        port=given.read("PORT", given.read_bare("PORT", 8000, _port), _port),
        worker_port=given.read("WORKER_PORT", None, _port),
        sandbox=sandbox,
        providers_dir=given.read("PROVIDERS_DIR", _default_directory(dotenv), Path),
        allow_private_networks=given.flag("ALLOW_PRIVATE_NETWORKS", default=sandbox),
        retry_schedule=given.read("RETRY_SCHEDULE", RETRY_SCHEDULE_S, _schedule),
        registry=registry,
        confirm_callbacks=given.flag("CONFIRM_CALLBACKS", default=False),
        poll_first_s=given.read("POLL_FIRST_S", 2.0, _seconds),
        poll_max_s=given.read("POLL_MAX_S", 15.0, _seconds),
        callback_grace_s=given.read("CALLBACK_GRACE_S", 60.0, _seconds),
        retention_days=given.read("RETENTION_DAYS", 30.0, _days),
        max_requests=given.read("MAX_REQUESTS", 1_000, _count),
        keepalive_s=given.read("KEEPALIVE_S", 75.0, _keepalive),
        trusted_proxies=given.read("TRUSTED_PROXIES", given.read_bare("FORWARDED_ALLOW_IPS", "", _proxies), _proxies),
        cors_origins=given.read("CORS_ORIGINS", (), _origins),
        dashboard=given.flag("DASHBOARD", default=True),
        log_level=given.read("LOG_LEVEL", "info", _one_of(LEVELS)),
        log_format=given.read("LOG_FORMAT", "auto", _one_of(FORMATS)),
        tracing=given.read("TRACING", None, _flag),
        otel=given.of_others("OTEL_"),
        accounts={name: _accounts(given, provider, sandbox=sandbox) for name, provider in registry.items()},
        unknown=given.unknown(),
    )
    _check(settings)
    return settings


class _Given:
    """The given values, and the names that were read: all others are mistakes."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._asked: set[str] = set(OF_THE_CLIENT)

    def read(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        """The value, or what is in the file that `NAME_FILE` names: so Docker and Kubernetes hand over secrets."""
        name = PREFIX + name
        self._ask(name, name + IN_FILE)
        path = self._values.get(name + IN_FILE)
        if path is None:
            return self._read(name, default, parse)
        if name in self._values:
            raise SettingsError(f"{name} and {name}{IN_FILE} are both set: keep one of them.")
        return _parse(name, read_secret(name + IN_FILE, path.strip()), parse)

    def read_bare(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        self._ask(name)
        return self._read(name, default, parse)

    def _read(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        value = self._values.get(name)
        return default if value is None else _parse(name, value, parse)

    def _ask(self, *names: str) -> None:
        """The ids of providers make names of settings, and two of them must not make the same."""
        for name in names:
            if name in self._asked:
                raise SettingsError(f"{name} would have two meanings: give the provider another id.")
            self._asked.add(name)

    def peek(self, name: str, default: Path | None) -> Path | None:
        """The value of a setting that is read in full later."""
        value = self._values.get(PREFIX + name)
        return _parse(PREFIX + name, value, Path) if value else default

    def names(self, prefix: str) -> list[str]:
        return sorted(name for name in self._values if name.startswith(prefix))

    def flag(self, name: str, *, default: bool) -> bool:
        return self.read(name, default, _flag)

    def of_others(self, prefix: str) -> dict[str, str]:
        names = [name for name in self._values if name.startswith(prefix)]
        return {name: self.read_bare(name, "", str) for name in names}

    def unknown(self) -> tuple[str, ...]:
        names = sorted(name for name in self._values if name.startswith(PREFIX) and name not in self._asked)
        return tuple(
            f"{name} (did you mean {near[0]}?)" if (near := get_close_matches(name, self._asked, 1)) else name
            for name in names
        )


def _parse(name: str, value: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(clean(value))
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from None


# --- providers --------------------------------------------------------------------------------------------------------


def _default_directory(dotenv: Path | None) -> Path | None:
    """`providers/` beside `.env`, if there is one."""
    beside = (dotenv or Path(".env")).parent / "providers"
    return beside if dotenv is not None and beside.is_dir() else None


def _with_declared(built_in: Registry, given: "_Given", dotenv: Path | None) -> Registry:
    """The built-in providers and those that the operator declares."""
    directory = given.peek("PROVIDERS_DIR", _default_directory(dotenv))
    if directory is None:
        return built_in
    if not directory.is_dir():
        raise SettingsError(f"TASKHOOK_PROVIDERS_DIR must name a directory: {directory} is none.")
    try:
        return register([*built_in.values(), *read_directory(directory, _now)])
    except ValueError as error:  # a DeclarationError is one
        raise SettingsError(str(error)) from error


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 (only tokens minted for a provider carry it)


# --- accounts ---------------------------------------------------------------------------------------------------------

BASE_URL, SUBMITS_PER_S, MAX_IN_FLIGHT = "BASE_URL", "SUBMITS_PER_S", "MAX_IN_FLIGHT"


def _accounts(given: _Given, provider: Provider, *, sandbox: bool) -> dict[str, Account]:
    """By id, the default one first."""
    names = (DEFAULT, *_find_named(given, provider))
    return {name: _account(given, provider, name, sandbox=sandbox) for name in names}


def _find_named(given: _Given, provider: Provider) -> list[str]:
    """The ids in `TASKHOOK_<PROVIDER>__<ACCOUNT>_<SETTING>`, sorted. A name without such an end stays unknown."""
    secrets = provider.capabilities.secrets
    ends = [BASE_URL, SUBMITS_PER_S, MAX_IN_FLIGHT, *(secret.setting for secret in secrets)]
    ends += [secret.older_setting for secret in secrets if secret.older_setting]
    prefix, found = setting_name(provider.id, DEFAULT, "_"), set[str]()
    for name in given.names(prefix):
        rest = name.removeprefix(prefix).removesuffix(IN_FILE)
        fitting = [end for end in ends if rest.endswith(f"_{end}")]
        if fitting:
            account = rest.removesuffix(f"_{max(fitting, key=len)}").lower().replace("_", "-")
            _check_account_id(name, account)
            found.add(account)
    return sorted(found)


def _check_account_id(name: str, account: str) -> None:
    if account == DEFAULT:
        raise SettingsError(f"{name} names the default account: leave out the underscores and {DEFAULT.upper()}.")
    if not ID_SHAPE.fullmatch(account):
        raise SettingsError(f"{name} must name an account of letters and digits, beginning with a letter.")


def _account(given: _Given, provider: Provider, name: str, *, sandbox: bool) -> Account:
    able = provider.capabilities
    sandbox = sandbox and able.simulated
    prefix = setting_name(provider.id, name, "").removeprefix(PREFIX)
    limits = SANDBOX_LIMITS if sandbox else able.limits
    per_s = given.read(f"{prefix}{SUBMITS_PER_S}", None, _rate)
    if per_s is not None:
        submits = ceil(per_s)
        limits = msgspec.structs.replace(limits, submits=submits, window_s=submits / per_s)
    max_in_flight = given.read(f"{prefix}{MAX_IN_FLIGHT}", limits.max_in_flight, _count)
    secrets = {secret.name: _secret(given, prefix, secret) for secret in able.secrets}
    account = Account(
        provider=provider.id,
        id=name,
        base_url=given.read(f"{prefix}{BASE_URL}", able.base_url, _url),
        secrets={key: value for key, value in secrets.items() if value is not None},
        limits=msgspec.structs.replace(limits, max_in_flight=max_in_flight),
    )
    return account if sandbox else _complete(account, able.secrets)


def _secret(given: _Given, prefix: str, secret: Secret) -> str | None:
    """Read a secret. Callback secrets are never sent, so they may be any text."""
    parse = _text if secret.name == WEBHOOK_SECRET else _header_safe
    value = given.read(f"{prefix}{secret.setting}", None, parse)
    if secret.older_setting is None:
        return value
    older = given.read(f"{prefix}{secret.older_setting}", None, parse)
    if value is not None and older is not None:
        names = f"{PREFIX}{prefix}{secret.setting} and {PREFIX}{prefix}{secret.older_setting}"
        raise SettingsError(f"{names} are both set: keep the first of them.")
    return older if value is None else value


def _complete(account: Account, secrets: Sequence[Secret]) -> Account:
    """An account has every secret that its provider requires. A default one that has none is not configured."""
    missing = [secret for secret in secrets if secret.required and secret.name not in account.secrets]
    required = [secret for secret in secrets if secret.required]
    if not missing:
        return account
    if account.id == DEFAULT and len(missing) == len(required):
        return msgspec.structs.replace(account, secrets={})
    names = " and ".join(setting_name(account.provider, account.id, secret.setting) for secret in missing)
    raise SettingsError(f"{names} must be set, or the account {account.id} of {account.provider} can't be used.")


def _check(settings: Settings) -> None:
    if settings.sandbox:
        return
    if not settings.secret_keys:
        raise SettingsError('TASKHOOK_SECRET_KEYS is missing: set one long random text, e.g. "openssl rand -hex 32".')
    if not settings.api_keys:
        raise SettingsError("TASKHOOK_API_KEYS is missing: set the key that callers of the API send.")
    _check_strength("TASKHOOK_SECRET_KEYS", settings.secret_keys)
    _check_strength("TASKHOOK_API_KEYS", settings.api_keys)
    if set(settings.secret_keys) & set(settings.api_keys):
        raise SettingsError("TASKHOOK_API_KEYS and TASKHOOK_SECRET_KEYS share a key: callers could forge callbacks.")


def _check_strength(setting: str, keys: Sequence[str]) -> None:
    for number, key in enumerate(keys, start=1):
        if weakness := find_weakness(key):
            what = setting if len(keys) == 1 else f"{setting}, number {number},"
            raise SettingsError(f"{what} could be guessed: it {weakness}. Make one: openssl rand -hex 32")


# --- one parser a kind of value; each raises ValueError with what the value must be -----------------------------------


def _flag(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(f"must be true or false, not {text!r}.")
    return words[text.lower()]


def _number(text: str, at_least: float, at_most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not at_least <= value <= at_most:
        raise ValueError(f"must be {what} from {at_least:g} to {at_most:,g}, not {text!r}.")
    return value


def _seconds(text: str) -> float:
    return _number(text, 0.01, DAY_S, "a number")


def _keepalive(text: str) -> float:
    return _number(text, 1.0, HOUR_S, "a number")


def _days(text: str) -> float:
    """A few seconds are for those who hand results on at once, and for trying it out."""
    return _number(text, 0.0001, 36_500, "a number")


def _rate(text: str) -> float | None:
    return _number(text, 0.001, COUNT_MAX, "a number")


def _count(text: str) -> int:
    return int(_digits(text, 1, COUNT_MAX, "a whole number"))


def _digits(text: str, at_least: int, at_most: int, what: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(at_most)) and at_least <= int(text) <= at_most):
        raise ValueError(f"must be {what} from {at_least} to {at_most}, not {text[:40]!r}.")
    return text


def _port(text: str) -> int:
    return int(_digits(text, 0, 65_535, "a port"))


def _list(text: str) -> tuple[str, ...]:
    found = tuple(clean(part) for part in text.split(",") if part.strip())
    if not found:
        raise ValueError("must name at least one.")
    if not all(part.isprintable() for part in found):
        raise ValueError("must be on one line, with commas in between.")
    return found


def _origins(text: str) -> tuple[str, ...]:
    origins = _list(text)
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"must be origins such as https://app.example.com, not {origin[:80]!r}.")
    return origins


def _schedule(text: str) -> tuple[float, ...]:
    return tuple(_number(part, 0.0, 31 * DAY_S, "seconds, comma-separated, each") for part in _list(text))


def _one_of(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {text!r}.")
        return text.lower()

    return parse


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters.")
    return text


def _header_safe(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        raise ValueError("must be printable ASCII.")
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http or https URL without query, such as https://api.example.com.")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password.")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password.")
    if not _has_port_in_range(parts):
        raise ValueError("must have a port from 1 to 65535.")
    return text.rstrip("/")


def _has_port_in_range(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _public_url(text: str) -> str | None:
    url = _url(text)
    first = urlsplit(url).path.strip("/").partition("/")[0]
    if first in OWN_NAMES:
        raise ValueError(f"must not have a path that begins with /{first}, which is a path of the service itself.")
    return url


def database_url(text: str) -> str:
    """Raises ValueError."""
    scheme = text.partition("://")[0]
    database, plus, _ = scheme.partition("+")
    if plus and database in ("postgresql", "postgres", "sqlite"):
        raise ValueError(f"must begin with {database}://, without the name of a driver.")
    if scheme in ("postgresql", "postgres"):
        postgres_url.parse(text)
    elif text.startswith("sqlite:") or ":memory:" in text:
        _check_sqlite_url(text)
    else:
        raise ValueError("must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/DATABASE.")
    return text


def _check_sqlite_url(text: str) -> None:
    path = text.removeprefix("sqlite:///")
    if ":memory:" in text or "mode=memory" in text or not text.strip(":/").removeprefix("sqlite"):
        raise ValueError("must name a file (sqlite:///PATH): a database in memory is gone after a restart.")
    if path == text or not path:
        raise ValueError("must be sqlite:///PATH with three slashes, or four for an absolute path.")
    if path.startswith("file:") or any(sign in path for sign in "?#"):
        raise ValueError("must be sqlite:///PATH, a plain path without file:, parameters, ? and #.")
    if path.startswith("~"):
        raise ValueError("must have the whole path: ~ is not expanded.")
    if path.endswith("/") or not path.isprintable():
        raise ValueError("must name a file, in printable characters.")


def _proxies(text: str) -> str:
    """Addresses and networks with commas between, or `*`. Raises ValueError."""
    for one in text.split(","):
        if one.strip() not in ("*", ""):
            try:
                ip_network(one.strip(), strict=False)
            except ValueError:
                raise ValueError("must be addresses or networks, such as 127.0.0.1,10.0.0.0/8; or *.") from None
    return text


def _signing_secret(text: str) -> str | None:
    decode_secret(text)
    return text


# --- how it is shown --------------------------------------------------------------------------------------------------


def _account_items(provider: Provider, account: Account) -> list[tuple[str, str]]:
    limits = account.limits
    values = {secret.setting: _hidden(account.secrets.get(secret.name)) for secret in provider.capabilities.secrets}
    values |= {
        BASE_URL: account.base_url,
        SUBMITS_PER_S: f"{limits.submits / limits.window_s:g}",
        MAX_IN_FLIGHT: str(limits.max_in_flight),
    }
    return [(setting_name(account.provider, account.id, end), value) for end, value in values.items()]


def _hidden(*secrets: str | None) -> str:
    return ",".join("(hidden)" for secret in secrets if secret)


def _word(flag: bool) -> str:
    return "true" if flag else "false"
