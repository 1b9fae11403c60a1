"""No bytes make a parser raise or say what it must not say, and no key shows in anything."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from service.core.observation import (
    Accepted,
    Failed,
    NoOutput,
    NotFound,
    NotSent,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
    Unverified,
)
from service.core.task import ERROR_CODES
from service.providers.base import HttpReply
from tests.providers.material import HMAC_KEY, KEY, account, fixtures, read, reply, task
from tests.support.fuzz import examples
from tests.support.registry import PROVIDERS

ALLOWED: dict[str, tuple[type, ...]] = {
    "submit": (Accepted, Succeeded, NoOutput, Failed, Throttled, NotSent, Unconfirmed),
    "poll": (Pending, Succeeded, NoOutput, Failed, Throttled, NotFound, Unreadable),
    "callback": (Pending, Succeeded, NoOutput, Failed, Unreadable, Unverified),
}
STATUSES = (200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 408, 422, 429, 500, 502, 503, 504, 522)
WORDS = (
    "code",
    "msg",
    "data",
    "taskId",
    "task_id",
    "info",
    "response",
    "successFlag",
    "errorCode",
    "errorMessage",
    "originImageUrl",
    "resultImageUrl",
    "success",
    "error",
    "message",
    "image_url",
    "url",
    "b64_json",
    "status",
    "result",
    "id",
    "size",
    "output_format",
    "creditsCharged",
    "creditsRequired",
    "type",
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, 200, 400, 401, 422, 429, 455, 500, 10**30, -1]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "200", "completed", "failed", "https://x.example/a.png", "https://[", "http://", "1024x1024"]),
    st.text(max_size=20),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=12,
)
HEADERS = st.fixed_dictionaries({}, optional={"retry-after": st.text(max_size=40), "location": st.text(max_size=40)})
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


def judge(provider: str, got: HttpReply) -> None:
    for call, kinds in ALLOWED.items():
        for signed in (False, True):
            observation = read(provider, call, got, signed=signed)
            assert isinstance(observation, kinds), (call, observation)
            is_sound(observation)


def is_sound(observation: Observation) -> None:
    """Return whether the observation can be stored and shown, and a success has outputs."""
    text = msgspec.json.encode(observation)
    assert KEY.encode() not in text
    assert len(getattr(observation, "reason", "")) < 700
    if isinstance(observation, Failed):
        assert observation.error.code in ERROR_CODES
        assert len(observation.error.message) <= 500
        assert observation.error.message.isprintable()
    if isinstance(observation, Succeeded):
        assert observation.images
        assert all(image.url.startswith(("http://", "https://")) for image in observation.images)


@each_provider
@given(status=st.sampled_from(STATUSES), body=st.binary(max_size=200), headers=HEADERS)
@examples(100)
def test_any_bytes_are_understood_somehow(provider: str, status: int, body: bytes, headers: dict[str, str]) -> None:
    judge(provider, reply(status, body, headers))


@each_provider
@given(
    status=st.sampled_from(STATUSES), body=st.dictionaries(st.sampled_from(WORDS), JSON, max_size=6), headers=HEADERS
)
@examples(150)
def test_any_object_is_understood_somehow(
    provider: str, status: int, body: dict[str, Any], headers: dict[str, str]
) -> None:
    judge(provider, reply(status, body, headers))


@given(drawn=st.data(), replacement=JSON)
@examples(300)
def test_a_documented_reply_with_one_value_changed_is_understood_somehow(
    drawn: st.DataObject, replacement: Any
) -> None:
    provider, fixture = drawn.draw(st.sampled_from([(p, f) for p, f in fixtures() if isinstance(f.body, dict)]))
    paths = list(places(fixture.body))
    body = changed(fixture.body, drawn.draw(st.sampled_from(paths)), replacement) if paths else replacement
    judge(provider, reply(fixture.status, body, fixture.headers))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [place for key in keys for place in ((*path, key), *places(value[key], (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], replacement: Any) -> Any:
    if not path:
        return replacement
    copy = value.copy()
    copy[path[0]] = changed(value[path[0]], path[1:], replacement)
    return copy


@each_provider
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"NaN",
        b'{"code": NaN}',
        b'{"code": 1e999}',
        b'{"msg": "\xff"}',
        b'{"msg": "\\ud800"}',
        b'{"data": ' + b"9" * 5000 + b"}",
        b'{"status": '
        + b"9" * 400
        + b', "code": '
        + b"9" * 400
        + b', "creditsCharged": '
        + b"9" * 400
        + b', "taskId": "t"}',
        b"[" * 100_000,
        b'{"data":' * 100_000,
        b'{"data":' * 500 + b"1" + b"}" * 500,
        b'{"code": 200, "code": 400}',
        b"\xef\xbb\xbf{}",
        b"<html>" + b"x" * 100_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_bytes_that_broke_others_are_understood_somehow(provider: str, body: bytes) -> None:
    for status in STATUSES:
        judge(provider, reply(status, body))


@each_provider
def test_no_key_shows_in_a_repr(provider: str) -> None:
    own, adapter = account(provider, signed=True), PROVIDERS[provider]
    request = adapter.build_submit(task(provider, adapter.capabilities.models[0].name), own, "https://x.example/secret")
    for value in (own, request):
        for text in (repr(value), str(value), f"{value}", pretty_repr(value), repr([value])):
            assert KEY not in text
            assert HMAC_KEY not in text
            assert "secret" not in text
            assert "https://" in text


@pytest.mark.parametrize(
    ("provider", "status", "body"),
    [
        ("flux-context", 401, {"error": f"unknown key {KEY}"}),
        ("flux-context", 401, {"error": "unknown key 0123456789abcdef0123456789abcdef"}),
        ("fluxapi-ai", 200, {"code": 401, "msg": f"Bearer {KEY} is wrong"}),
        ("acedata", 401, {"error": {"code": "invalid_token", "message": f"token {KEY}"}}),
        ("fluxapi-org", 401, {"error": {"code": "invalid_api_key", "message": f"Incorrect API key provided: {KEY}."}}),
    ],
)
def test_a_key_that_a_refusal_quotes_is_masked(provider: str, status: int, body: dict[str, Any]) -> None:
    observation = read(provider, "submit", reply(status, body))
    assert isinstance(observation, Failed)
    assert "0123456789abcdef" not in observation.error.message
    assert "***" in observation.error.message
