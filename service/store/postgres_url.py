"""PostgreSQL connection URLs: each of libpq's parameters is applied or ignored by name, any other is refused.

asyncpg sends a name that it does not know to the server as a setting, which refuses the connection.
"""

import re
from difflib import get_close_matches
from itertools import zip_longest
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import msgspec

CONNECT_S = 5.0
NAME_MAX = 36
"""Of `application_name`, so that the role behind it still fits into the server's 63 bytes."""
FILES = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
SYSTEM = "system"
"""As `sslrootcert`: the certificate authorities of the system."""
PARAMETERS: dict[str, Literal["driver", "taskhook", "ignored", "unmet"]] = {
    "application_name": "taskhook",
    "channel_binding": "unmet",
    "client_encoding": "ignored",
    "connect_timeout": "taskhook",
    "dbname": "driver",
    "fallback_application_name": "ignored",
    "gssdelegation": "ignored",
    "gssencmode": "ignored",
    "gsslib": "driver",
    "host": "driver",
    "hostaddr": "taskhook",
    "keepalives": "taskhook",
    "keepalives_count": "taskhook",
    "keepalives_idle": "taskhook",
    "keepalives_interval": "taskhook",
    "krbsrvname": "driver",
    "load_balance_hosts": "ignored",
    "max_protocol_version": "ignored",
    "min_protocol_version": "ignored",
    "oauth_client_id": "ignored",
    "oauth_client_secret": "ignored",
    "oauth_issuer": "ignored",
    "oauth_scope": "ignored",
    "options": "driver",
    "passfile": "driver",
    "password": "driver",
    "port": "driver",
    "replication": "ignored",
    "require_auth": "unmet",
    "requirepeer": "unmet",
    "requiressl": "ignored",
    "scram_client_key": "ignored",
    "scram_server_key": "ignored",
    "service": "driver",
    "servicefile": "taskhook",
    "ssl_max_protocol_version": "driver",
    "ssl_min_protocol_version": "driver",
    "sslcert": "driver",
    "sslcertmode": "unmet",
    "sslcompression": "ignored",
    "sslcrl": "driver",
    "sslcrldir": "unmet",
    "sslkey": "driver",
    "sslkeylogfile": "ignored",
    "sslmode": "driver",
    "sslnegotiation": "driver",
    "sslpassword": "driver",
    "sslrootcert": "driver",
    "sslsni": "ignored",
    "target_session_attrs": "ignored",
    "tcp_user_timeout": "taskhook",
    "user": "driver",
}
"""Every parameter of libpq 18, and who applies it.

`ignored` ones have no meaning here (text is always UTF-8, the server is always one that takes writes), or the driver
does not know them. `unmet` ones ask for a protection that the driver can't give; where one does, a warning is logged.
"""
HARMLESS = frozenset({"", "prefer", "disable", "allow"})
SECRET = re.compile(r"([?&](?:password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key)=)[^&#]*")
_CHOICES = {
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer"),  # asyncpg can't encrypt by GSSAPI, and data must not travel readable instead
    "load_balance_hosts": ("disable", "random"),
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "primary", "prefer-standby"),  # others lead to no place for writes
    "ssl_min_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"),
}
_NUMBERS = ("connect_timeout", "keepalives", *(f"keepalives_{n}" for n in ("idle", "interval", "count")))
_HOST = r"(?:[^@/:#?,\[\]]*|\[[^@/#?\]]+\])(?::\d+)?"
_URL = re.compile(rf"postgres(?:ql)?://(?:[^@/#?]*@)?{_HOST}(?:,{_HOST})*(?:/[^#?]*)?(?:\?[^#]*)?")
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:]*)(?::(\d+))?")
_NAME = re.compile(r"[A-Za-z_.]{1,40}")


class KeepAlive(msgspec.Struct, frozen=True, kw_only=True):
    """TCP keepalive; None and 0 leave what the system does."""

    enabled: bool
    idle_s: int
    interval_s: int
    count: int
    user_timeout_ms: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """How to connect: `dsn` has what asyncpg applies, the rest is ours."""

    dsn: str
    application_name: str
    connect_s: float
    keepalive: KeepAlive
    service: str | None
    servicefile: str | None
    files: dict[str, str]
    """Certificates and keys by the name of their parameter."""
    system_roots: bool
    sslpassword: str
    tls_min: str
    tls_max: str
    unmet: tuple[str, ...]
    """The parameters that ask for a protection and are ignored."""

    def __repr__(self) -> str:
        return f"Target(dsn={hide_secrets(self.dsn)!r})"


def parse(url: str) -> Target:
    """Raise ValueError that says what the URL must be; it repeats no value, since one may be the password."""
    if not _URL.fullmatch(url):
        raise ValueError("must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %23 for # and so on.")
    parts = urlsplit(url)
    given = _read_authority(parts) | _read_query(parts.query)
    _check_values(given)
    system_roots = _takes_system_roots(given)
    unmet = tuple(name for name in given if PARAMETERS[name] == "unmet" and given[name] not in HARMLESS)
    return Target(
        dsn=_dsn(given),
        application_name=given.get("application_name", "")[:NAME_MAX],
        connect_s=float(max(0, _number(given, "connect_timeout", 0)) or CONNECT_S),
        keepalive=KeepAlive(
            enabled=_number(given, "keepalives", 1) != 0,
            idle_s=_number(given, "keepalives_idle", 0),
            interval_s=_number(given, "keepalives_interval", 0),
            count=_number(given, "keepalives_count", 0),
            user_timeout_ms=_number(given, "tcp_user_timeout", 0),
        ),
        service=given.get("service"),
        servicefile=given.get("servicefile"),
        files={name: given[name] for name in FILES if given.get(name) and given[name] != SYSTEM},
        system_roots=system_roots,
        sslpassword=given.get("sslpassword", ""),
        tls_min=given.get("ssl_min_protocol_version") or "TLSv1.2",
        tls_max=given.get("ssl_max_protocol_version", ""),
        unmet=unmet,
    )


def hide_secrets(url: str) -> str:
    """The URL without its passwords."""
    password = urlsplit(url).password
    shown = url.replace(f":{password}@", ":(hidden)@") if password else url
    return SECRET.sub(r"\1(hidden)", shown)


def _read_authority(parts: SplitResult) -> dict[str, str]:
    """Return the part before the question mark as parameters."""
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    found = [_HOST_AND_PORT.fullmatch(host) for host in hosts.split(",")]
    ports = [host[2] or "" for host in found if host]
    given = {
        "user": user,
        "password": password,
        "host": ",".join(host[1] for host in found if host),
        "port": ",".join(ports) if any(ports) else "",
        "dbname": parts.path.removeprefix("/"),
    }
    return {name: unquote(value) for name, value in given.items() if value}


def _read_query(query: str) -> dict[str, str]:
    """As libpq reads it: the last one of a name counts, and a plus is no space."""
    given = {}
    for pair in query.split("&") if query else ():
        name, separator, value = pair.partition("=")
        if not separator:
            raise ValueError("has a parameter without a value: each is NAME=VALUE, with %26 for & and so on.")
        name, value = unquote(name), unquote(value)
        if (name, value) == ("ssl", "true"):  # libpq takes this one of JDBC
            name, value = "sslmode", "require"
        if name not in PARAMETERS:
            raise ValueError(f"has {_unknown(name, query)}.")
        given[name] = value
    return given


def _unknown(name: str, query: str) -> str:
    """A query with an @ may be the rest of a password whose ? is not encoded."""
    if "@" in query or not _NAME.fullmatch(name):
        return "a parameter that libpq does not have"
    if near := get_close_matches(name, PARAMETERS, 1, 0.8):
        return f"the parameter {name}, which libpq does not have (did you mean {near[0]}?)"
    return f"the parameter {name}, which libpq does not have; a setting of the server is options=-c%20{name}%3DVALUE"


def _check_values(given: dict[str, str]) -> None:
    for name, choices in _CHOICES.items():
        if given.get(name) and given[name] not in choices:
            raise ValueError(f"must have one of {', '.join(choices)} as {name}.")
    for name in (*_NUMBERS, "tcp_user_timeout"):
        if not re.fullmatch(r"\s*(-?\d{1,9}\s*)?", given.get(name, "")):
            raise ValueError(f"must have a whole number as {name}.")
    ports = [port.strip() for port in given.get("port", "").split(",")]
    if not all(port == "" or (re.fullmatch(r"\d{1,5}", port) and 1 <= int(port) <= 65_535) for port in ports):
        raise ValueError("must have a port from 1 to 65535.")


def _takes_system_roots(given: dict[str, str]) -> bool:
    if given.get("sslrootcert") != SYSTEM:
        return False
    if given.get("sslmode") not in (None, "", "verify-full"):
        raise ValueError("must have verify-full as sslmode where sslrootcert is system.")
    return True


def _number(given: dict[str, str], name: str, default: int) -> int:
    return int(given.get(name, "").strip() or default)


def _dsn(given: dict[str, str]) -> str:
    """All of it as parameters, since asyncpg lets the part before the question mark win and libpq the one behind."""
    dropped = {"sslrootcert", "sslmode"} if given.get("sslrootcert") == SYSTEM else set()
    kept = {
        name: value for name, value in given.items() if value and PARAMETERS[name] == "driver" and name not in dropped
    }
    hosts = [_bracketed(host) for host in _dialled(given)]
    ports = given.get("port", "").split(",")
    if len(hosts) > 1 and not all(hosts):
        raise ValueError("must name a host between two commas.")
    if len(ports) not in (1, len(hosts)):
        raise ValueError("must have one port, or as many as hosts.")
    if ports != [""]:  # one port is that of all hosts
        kept["port"] = ",".join(port or "5432" for port in ports * (len(hosts) // len(ports)))
    if hosts != [""]:
        kept["host"] = ",".join(hosts)
    return f"postgresql://?{urlencode(kept, quote_via=quote, safe='')}"


def _dialled(given: dict[str, str]) -> list[str]:
    """Names, or their addresses. A certificate is compared with what is dialled, so a name stays where that matters."""
    hosts, addresses = given.get("host", "").split(","), given.get("hostaddr", "").split(",")
    compares = given.get("sslmode") == "verify-full" or given.get("sslrootcert") == SYSTEM
    if addresses == [""] or (compares and hosts != [""]):
        return hosts
    if hosts != [""] and len(hosts) != len(addresses):
        raise ValueError("must have as many addresses in hostaddr as hosts.")
    return [address or host for address, host in zip_longest(addresses, hosts, fillvalue="")]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and host[0] not in "[/" else host
