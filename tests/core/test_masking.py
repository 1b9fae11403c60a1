"""Text that others echo loses the secrets that were sent to them, in every spelling and at every cut."""

import html
import json
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.masking import CUT_MIN, MASKED, mask, mask_body, repair_escapes, secrets_in_url
from service.core.tokens import CallbackTokens, hide_tokens
from tests.support.cost import least_s

SECRET = "tok/en+with=odd&chars-123"
SPELLINGS = {
    "plain": SECRET,
    "json": SECRET.replace("/", "\\/"),
    "unicode": "".join(f"\\u{ord(char):04x}" for char in SECRET),
    "unicode, upper case": "".join(f"\\u{ord(char):04X}" for char in SECRET),
    "percent": quote(SECRET, safe=""),
    "percent, lower case": quote(SECRET, safe="").lower(),
    "percent, all": "".join(f"%{ord(char):02X}" for char in SECRET),
    "percent twice": quote(quote(SECRET, safe=""), safe=""),
    "percent in json": quote(SECRET, safe="").replace("%", "\\u0025"),
    "html": html.escape(SECRET),
    "html numbers": "".join(f"&#{ord(char)};" for char in SECRET),
    "upper case": SECRET.upper(),
}


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_masked_in_every_spelling(spelled: str) -> None:
    assert mask(f"got {spelled} from you", [SECRET]) == f"got {MASKED} from you"


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_that_a_cut_goes_through_is_masked(spelled: str) -> None:
    text = f"got {spelled}"
    for end in range(len("got "), len(text)):
        masked = mask(text[:end], [SECRET])
        assert masked.startswith("got ") and not _reveals(masked), (end, masked)


def _reveals(text: str) -> bool:
    plain = text.lower()
    return SECRET[: CUT_MIN + 1] in plain or SPELLINGS["unicode"][: 6 * (CUT_MIN + 1)] in plain


@pytest.mark.parametrize(
    ("header", "echoed"),
    [
        ("Bearer abcdefgh12345", "abcdefgh12345"),
        ("bearer   abcdefgh12345", "ABCDEFGH12345"),
        ("Basic dXNlcjpsb25nLXBhc3N3b3Jk", "dXNlcjpsb25nLXBhc3N3b3Jk"),
        ("Basic dXNlcjpsb25nLXBhc3N3b3Jk", "user:long-password"),
        ("Basic dXNlcjpsb25nLXBhc3N3b3Jk", "long-password"),
    ],
)
def test_a_credential_is_masked_without_its_scheme(header: str, echoed: str) -> None:
    assert mask(f"wrong: {echoed}!", [header]) == f"wrong: {MASKED}!"


def test_every_occurrence_is_masked_and_overlaps_are_one() -> None:
    assert mask("abcdefgh12 abcdefgh abcdefgh12", ["abcdefgh", "abcdefgh12"]) == "*** *** ***"
    assert mask("abcdefghijkl", ["abcdefgh", "efghijkl"]) == MASKED


@pytest.mark.parametrize("short", ["", "a", "1234567"])
def test_short_values_are_no_secrets(short: str) -> None:
    assert mask("a 1234567 b", [short]) == "a 1234567 b"


@given(st.text(max_size=200))
def test_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert mask(text, []) == text
    assert mask(f"{text}\n", [SECRET]) in (f"{text}\n", mask(text, [SECRET]) + "\n") or SECRET.lower() in text.lower()


def test_the_secrets_of_a_url_are_its_values_and_its_long_segments() -> None:
    url = "https://example.com/hooks/T0123456789ABCDEFGHIJ/images?token=tok%20en-1&x=2"
    assert set(secrets_in_url(url)) == {"tok en-1", "2", "T0123456789ABCDEFGHIJ"}


# Callback tokens

TOKEN = CallbackTokens(["new", "old"], ["p"]).sign("p", "task_" + "0" * 32)


@pytest.mark.parametrize(
    "spelled",
    [
        TOKEN,
        TOKEN[:-1],
        TOKEN[:-20],
        TOKEN.replace("_", "%5F"),
        TOKEN.replace("_", "%5f").replace(".", "%2e"),
        TOKEN + "x",
    ],
)
def test_a_callback_token_is_hidden_also_when_it_is_cut_or_encoded(spelled: str) -> None:
    body = f'{{"callBackUrl":"https://x/callbacks/p/{spelled}","taskId":"task_flux_1"}}'.encode()
    assert hide_tokens(body) == b'{"callBackUrl":"https://x/callbacks/p/(token)","taskId":"task_flux_1"}'


def test_a_picture_named_after_a_task_keeps_its_link() -> None:
    body = b'{"url":"https://cdn/task_' + b"0" * 32 + b'.png"}'
    assert hide_tokens(body) == body


# Bodies of providers


@pytest.mark.parametrize("spelled", ["plain", "json", "unicode", "percent", "percent, lower case", "percent in json"])
def test_a_secret_in_a_body_is_masked(spelled: str) -> None:
    body = f'{{"msg":"Invalid key {SPELLINGS[spelled]} given"}}'.encode()
    assert mask_body(body, hide_tokens, [SECRET]) == b'{"msg":"Invalid key *** given"}'


def test_a_body_that_is_not_json_is_masked_too() -> None:
    body = b"<html>\\ " + SPELLINGS["percent, all"].encode() + b"\xff" + b"x" * 100_000
    masked = mask_body(body, hide_tokens, [SECRET])
    assert masked.startswith(b"<html>\\ ***\xff") and len(masked) < 17_000


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b"\\u0041" * 170_000 + b'"',
        b'"' + b"\\ud800" * 170_000 + b'"',
        b'"' + b"\\/" * 500_000 + b'"',
        b'"' + b"%41" * 340_000 + b'"',
        b"task_" * 200_000,
        b"\\" * 1_000_000,
        b"[" * 1_000_000,
        (b"task_" + b"0" * 32 + b"." + b"a" * 64) * 9_000,
    ],
    ids=lambda body: str(body[:8]),
)
def test_masking_1_mib_takes_little_time(body: bytes) -> None:
    secrets = [SECRET, "another-secret-of-ours"]
    assert least_s(lambda: mask_body(repair_escapes(body), hide_tokens, secrets)) < 0.05


# Half a character

HALF, WHOLE = rb"\ud83d", rb"\ud83d\ude00"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b'{"a":"%b"}' % HALF, {"a": "\ufffd"}),
        (b'{"a":"%b %b"}' % (WHOLE, HALF), {"a": "\U0001f600 \ufffd"}),
        (rb'{"a":"\udE00\uD83D"}', {"a": "\ufffd\ufffd"}),
        (rb'{"a":"\\ud83d"}', {"a": "\\ud83d"}),
    ],
)
def test_half_a_character_makes_no_answer_unreadable(sent: bytes, read: object) -> None:
    assert json.loads(repair_escapes(sent)) == read
    assert msgspec.json.decode(repair_escapes(sent)) == read


@given(st.text(), st.booleans())
def test_json_stays_what_it_is_however_its_escapes_are_written(text: str, is_ascii: bool) -> None:
    sent = json.dumps({"a": text}, ensure_ascii=is_ascii).replace("/", "\\/").encode(errors="surrogatepass")
    assert json.loads(repair_escapes(sent).decode(errors="surrogatepass")) == {"a": text}
