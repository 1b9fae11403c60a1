"""The environment and .env, read once into one frozen value; nothing else looks at the environment."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import msgspec
from dotenv import dotenv_values

from service.core.schedule import RETRY_SCHEDULE_S
from service.core.signing import decode_secret
from service.providers import PROVIDERS
from service.providers.base import Limits
from service.store import postgres_url

T = TypeVar("T")
PREFIX = "TASKHOOK_"
IN_FILE = "_FILE"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
OF_THE_CLIENT = frozenset({"TASKHOOK_URL", "TASKHOOK_API_KEY"})
DAY_S = 86_400.0
COUNT_MAX = 1_000_000
SANDBOX_LIMITS = Limits(submits=1_000, window_s=1.0, max_in_flight=5_000)
"""The sandbox charges nothing and has no limits of its own to keep to."""


class SettingsError(Exception):
    """One line that names the setting and says what it must be."""


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is set for one provider; it is configured when its key is set."""

    api_key: str | None
    base_url: str
    hmac_key: str | None
    limits: Limits

    def __repr__(self) -> str:
        return f"ProviderSettings(base_url={postgres_url.hide_secrets(self.base_url)!r})"


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
    allow_private_networks: bool
    retry_schedule: tuple[float, ...]
    providers: dict[str, ProviderSettings]
    confirm_callbacks: bool
    poll_first_s: float
    poll_max_s: float
    callback_grace_s: float
    retention_days: float
    max_requests: int
    cors_origins: tuple[str, ...]
    dashboard: bool
    log_level: str
    log_format: str
    tracing: bool | None
    """None: as the OTEL_* variables say."""
    otel: dict[str, str]
    """Those variables, from the environment or the file, for the SDK, whose settings they are."""
    unknown: tuple[str, ...]
    """Names that look like settings and are none, each with the nearest that is one."""

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
            ("TASKHOOK_ALLOW_PRIVATE_NETWORKS", _word(self.allow_private_networks)),
            ("TASKHOOK_RETRY_SCHEDULE", ",".join(f"{delay:g}" for delay in self.retry_schedule)),
            ("TASKHOOK_CONFIRM_CALLBACKS", _word(self.confirm_callbacks)),
            ("TASKHOOK_POLL_FIRST_S", f"{self.poll_first_s:g}"),
            ("TASKHOOK_POLL_MAX_S", f"{self.poll_max_s:g}"),
            ("TASKHOOK_CALLBACK_GRACE_S", f"{self.callback_grace_s:g}"),
            ("TASKHOOK_RETENTION_DAYS", f"{self.retention_days:g}"),
            ("TASKHOOK_MAX_REQUESTS", str(self.max_requests)),
            ("TASKHOOK_CORS_ORIGINS", ",".join(self.cors_origins)),
            ("TASKHOOK_DASHBOARD", _word(self.dashboard)),
            ("TASKHOOK_LOG_LEVEL", self.log_level),
            ("TASKHOOK_LOG_FORMAT", self.log_format),
            ("TASKHOOK_TRACING", "" if self.tracing is None else _word(self.tracing)),
            *(item for name, provider in self.providers.items() for item in _provider_items(name, provider)),
        ]


def load(environ: Mapping[str, str], dotenv: Path | None = Path(".env"), *, dev: bool = False) -> Settings:
    """The settings in force: the environment wins over the file. Raises SettingsError."""
    from_file = _read_file(dotenv)
    if "PORT" in environ:  # a platform says where to listen: no file may say otherwise
        from_file.pop("TASKHOOK_PORT", None)
    given = _Given(_merge(from_file, environ))
    sandbox = given.flag("SANDBOX", default=dev)
    settings = Settings(
        database_url=given.read("DATABASE_URL", "sqlite:///var/taskhook.db", database_url),
        public_url=given.read("PUBLIC_URL", None, _public_url),
        secret_keys=given.read("SECRET_KEYS", (), _list),
        api_keys=given.read("API_KEYS", (), _list),
        signing_secret=given.read("SIGNING_SECRET", None, _signing_secret),
        host=given.read("HOST", "127.0.0.1", str),
        port=given.read("PORT", given.read_bare("PORT", 8000, _port), _port),
        worker_port=given.read("WORKER_PORT", None, _port),
        sandbox=sandbox,
        allow_private_networks=given.flag("ALLOW_PRIVATE_NETWORKS", default=sandbox),
        retry_schedule=given.read("RETRY_SCHEDULE", RETRY_SCHEDULE_S, _schedule),
        providers={name: _provider(given, name, sandbox=sandbox) for name in PROVIDERS},
        confirm_callbacks=given.flag("CONFIRM_CALLBACKS", default=False),
        poll_first_s=given.read("POLL_FIRST_S", 2.0, _seconds),
        poll_max_s=given.read("POLL_MAX_S", 15.0, _seconds),
        callback_grace_s=given.read("CALLBACK_GRACE_S", 60.0, _seconds),
        retention_days=given.read("RETENTION_DAYS", 30.0, _days),
        max_requests=given.read("MAX_REQUESTS", 1_000, _count),
        cors_origins=given.read("CORS_ORIGINS", (), _origins),
        dashboard=given.flag("DASHBOARD", default=True),
        log_level=given.read("LOG_LEVEL", "info", _one_of(LEVELS)),
        log_format=given.read("LOG_FORMAT", "auto", _one_of(FORMATS)),
        tracing=given.read("TRACING", None, _flag),
        otel=given.of_others("OTEL_"),
        unknown=given.unknown(),
    )
    _check(settings)
    return settings


class _Given:
    """What is set, and which names were asked for: the rest are mistakes."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._asked: set[str] = set(OF_THE_CLIENT)

    def read(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        """The value, or what is in the file that `NAME_FILE` names: so Docker and Kubernetes hand over secrets."""
        name = PREFIX + name
        self._asked.add(name + IN_FILE)
        path = self._values.get(name + IN_FILE)
        if path is None:
            return self.read_bare(name, default, parse)
        if name in self._values:
            raise SettingsError(f"{name} and {name}{IN_FILE} are both set: keep one of them.")
        self._asked.add(name)
        return _parse(name, _read_secret(name + IN_FILE, path.strip()), parse)

    def read_bare(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        self._asked.add(name)
        value = self._values.get(name)
        return default if value is None else _parse(name, value, parse)

    def flag(self, name: str, *, default: bool) -> bool:
        return self.read(name, default, _flag)

    def of_others(self, prefix: str) -> dict[str, str]:
        return {name: value for name, value in self._values.items() if name.startswith(prefix)}

    def unknown(self) -> tuple[str, ...]:
        names = sorted(name for name in self._values if name.startswith(PREFIX) and name not in self._asked)
        return tuple(
            f"{name} (did you mean {near[0]}?)" if (near := get_close_matches(name, self._asked, 1)) else name
            for name in names
        )


def _merge(from_file: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment wins, also where one of the two has the value and the other names a file with it."""
    given = {name: value for name, value in environ.items() if value}
    other_forms = {name.removesuffix(IN_FILE) if name.endswith(IN_FILE) else name + IN_FILE for name in given}
    return {name: value for name, value in from_file.items() if value and name not in other_forms} | given


def _parse(name: str, value: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(value.strip())
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from None


def _read_secret(name: str, path: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        raise SettingsError(f"{name} names a file that can't be read as text: {path}.") from None
    if not text.strip():
        raise SettingsError(f"{name} names a file that is empty: {path}.")
    return text


def _read_file(dotenv: Path | None) -> dict[str, str]:
    if dotenv is None or not dotenv.is_file():
        return {}
    try:
        found = dotenv_values(dotenv, interpolate=False)
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{dotenv} can't be read; it must be a text file in UTF-8.") from None
    return {name: value for name, value in found.items() if value is not None}


def _provider(given: _Given, provider: str, *, sandbox: bool) -> ProviderSettings:
    capabilities = PROVIDERS[provider].capabilities
    name = provider.replace("-", "_").upper()
    limits = SANDBOX_LIMITS if sandbox else capabilities.limits
    per_s = given.read(f"{name}_SUBMITS_PER_S", None, _rate)
    if per_s is not None:
        submits = ceil(per_s)
        limits = msgspec.structs.replace(limits, submits=submits, window_s=submits / per_s)
    max_in_flight = given.read(f"{name}_MAX_IN_FLIGHT", limits.max_in_flight, _count)
    return ProviderSettings(
        api_key=given.read(f"{name}_API_KEY", None, _header_safe),
        base_url=given.read(f"{name}_BASE_URL", capabilities.base_url, _url),
        hmac_key=given.read(f"{name}_HMAC_KEY", None, str) if provider == "fluxapi-ai" else None,
        limits=msgspec.structs.replace(limits, max_in_flight=max_in_flight),
    )


def _check(settings: Settings) -> None:
    if settings.sandbox:
        return
    if not settings.secret_keys:
        raise SettingsError('TASKHOOK_SECRET_KEYS is missing: set one long random text, e.g. "openssl rand -hex 32".')
    if not settings.api_keys:
        raise SettingsError("TASKHOOK_API_KEYS is missing: set the key that callers of the API send.")


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
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise ValueError("must name at least one.")
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
    return _url(text)


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


def _signing_secret(text: str) -> str | None:
    decode_secret(text)
    return text


# --- how it is shown --------------------------------------------------------------------------------------------------


def _provider_items(provider: str, settings: ProviderSettings) -> list[tuple[str, str]]:
    name = PREFIX + provider.replace("-", "_").upper()
    items = [
        (f"{name}_API_KEY", _hidden(settings.api_key)),
        (f"{name}_BASE_URL", settings.base_url),
        (f"{name}_SUBMITS_PER_S", f"{settings.limits.submits / settings.limits.window_s:g}"),
        (f"{name}_MAX_IN_FLIGHT", str(settings.limits.max_in_flight)),
    ]
    return [*items, (f"{name}_HMAC_KEY", _hidden(settings.hmac_key))] if provider == "fluxapi-ai" else items


def _hidden(*secrets: str | None) -> str:
    return ",".join("(hidden)" for secret in secrets if secret)


def _word(flag: bool) -> str:
    return "true" if flag else "false"
