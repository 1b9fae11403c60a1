"""Every reply in `fixtures/` is understood as it says there, and what is said of all replies holds for each."""

from typing import Any

import msgspec
import pytest

from service.core.observation import Failed, Succeeded
from tests.providers.material import FIXTURES, Fixture, fixtures, read
from tests.support.registry import PROVIDERS

ALL = fixtures()
each_fixture = pytest.mark.parametrize(
    ("provider", "fixture"), ALL, ids=[f"{provider}: {fixture.name}" for provider, fixture in ALL]
)


def differences(expected: Any, got: Any, path: str = "") -> list[str]:
    """Where `got` is not as expected; of an object only the named fields count."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return [
            text for name, value in expected.items() for text in differences(value, got.get(name), f"{path}.{name}")
        ]
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        pairs = zip(expected, got, strict=True)
        return [text for index, (a, b) in enumerate(pairs) for text in differences(a, b, f"{path}[{index}]")]
    return [] if expected == got else [f"{path}: expected {expected!r}, got {got!r}"]


@each_fixture
def test_a_reply_is_understood_as_documented(provider: str, fixture: Fixture) -> None:
    observation = read(provider, fixture.call, fixture.reply, signed=fixture.signed)
    got = msgspec.json.decode(msgspec.json.encode(observation))
    assert differences(fixture.expected, got) == []


@each_fixture
def test_the_raw_payload_is_kept_byte_for_byte(provider: str, fixture: Fixture) -> None:
    observation = read(provider, fixture.call, fixture.reply, signed=fixture.signed)
    if isinstance(observation, Succeeded | Failed) and observation.raw is not None:
        assert bytes(observation.raw) == fixture.reply.body
    assert not isinstance(observation, Succeeded) or observation.raw is not None


@each_fixture
def test_a_fixture_says_who_says_so(provider: str, fixture: Fixture) -> None:
    assert fixture.source.split(":")[0] in {"D", "K", "A", "R", "O", "I"}
    assert fixture.call in {"submit", "poll", "callback"}


def test_every_provider_has_fixtures_of_its_own_and_their_names_differ() -> None:
    assert {path.stem for path in FIXTURES.glob("*.json")} == set(PROVIDERS)
    names = [(provider, fixture.call, fixture.name) for provider, fixture in ALL]
    assert len(names) == len(set(names))
