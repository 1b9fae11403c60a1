"""What comes back from others loses the secrets that were sent to them."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.masking import mask, mend_escapes, secrets_in_url, spell_plainly
from service.core.tokens import CallbackTokens, hide_tokens


def test_every_occurrence_is_masked_the_longest_first() -> None:
    assert mask("abcdefgh12 abcdefgh abcdefgh12", ["abcdefgh", "abcdefgh12"]) == "*** *** ***"


def test_an_escaped_secret_is_masked_too() -> None:
    assert mask("token=a%2Fb%3Dcdefgh", ["a/b=cdefgh"]) == "token=***"


@pytest.mark.parametrize("short", ["", "a", "1234567"])
def test_what_is_short_is_no_secret(short: str) -> None:
    assert mask("a 1234567 b", [short]) == "a 1234567 b"


def test_the_secrets_of_a_url_are_its_values_and_its_long_segments() -> None:
    url = "https://example.com/hooks/T0123456789ABCDEFGHIJ/images?token=tok%20en-1&x=2"
    assert set(secrets_in_url(url)) == {"tok en-1", "2", "T0123456789ABCDEFGHIJ"}


def test_a_callback_token_is_taken_out_of_any_bytes() -> None:
    tokens = CallbackTokens(["new", "old"], ["p"])
    token = tokens.sign("p", "task_" + "0" * 32)
    body = b'\xff{"callBackUrl": "https:\\/\\/x\\/callbacks\\/p\\/%b", "taskId": "task_flux_1"}' % token.encode()
    assert hide_tokens(body) == body.replace(token.encode(), b"(token)")
    assert hide_tokens(b"task_ nothing") == b"task_ nothing"


HALF = rb"\ud83d"
WHOLE = rb"\ud83d\ude00"


@pytest.mark.parametrize(
    ("sent", "mended"),
    [
        (b'{"a":"%b"}' % HALF, {"a": "\ufffd"}),
        (b'{"a":"%b %b"}' % (WHOLE, HALF), {"a": "\U0001f600 \ufffd"}),
        (rb'{"a":"\udE00\uD83D"}', {"a": "\ufffd\ufffd"}),
        (rb'{"a":"\\ud83d"}', {"a": "\\ud83d"}),
    ],
)
def test_half_a_character_makes_no_answer_unreadable(sent: bytes, mended: object) -> None:
    assert json.loads(mend_escapes(sent)) == mended
    assert msgspec.json.decode(mend_escapes(sent)) == mended


@given(st.text(), st.booleans())
def test_json_stays_what_it_is_however_its_escapes_are_written(text: str, is_ascii: bool) -> None:
    sent = json.dumps({"a": text}, ensure_ascii=is_ascii).replace("/", "\\/").encode(errors="surrogatepass")
    for changed in (mend_escapes(sent), spell_plainly(sent)):
        assert json.loads(changed.decode(errors="surrogatepass")) == {"a": text}


def test_what_needs_no_escape_is_spelled_without() -> None:
    assert spell_plainly(rb'{"\u0061":"\/\u002F \u0022\u005c\u0007\n"}') == rb'{"a":"// \u0022\u005c\u0007\n"}'
