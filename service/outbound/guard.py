"""The address guard: which addresses are public, which URLs are allowed, and the check at every connection."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from posixpath import normpath

import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.connector import AddrInfoType
from yarl import URL

from service.outbound.resolver import Resolver

URL_MAX = 2_083
LOCALHOST = "localhost"

# IANA's special-purpose registries, and addresses that they omit. Not `is_global` of the standard library: older patch
# releases call 192.0.0.8, 3fff::1 and 64:ff9b:1::1 global, and all releases multicast and 168.63.129.16.
_V4 = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("100.64.0.0/10"): "shared address space",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("168.63.129.16/32"): "cloud platform",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.0.0.0/24"): "protocol assignments",
    IPv4Network("192.0.2.0/24"): "documentation",
    IPv4Network("192.88.99.0/24"): "6to4 relay",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("198.18.0.0/15"): "benchmarking",
    IPv4Network("198.51.100.0/24"): "documentation",
    IPv4Network("203.0.113.0/24"): "documentation",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}
# Only global unicast is public, so loopback, fc00::/7, fe80::/10, 5f00::/16 and the like need no row.
_V6_GLOBAL_UNICAST = IPv6Network("2000::/3")
_V6 = {
    IPv6Network("2001::/23"): "protocol assignments",
    IPv6Network("2001:db8::/32"): "documentation",
    IPv6Network("3fff::/20"): "documentation",
}
_NAT64 = IPv6Network("64:ff9b::/96")
_ISATAP = 0x0000_5EFE

_UNSENDABLE = re.compile(r"[\x00-\x20\x7f-\xa0\\\ud800-\udfff]|\s")
_AUTHORITY = re.compile(r"(?i)https?://(?P<host>\[[0-9a-f:.]+\]|[^:@\[\]/?#]+)(?::(?P<port>[0-9]*))?(?=[/?#]|\Z)")
_NAME = re.compile(r"(?=.{1,254}\Z)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")
_WELL_FORMED = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# https://fetch.spec.whatwg.org/#port-blocking, those from 1024 up
_BAD_PORTS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)


class ForbiddenAddress(OSError):
    """Raised for a connection to an address that is not public. Its text never names the address."""

    def __init__(self) -> None:
        super().__init__("address not public")


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """An allowed URL as aiohttp reads it. `place` is the same for all spellings of host and port."""

    url: URL
    host: str
    port: int
    place: tuple[str, int]
    path: str


def forbidden_reason(ip: str) -> str | None:
    """Return why the address is not public, or None if it is."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return "not an IP address"
    return _v4_reason(address) if isinstance(address, IPv4Address) else _v6_reason(address)


def check_url(url: str) -> str | None:
    """Return why the text cannot be an endpoint URL, or None; looks up no name."""
    target = read_target(url)
    return target if isinstance(target, str) else None


@lru_cache(maxsize=2048)
def read_target(url: str) -> Target | str:
    """Return the target, or why the URL is not allowed."""
    if len(url) > URL_MAX:
        return f"is longer than {URL_MAX} characters"
    if _UNSENDABLE.search(url):
        return "has a space, a control character or a backslash"
    authority = _AUTHORITY.match(url)
    if authority is None:
        return _misshapen(url)
    try:
        parsed = URL(url)
    except ValueError:
        return "is not a URL"
    host, port = parsed.raw_host or "", parsed.port or 0
    if reason := _host_reason(host) or _port_reason(port):
        return reason
    place, path = _place(host, port), _plain_path(parsed.path)
    return Target(url=_verbatim(parsed, url[authority.end() :]), host=host, port=port, place=place, path=path)


class Guard:
    """The rules for endpoint URLs and their addresses; the service's own callback address is never allowed.

    `own_urls` are the URLs under which callers reach this service. `allow_private` lifts the rules about addresses, and
    with them the look-up at registration.
    """

    def __init__(
        self, *, allow_private: bool, own_urls: Iterable[str] = (), resolver: AbstractResolver | None = None
    ) -> None:
        self.allow_private = allow_private
        self.resolver = resolver or Resolver()
        self._own = [(_own_place(url), _own_path(url)) for url in own_urls]

    def target(self, url: str) -> Target | str:
        """Return the target, or why nothing may be posted there; looks up no name."""
        target = read_target(url)
        if isinstance(target, Target) and any(
            target.place == place and f"{target.path}/".startswith(path) for place, path in self._own
        ):
            return "is this service's own callback address"
        return target

    def check(self, url: str) -> str | None:
        target = self.target(url)
        return target if isinstance(target, str) else None

    async def resolve_public(self, url: str) -> str | None:
        """Return why an endpoint may not be registered, or None: `check`, and all addresses of the host are public."""
        target = self.target(url)
        if isinstance(target, str):
            return target
        if self.allow_private:
            return None
        try:
            found = await self.resolver.resolve(target.host, target.port, socket.AF_UNSPEC)
        except OSError:
            found = []
        if not found:
            return "has a host that does not resolve"
        reasons = [reason for address in found if (reason := forbidden_reason(address["host"]))]
        return f"leads to an address that is not public ({reasons[0]})" if reasons else None

    def socket_factory(self, addr_info: AddrInfoType) -> socket.socket:
        """Open a socket for an address, whether it was looked up or written in the URL. Raises ForbiddenAddress."""
        family, kind, protocol, _, address = addr_info
        if not self.allow_private and forbidden_reason(str(address[0])):
            raise ForbiddenAddress
        return socket.socket(family, kind, protocol)


def _v4_reason(address: IPv4Address) -> str | None:
    return next((name for network, name in _V4.items() if address in network), None)


def _v6_reason(address: IPv6Address) -> str | None:
    if address.scope_id is not None:
        return "zone id"
    carried = _carried(address)
    if carried:
        return next(filter(None, map(_v4_reason, carried)), None)
    if address not in _V6_GLOBAL_UNICAST:
        return "not global unicast"
    if int(address) >> 32 & 0xFDFF_FFFF == _ISATAP:
        return _v4_reason(_last_32_bits(address))
    return next((name for network, name in _V6.items() if address in network), None)


def _carried(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that a translator or tunnel would send this address to."""
    if address.ipv4_mapped:
        return (address.ipv4_mapped,)
    if address.sixtofour:
        return (address.sixtofour,)
    if address.teredo:
        return address.teredo
    return (_last_32_bits(address),) if address in _NAT64 else ()


def _last_32_bits(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


def _verbatim(url: URL, rest: str) -> URL:
    """Keep path and query as written if they are well formed; yarl would decode some escapes."""
    path, _, query = rest.partition("#")[0].partition("?")
    if not _WELL_FORMED.fullmatch(path + query):
        return url
    return URL.build(scheme=url.scheme, authority=url.raw_authority, path=path or "/", query_string=query, encoded=True)


def _misshapen(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        return "must start with http:// or https://"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return "must not have user information"
    return "has no readable host and port" if authority else "has no host"


def _host_reason(host: str) -> str | None:
    if ":" in host:
        return None if _is_ip(host) else "has a host that is not an IPv6 address"
    if not _NAME.fullmatch(host):
        return "has a host that is not a valid name"
    if _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]) and not _is_ip(host):
        return "has a numeric host that is not four decimal numbers"
    return None


def _port_reason(port: int) -> str | None:
    if port in (80, 443) or (port >= 1024 and port not in _BAD_PORTS):
        return None
    return f"has port {port}; allowed are 80, 443, and ports from 1024 that browsers do not block"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _place(host: str, port: int) -> tuple[str, int]:
    """Normalize host and port: loopback is localhost, a mapped address its inner one, and port 80 the same as 443."""
    host = host.removesuffix(".")
    if host.endswith(".localhost"):
        host = LOCALHOST
    elif _is_ip(host):
        address = ipaddress.ip_address(host)
        address = (address.version == 6 and address.ipv4_mapped) or address
        host = LOCALHOST if address.is_loopback or address.is_unspecified else str(address)
    return host, 443 if port == 80 else port


def _own_place(own_url: str) -> tuple[str, int]:
    url = URL(own_url)
    return _place(url.raw_host or "", url.port or 0)


def _own_path(own_url: str) -> str:
    return _plain_path(f"{URL(own_url).path}/callbacks") + "/"


def _plain_path(path: str) -> str:
    """Remove dot segments and doubled slashes, as a proxy in front may do."""
    return "/" + normpath(path).lstrip("/")
