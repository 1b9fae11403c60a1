"""Which addresses and URLs a subscriber may have; from the IANA registries, published filters and their advisories."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.outbound.guard import ForbiddenAddress, Guard, check_url, forbidden_reason
from tests.outbound.conftest import FakeNames

FORBIDDEN = """
0.0.0.0 0.0.0.1 0.255.255.255 10.0.0.0 10.0.0.1 10.255.255.255 100.64.0.0 100.64.0.1 100.100.100.200 100.127.255.255
127.0.0.0 127.0.0.1 127.0.0.53 127.1.1.1 127.255.255.255 168.63.129.16 169.254.0.1 169.254.169.253 169.254.169.254
169.254.170.2 172.16.0.0 172.16.0.1 172.17.0.1 172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.9 192.0.0.170 192.0.0.192
192.0.2.1 192.88.99.1 192.168.0.0 192.168.0.1 192.168.255.255 198.18.0.0 198.18.0.1 198.19.255.255 198.51.100.1
203.0.113.1 224.0.0.0 224.0.0.1 233.252.0.1 239.255.255.250 239.255.255.255 240.0.0.1 254.1.2.3 255.255.255.254
255.255.255.255 :: ::1 ::2 ::127.0.0.1 ::8.8.8.8 ::169.254.169.254 0:0:0:0:0:0:0:1 ::ffff:0.0.0.0 ::ffff:10.0.0.1
::ffff:127.0.0.1 ::ffff:7f00:1 ::FFFF:A9FE:A9FE ::ffff:192.168.1.1 ::ffff:100.64.0.1 ::ffff:0:127.0.0.1
::ffff:0:8.8.8.8 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::10.0.0.1 64:ff9b::192.0.0.8 64:ff9b:1::1
64:ff9b:1::8.8.8.8 64:ff9b:1:ffff:ffff:ffff:7f00:1 100::1 100::ffff:ffff:ffff:ffff 100:0:0:1::1 2001::1
2001:0:a9fe:a9fe::1 2001:0:808:808::80ff:fffe 2001:0:808:808::5601:5601 2001:0:7f00:1::f7f7:f7f7 2001:1::1 2001:1::2
2001:1::3 2001:2::1 2001:3::1 2001:4:112::1 2001:5::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff:ffff::1 2001:db8::1
2001:db8:ffff::1 2002:7f00:1:: 2002:7f00:1::1 2002:a9fe:a9fe::1 2002:a00:1::1 2002:c0a8:101::1 2002:e000:1::1 3fff::1
3fff:fff::1 4000::1 5f00::1 5f00:1::1 8000::1 fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fdff:ffff::1 fe80::1
fe80::a9fe:a9fe febf::1 fec0::1 feff::1 ff02::1 ff05::2 ff0e::1 fe80::5efe:8.8.8.8 2606:4700::5efe:10.0.0.1
2606:4700::200:5efe:7f00:1 fe80::1%eth0 fe80::1%1 2606:4700::1111%1 ::1%lo
"""

NOT_ADDRESSES = ["", " ", "localhost", "127.1", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.01", "2130706433", "1.2.3.4.5"]
NOT_ADDRESSES += ["1.2.3", "256.1.1.1", "8.8.8.8/32", "8.8.8.8 ", "\uff18.8.8.8", "[::1]", "::1::", "g::1", "8.8.8.8\0"]

PUBLIC = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15
169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.31.196.1 192.52.193.1 192.167.255.255 192.169.0.0
192.175.48.1 198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8
64:ff9b::808:808 2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2002:808:808::1
2001:0:808:808::f7f7:f7f7 2606:4700:4700::1111 2620:4f:8000::1 2a00:1450:4001:81b::200e 2c0f:ffff::1 3ffe:ffff::1
3fff:1000::1 2606:4700::5efe:8.8.8.8
"""


@pytest.mark.parametrize("ip", FORBIDDEN.split() + NOT_ADDRESSES)
def test_an_address_that_is_not_public_is_refused(ip: str) -> None:
    assert forbidden_reason(ip)


@pytest.mark.parametrize("ip", PUBLIC.split())
def test_a_public_address_is_taken(ip: str) -> None:
    assert forbidden_reason(ip) is None


NETWORKS = "10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/4 240.0.0.0/4"
private = st.one_of([st.ip_addresses(network=network) for network in NETWORKS.split()])
anywhere = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


CARRIERS = [ipaddress.ip_network(text) for text in ("::ffff:0:0/96", "2001::/32", "2002::/16", "64:ff9b::/96")]


def carriers(inner: IPv4Address) -> list[IPv6Address]:
    """The inner address mapped, compatible, translated, tunnelled (and as a Teredo server), and in ISATAP's form."""
    bits, inverted, public = int(inner), int(inner) ^ 0xFFFF_FFFF, 0x0808_0808
    teredo, isatap = 0x2001 << 112, 0x2606_4700 << 96 | 0x5EFE << 32
    numbers = [
        0xFFFF << 32 | bits,
        bits,
        0x64_FF9B << 96 | bits,
        0x64_FF9B_0001 << 80 | bits,
        0x2002 << 112 | bits << 80,
    ]
    numbers += [teredo | public << 64 | inverted, teredo | bits << 64 | public ^ 0xFFFF_FFFF, isatap | bits]
    return [IPv6Address(number) for number in numbers]


@given(private)
@example(IPv4Address("169.254.169.254"))
def test_no_wrapping_makes_a_private_address_public(inner: IPv4Address) -> None:
    assert forbidden_reason(str(inner))
    for wrapped in carriers(inner):
        assert forbidden_reason(str(wrapped)), wrapped
        assert forbidden_reason(wrapped.exploded), wrapped


@given(anywhere)
def test_what_the_standard_library_knows_as_special_is_refused(ip: IPv4Address | IPv6Address) -> None:
    if forbidden_reason(str(ip)) is None and not any(ip in network for network in CARRIERS):
        assert ip.is_global
        assert not (ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    forbidden_reason(text)
    check_url(text)
    check_url(f"http://{text}")
    check_url(f"https://example.com/{text}")


TAKEN = """
http://example.com https://example.com/ HTTPS://EXAMPLE.COM/Hook https://example.com:443/ http://example.com:80
http://example.com:443/ https://example.com:80/ https://example.com:1024/ https://example.com:8443/a/b?c=d&e=%2F#f
https://example.com:65535/ https://example.com./ https://a_b.example.com/ https://xn--bcher-kva.example/
https://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example/\N{LATIN SMALL LETTER U WITH DIAERESIS}?q=%20
https://example\N{IDEOGRAPHIC FULL STOP}com/ https://8.8.8.8/ https://[2606:4700::1111]:8443/x http://localhost:8080/
http://127.0.0.1:9000/hook http://[::1]:9000/ http://[::ffff:127.0.0.1]:9000/ http://8.8.8.8.example.com/
https://example.com/a@b http://example.com?x=1 https://example.com:/ https://1e100.net/ https://0xabc.example/
"""

REFUSED = """
example.com //example.com/ /hook ftp://example.com/ file:///etc/passwd gopher://example.com/ ws://example.com/
javascript:alert(1) http:example.com http:/example.com http:///example.com http:// https://:443/ https://?x https://#x
http://user@example.com/ http://user:password@example.com/ http://@example.com/ http://:@example.com/
http://example.com@127.0.0.1/ http://a:b@c:d@e/ https://example.com:0/ https://example.com:1/ https://example.com:22/
https://example.com:25/ https://example.com:53/ https://example.com:79/ https://example.com:81/
https://example.com:442/ https://example.com:444/ https://example.com:587/ https://example.com:1023/
https://example.com:1719/ https://example.com:1720/ https://example.com:1723/ https://example.com:2049/
https://example.com:3659/ https://example.com:4045/ https://example.com:4190/ https://example.com:5060/
https://example.com:5061/ https://example.com:6000/ https://example.com:6566/ https://example.com:6665/
https://example.com:6667/ https://example.com:6669/ https://example.com:6679/ https://example.com:6697/
https://example.com:10080/ https://example.com:65536/ https://example.com:-80/ https://example.com:+80/
https://example.com:8_0/ https://example.com:80:80/ https://example.com:80a/ http://example.com:0x50/
https://example.com:\N{FULLWIDTH DIGIT EIGHT}\N{FULLWIDTH DIGIT ZERO}/ https://example.com\N{FULLWIDTH COLON}80/
http://0x7f.1/ http://0x7f000001/ http://2130706433/ http://017700000001/ http://0177.0.0.1/ http://127.1/
http://127.0.1/ http://0/ http://0x/ http://1/ http://127.0.0.1./ http://127.0.0.01/ http://127.0.0.0x1/
http://1.2.3.4.5/ http://256.256.256.256/ http://a.0/ http://example.0x7f/ http://0xA9FEA9FE/
http://\N{FULLWIDTH DIGIT ONE}/ http://\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT TWO}\N{CIRCLED DIGIT SEVEN}.1/
http://127\N{IDEOGRAPHIC FULL STOP}1/ http://[::1/ http://::1/ http://[::1]x/ http://[1::2::3]/
http://[fe80::1%25eth0]/ http://[fe80::1%eth0]/ http://[v1.a]/ http://[127.0.0.1]/ http://[]/ http://a..b/
http://.example.com/ http://example.com../ http://exa%6dple.com/ http://127.0.0.1%2eexample.com/
http://example.com%00/ http://example.com\\@127.0.0.1/ http:\\\\example.com/ http://exa$mple.com/ http://exa,mple.com/
http://exa;mple.com/ http://example.com*/ http://exa\N{SOFT HYPHEN}mple.com/ http://exa\N{ZERO WIDTH SPACE}mple.com/
http://a\N{FULLWIDTH SOLIDUS}b/ http://a\N{FULLWIDTH COMMERCIAL AT}b/ http://example.com/\x7f http://example.com/\x80
http://example.com/\x00 http://example.com/\x08
"""
SPACED = ["", " ", "http://example.com/ ", " http://example.com/", "http://example.com/a b", "http://exa mple.com/"]
SPACED += [
    "http://example.com/\r\nHost: x",
    "http://example.com\n",
    "http://exa\tmple.com/",
    "http://x/\N{NO-BREAK SPACE}",
]
SPACED += [
    "http://example.com/\ud800",
    "http://\udfff/",
    f"http://example.com/{'a' * 2083}",
    f"http://{'a' * 64}.com/",
]
SPACED += [f"http://{'a.' * 130}com/"]


@pytest.mark.parametrize("url", TAKEN.split())
def test_a_well_formed_url_is_taken(url: str) -> None:
    assert check_url(url) is None


@pytest.mark.parametrize("url", REFUSED.split() + SPACED)
def test_a_url_that_two_readers_could_read_differently_is_refused(url: str) -> None:
    assert check_url(url)


def test_a_url_may_have_2083_characters() -> None:
    assert check_url("http://example.com/".ljust(2083, "a")) is None
    assert check_url("http://example.com/".ljust(2084, "a")) == "is longer than 2083 characters"


@pytest.mark.parametrize(
    ("url", "dialled"),
    [
        ("http://EXAMPLE.com", "http://example.com/"),
        ("http://example.com?x=%2F", "http://example.com/?x=%2F"),
        ("http://example.com/%2f/../a%2Bb?c=d+e#f", "http://example.com/%2f/../a%2Bb?c=d+e"),
        ("http://\N{FULLWIDTH DIGIT ONE}27.0.0.1:8080/", "http://127.0.0.1:8080/"),
        ("http://127.0.0.1:8080#@example.com/", "http://127.0.0.1:8080/"),
        ("http://[::FFFF:127.0.0.1]:8080/%", "http://[::ffff:7f00:1]:8080/%25"),
    ],
)
def test_the_host_is_made_canonical_and_the_path_is_left_as_written(url: str, dialled: str) -> None:
    target = Guard(allow_private=True).target(url)
    assert not isinstance(target, str)
    assert str(target.url) == dialled
    assert target.url.raw_path_qs == dialled.split("/", 3)[3].join(["/", ""])


OWN = "https://hooks.example.com/base"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/base/callbacks/acedata/token",
        "https://hooks.example.com/base/callbacks",
        "https://HOOKS.example.com./base/callbacks/acedata/token?x#y",
        "http://hooks.example.com/base/callbacks/x",
        "https://hooks.example.com:443/base//callbacks/x",
        "https://hooks.example.com:80/base/callbacks/x",
        "https://hooks.example.com/base/x/../callbacks/x",
        "https://hooks.example.com/base/%63allbacks/x",
        "https://hooks.example.com/base/%2e/callbacks%2Fx",
        "https://hooks\N{IDEOGRAPHIC FULL STOP}example.com/base/callbacks/x",
        "http://localhost:8000/callbacks/x",
        "http://localhost:8000//callbacks/x",
        "http://127.0.0.1:8000/callbacks/x",
        "http://127.9.9.9:8000/callbacks/x",
        "http://0.0.0.0:8000/callbacks/x",
        "http://[::1]:8000/callbacks/x",
        "http://[::ffff:127.0.0.1]:8000/callbacks/x",
        "http://taskhook.localhost:8000/callbacks/x",
    ],
)
@pytest.mark.parametrize("allow_private", [True, False])
async def test_our_own_callbacks_are_no_subscriber(url: str, allow_private: bool) -> None:
    guard = Guard(allow_private=allow_private, own_urls=[OWN, "http://localhost:8000"], resolver=FakeNames())
    assert guard.check(url) == "is this service's own callback address"
    assert await guard.resolve_public(url) == "is this service's own callback address"


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/base/hooks",
        "https://hooks.example.com/callbacks/x",
        "https://hooks.example.com/base/callbacks-of-ours",
        "https://hooks.example.com:8443/base/callbacks/x",
        "https://other.example.com/base/callbacks/x",
        "http://localhost:9000/callbacks/x",
        "http://localhost:8000/hooks",
    ],
)
def test_what_only_looks_like_our_callbacks_is_taken(url: str) -> None:
    assert Guard(allow_private=True, own_urls=[OWN, "http://localhost:8000"]).check(url) is None


async def test_registration_wants_a_name_that_resolves_to_public_addresses_only() -> None:
    names = FakeNames(
        good_example=[["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]],
        inside_example=[["10.1.2.3"]],
        mixed_example=[["93.184.215.14", "169.254.169.254"]],
        mapped_example=[["::ffff:127.0.0.1"]],
    )
    guard = Guard(allow_private=False, resolver=names)
    assert await guard.resolve_public("https://good.example/") is None
    inside = "leads to an address that is not public (private)"
    assert await guard.resolve_public("https://inside.example/") == inside
    assert await guard.resolve_public("https://mixed.example/") == inside.replace("private)", "link-local)")
    assert await guard.resolve_public("https://mapped.example/") == inside.replace("private)", "loopback)")
    assert await guard.resolve_public("https://gone.example/") == "has a host that does not resolve"
    assert await guard.resolve_public("https://good.example:25/")
    assert "10.1.2.3" not in str(await guard.resolve_public("https://inside.example/")), "inner names stay inside"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "localhost", "0.0.0.0"]
)
async def test_registration_judges_literal_addresses_and_localhost_with_the_real_resolver(host: str) -> None:
    assert "not public" in str(await Guard(allow_private=False).resolve_public(f"http://{host}:8080/"))


async def test_private_networks_can_be_allowed() -> None:
    names = FakeNames()
    guard = Guard(allow_private=True, resolver=names)
    assert await guard.resolve_public("http://10.0.0.1/") is None
    assert await guard.resolve_public("http://gone.example/") is None
    assert await guard.resolve_public("http://10.0.0.1:25/")
    assert names.asked == []


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1%lo", "169.254.169.254", "localhost"])
def test_no_socket_is_opened_for_a_forbidden_address(ip: str) -> None:
    info = (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80))
    with pytest.raises(ForbiddenAddress, match=r"^address not public$"):
        Guard(allow_private=False).socket_factory(info)


@pytest.mark.parametrize("ip", ["8.8.8.8", "2606:4700::1111"])
def test_a_socket_is_opened_for_a_public_address(ip: str) -> None:
    info = (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80))
    with Guard(allow_private=False).socket_factory(info) as opened:
        assert opened.type == socket.SOCK_STREAM
