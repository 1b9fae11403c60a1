"""Requests with an account's secrets go to the declared hosts only."""

import pytest

from service.providers.declared.hosts import Hosts, is_host

HTTPS = Hosts(["api.x.test", "*.cdn.test", "other.test:8443"], "https://api.x.test/v1", "https://api.x.test/v1")
LOCAL = Hosts(["api.x.test", "files.test"], "https://api.x.test", "http://127.0.0.1:9000")


@pytest.mark.parametrize(
    "url",
    [
        "https://api.x.test/v1/tasks/1?a=b",
        "https://API.X.test:443/",
        "https://eu.cdn.test/x",
        "https://a.b.cdn.test",
        "https://other.test:8443/x",
    ],
)
def test_declared_hosts_are_allowed(url: str) -> None:
    assert HTTPS.refusal(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/",
        "https://api.x.test.evil.test/",
        "https://evilcdn.test/",
        "https://cdn.test/",
        "https://other.test/",
        "https://api.x.test:8443/",
        "http://api.x.test/",
        "https://key@api.x.test/",
        "https://api.x.test@evil.test/",
        "https://evil.test\\@api.x.test/",
        "https://evil.test#@api.x.test/",
        "https://api.x.test#x",
        "https://api.x.test./",
        "https://api.x.test/a b",
        "https://api.x.test/\r\nx",
        "https:///api.x.test/",
        "https://api.x.test:99999x/",
        "//api.x.test/",
        "ftp://api.x.test/",
        "https://api.x.tést/",
        "",
    ],
)
def test_every_other_url_is_refused(url: str) -> None:
    assert HTTPS.refusal(url)


def test_the_base_url_of_an_account_stands_in_for_the_declared_one() -> None:
    assert LOCAL.refusal("http://127.0.0.1:9000/poll") is None
    assert LOCAL.refusal("http://files.test/x") is None
    assert LOCAL.refusal("https://api.x.test/poll")
    assert LOCAL.refusal("http://127.0.0.1:9001/poll")


@pytest.mark.parametrize("entry", ["api.x.test", "*.x.test", "x:80", "[::1]:80"])
def test_an_entry_of_hosts_is_a_name_with_or_without_a_port(entry: str) -> None:
    assert is_host(entry)


@pytest.mark.parametrize("entry", ["https://x", "X.test", "a.*.b", "*", "x/y", "x:y", ""])
def test_no_other_form_is_an_entry_of_hosts(entry: str) -> None:
    assert not is_host(entry)
