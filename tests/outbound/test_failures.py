"""Reasons are told in words; what is counted of them is one of a few."""

import pytest

from service.outbound.failures import kind_of


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("timed out after 15 s", "timeout"),
        ("connect timed out after 10 s", "timeout"),
        ("connection timed out", "timeout"),
        ("dns: name does not resolve", "dns"),
        ("tls: certificate is for another host", "tls"),
        ("refused: address not public", "refused"),
        ("connection refused", "connection_error"),
        ("answer is not HTTP: malformed", "connection_error"),
        ("what: nobody thought of", "connection_error"),
        ("", "connection_error"),
    ],
)
def test_a_reason_is_of_one_kind(reason: str, kind: str) -> None:
    assert kind_of(reason) == kind
