"""The form of an API key: found by scanners, told from a mistyped one, and nothing of it in what is kept."""

import random
import re

import pytest

from service.core.keys import RANDOM_BITS, ApiKey, digest_of, hint_of, is_key, render_key
from tests.support.env import FakeEnv

SCANNERS_PATTERN = re.compile(r"\btk_live_[0-9A-Za-z]{39}\b")


def make(seed: int) -> str:
    return render_key(random.Random(seed).getrandbits(RANDOM_BITS))


def test_a_key_is_recognised_in_any_text() -> None:
    key = make(1)
    assert SCANNERS_PATTERN.findall(f'{{"apiKey": "{key}"}} and tk_live_short') == [key]
    assert is_key(key)


@pytest.mark.parametrize("bits", [0, 1, (1 << RANDOM_BITS) - 1, 1 << RANDOM_BITS])
def test_every_number_makes_a_key_of_the_same_length(bits: int) -> None:
    assert is_key(render_key(bits))
    assert len(render_key(bits)) == len(make(1))


def test_a_mistyped_key_is_no_key() -> None:
    key = make(2)
    for at in range(len(key)):
        other = "x" if key[at] != "x" else "y"
        assert not is_key(key[:at] + other + key[at + 1 :])
    for wrong in ("", key[:-1], f"{key}a", f" {key}", f"{key}\n", key.swapcase(), key.replace("live", "test")):
        assert not is_key(wrong)


def test_different_numbers_make_different_keys() -> None:
    keys = {make(seed) for seed in range(200)}
    assert len(keys) == len({hint_of(key) for key in keys}) == len({digest_of(key) for key in keys}) == 200


def test_what_is_kept_of_a_key_does_not_hold_it() -> None:
    key = make(3)
    kept = ApiKey(id="key_1", name="n", scopes=(), hint=hint_of(key), digest=digest_of(key), created_at=FakeEnv().now())
    assert key.startswith(kept.hint)
    assert key[len(kept.hint) :] not in repr(kept) + kept.hint + kept.digest
    assert kept.digest not in repr(kept)
