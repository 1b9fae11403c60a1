"""The hosts that may see an account's secrets, and so the only ones that a declared provider's requests go to."""

import re
from collections.abc import Iterable

DEFAULT_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?(?:[/?][!-~]*)?")
_PORT = re.compile(r":\d{1,5}$")
_HOST = re.compile(r"(\*\.)?([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:\d{1,5})?")


class Hosts:
    """The declared hosts for one account. Its own base URL stands in for the declared one."""

    def __init__(self, declared: Iterable[str], declared_base_url: str, base_url: str) -> None:
        self._scheme, host, self._port = split(base_url)
        _, replaced, _ = split(declared_base_url)
        self._entries = {host} | {entry for entry in declared if replaced == host or _name(entry) != replaced}

    def refusal(self, url: str) -> str | None:
        """Why a request must not go to this URL; None if it may."""
        match = _URL.fullmatch(url)
        if match is None:
            return "is no absolute http or https URL of printable ASCII without user info and fragment"
        scheme, host, port = split(url)
        if scheme == "http" and self._scheme != "http":
            return "is http, and base_url is https"
        if not any(self._fits(entry, scheme, host, port) for entry in self._entries):
            return f"leads to {host}:{port}, which is not in hosts"
        return None

    def _fits(self, entry: str, scheme: str, host: str, port: int) -> bool:
        name = _name(entry)
        ports = {DEFAULT_PORTS[scheme], self._port} if name == entry else {int(entry.rpartition(":")[2])}
        is_named = host.endswith(name[1:]) if name.startswith("*.") else host == name
        return is_named and port in ports


def split(url: str) -> tuple[str, str, int]:
    """Scheme, host in lower case, port. Raise ValueError for what is no URL."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(f"{url!r} is no absolute http or https URL")
    scheme = match[1]
    return scheme, match[2].lower(), int(match[3] or DEFAULT_PORTS[scheme])


def is_url(url: str) -> bool:
    return _URL.fullmatch(url) is not None


def is_host(entry: str) -> bool:
    """Whether this can stand in `hosts`: a name in lower case, `*.name`, or either with `:port`."""
    return _HOST.fullmatch(entry) is not None


def _name(entry: str) -> str:
    """The entry without its port."""
    return _PORT.sub("", entry)
