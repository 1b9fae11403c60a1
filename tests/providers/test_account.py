"""Our keys and the callback's token are masked in provider replies, however they are spelled."""

import pytest
from msgspec.structs import replace

from service.core.tokens import CallbackTokens
from tests.providers.material import account

KEY = "ab/SECRETslash/key+12345678=="
TOKEN = CallbackTokens(["a secret"], ["fluxapi-ai"]).sign("fluxapi-ai", "task_" + "0" * 32)
OURS = replace(account("fluxapi-ai"), secrets={"key": KEY})


@pytest.mark.parametrize(
    "spell", [KEY, KEY.replace("/", "\\/"), KEY.replace("S", "\\u0053"), KEY.replace("=", "\\u003D")]
)
def test_a_key_is_hidden_in_json(spell: str) -> None:
    assert OURS.clean(f'{{"msg":"Invalid key {spell} given"}}'.encode()) == b'{"msg":"Invalid key *** given"}'


@pytest.mark.parametrize("spell", [TOKEN, TOKEN.replace("_", "\\u005f"), TOKEN.replace(".", "\\u002e")])
def test_a_token_is_hidden_in_json(spell: str) -> None:
    assert OURS.clean(f'{{"url":"https:\\/\\/x\\/{spell}"}}'.encode()) == b'{"url":"https://x/(token)"}'


def test_a_header_shows_neither_key_nor_token() -> None:
    assert (
        OURS.clean_header(f"https://x/{TOKEN}?key=ab%2FSECRETslash%2Fkey%2B12345678%3D%3D")
        == "https://x/(token)?key=***"
    )
    assert OURS.clean_header("caf\udce9") == "caf\udce9"


def test_a_body_without_secrets_stays_byte_for_byte() -> None:
    sent = rb'{"url":"https:\/\/x\/\u0061.png","text":"\u00e9 \ud83d\ude00"}'
    assert OURS.clean(sent) == sent
