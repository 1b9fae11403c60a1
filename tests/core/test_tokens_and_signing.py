"""Callback tokens and event signatures."""

from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from service.core import signing
from service.core.problems import Forbidden
from service.core.tokens import CallbackTokens

PROVIDERS = ("acedata", "fluxapi-ai")
TASK = "task_" + "0" * 31 + "1"
KEY = "a secret key"


def test_a_token_names_its_task() -> None:
    tokens = CallbackTokens([KEY], PROVIDERS)
    assert tokens.verify("acedata", tokens.sign("acedata", TASK)) == TASK


def test_a_token_holds_for_its_own_provider_alone() -> None:
    tokens = CallbackTokens([KEY], PROVIDERS)
    with pytest.raises(Forbidden):
        tokens.verify("fluxapi-ai", tokens.sign("acedata", TASK))


def test_after_a_rotation_old_tokens_hold_until_their_key_is_retired() -> None:
    old = CallbackTokens([KEY], PROVIDERS).sign("acedata", TASK)
    rotated = CallbackTokens(["new", KEY], PROVIDERS)
    assert rotated.verify("acedata", old) == TASK
    assert rotated.sign("acedata", TASK) == CallbackTokens(["new"], PROVIDERS).sign("acedata", TASK)
    with pytest.raises(Forbidden):
        CallbackTokens(["new"], PROVIDERS).verify("acedata", old)


@given(st.integers(0, 101), st.characters())
def test_no_token_survives_a_change_of_one_character(place: int, character: str) -> None:
    tokens = CallbackTokens([KEY], PROVIDERS)
    good = tokens.sign("acedata", TASK)
    for altered in (good[:place] + character + good[place + 1 :], good[:place] + character + good[place:]):
        if altered != good:
            with pytest.raises(Forbidden):
                tokens.verify("acedata", altered)


def test_the_published_vector_of_standard_webhooks() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signing.sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_public_library_verifies_either_secret_during_a_rotation() -> None:
    old, new = signing.render_secret(b"o" * 32), signing.render_secret(b"n" * 32)
    body = b'{"id":"evt_1"}'

    headers = signing.sign([new, old], "evt_1", int(datetime.now(UTC).timestamp()), body)
    for secret in (old, new):
        assert standardwebhooks.Webhook(secret).verify(body, headers) == {"id": "evt_1"}


@pytest.mark.parametrize("secret", ["x", "whsec_", "whsec_%%%", "whsec_" + "YQ==", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_a_secret_that_is_none_is_refused_without_being_told(secret: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        signing.decode_secret(secret)
    assert len(secret) < 7 or secret not in str(caught.value)
