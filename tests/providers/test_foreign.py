"""Malformed replies that providers are known to send: every adapter reads them, in every direction."""

import time
from typing import Any

import msgspec
import pytest

from service.core.foreign_json import repair_json
from service.core.observation import Accepted, Failed, NoOutput, Observation, Succeeded, Unreadable
from service.providers.foreign import error_text, read_link
from service.providers.replies import dropped_links
from tests.providers.material import account, read, reply

LINK = "https://cdn.example.com/r.png"
ACCEPTED: dict[str, tuple[int, Any]] = {
    "flux-context": (202, {"taskId": "t1", "status": "processing", "creditsCharged": 10}),
    "fluxapi-ai": (200, {"code": 200, "msg": "success", "data": {"taskId": "t1"}}),
    "acedata": (200, {"task_id": "t1"}),
}
SUCCESS: dict[tuple[str, str], Any] = {
    ("flux-context", "poll"): {"status": "completed", "result": {"url": LINK}},
    ("fluxapi-ai", "poll"): {
        "code": 200,
        "data": {"taskId": "t1", "successFlag": 1, "response": {"resultImageUrl": LINK}},
    },
    ("fluxapi-ai", "callback"): {"code": 200, "data": {"taskId": "t1", "info": {"resultImageUrl": LINK}}},
    ("acedata", "poll"): {"id": "t1", "response": {"success": True, "data": [{"image_url": LINK}]}},
    ("acedata", "callback"): {"success": True, "task_id": "t1", "data": [{"image_url": LINK}]},
    ("acedata", "submit"): {"success": True, "task_id": "t1", "data": [{"image_url": LINK}]},
    ("fluxapi-org", "submit"): {"created": 1, "data": [{"url": LINK}]},
}
"""A success of each adapter in each direction, as documented."""
each_success = pytest.mark.parametrize(("provider", "call"), SUCCESS, ids=lambda value: value)


def received(provider: str, call: str, body: bytes, status: int = 200) -> Observation:
    """As the service does it: cleaned first, then read."""
    return read(provider, call, reply(status, account(provider).clean(body)))


def with_link(provider: str, call: str, link: Any) -> bytes:
    return msgspec.json.encode(SUCCESS[provider, call]).replace(msgspec.json.encode(LINK), msgspec.json.encode(link))


# JSON


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@each_success
def test_a_byte_order_mark_is_dropped(provider: str, call: str, encoding: str) -> None:
    body = msgspec.json.encode(SUCCESS[provider, call]).decode().encode(encoding)
    observation = received(provider, call, body)
    assert isinstance(observation, Succeeded) and observation.images[0].url == LINK


@pytest.mark.parametrize("provider", ACCEPTED)
def test_a_byte_order_mark_loses_no_accepted_task(provider: str) -> None:
    status, body = ACCEPTED[provider]
    observation = received(provider, "submit", b"\xef\xbb\xbf" + msgspec.json.encode(body), status)
    assert isinstance(observation, Accepted) and observation.provider_task_id == "t1"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-2E+400"])
@each_success
def test_an_odd_number_beside_the_result_is_null(provider: str, call: str, number: bytes) -> None:
    body = msgspec.json.encode(SUCCESS[provider, call])[:-1] + b',"elapsed":%b,"said":"NaN"}' % number
    observation = received(provider, call, body)
    assert isinstance(observation, Succeeded)
    raw = msgspec.json.decode(observation.raw)
    assert (raw["elapsed"], raw["said"]) == (None, "NaN")


def test_a_valid_body_stays_byte_for_byte() -> None:
    for body in (b'{"a": 1.0, "b": "NaN"}', b'{"a":"\\u00e9"}', b"", b"not json NaN", b'{"a":1}{"NaN"'):
        assert repair_json(body) == body


@pytest.mark.parametrize(
    "body", [b"[" * 500_000 + b"NaN", b"[NaN," * 200_000, b'"NaN",' * 170_000, b"1e999," * 170_000]
)
def test_a_repair_of_1_mib_takes_little_time(body: bytes) -> None:
    began = time.thread_time()
    repair_json(body)
    assert time.thread_time() - began < 0.05


@pytest.mark.parametrize(
    "body",
    [b"[" + b"1e-310," * 149_000 + b"1]", b"[" + b"[]," * 340_000 + b"1]", b"{" + b'"a":{},' * 140_000 + b'"a":1}'],
    ids=["small numbers", "lists", "objects"],
)
@pytest.mark.parametrize("escaped", [b"", b'"\\u0041",'])
def test_json_that_is_costly_to_decode_is_unreadable_at_once(body: bytes, escaped: bytes) -> None:
    body = body[:1] + escaped + body[1:] if body.startswith(b"[") else body
    began = time.thread_time()
    observation = received("fluxapi-ai", "callback", body)
    assert time.thread_time() - began < 0.05
    assert isinstance(observation, Unreadable)


# Links


@pytest.mark.parametrize(
    ("link", "read_as"),
    [
        ("https://cdn.example.com/blue lamp.png", "https://cdn.example.com/blue%20lamp.png"),
        (f"{LINK}\n", LINK),
        (f"  {LINK}\r\n", LINK),
        (f'"{LINK}"', LINK),
        ("//cdn.example.com/r.png", LINK),
        ("https://cdn.example.com/a%20b.png?x=1&y=2#z", "https://cdn.example.com/a%20b.png?x=1&y=2#z"),
        ("https://cdn.example.com/灯.png", "https://cdn.example.com/%E7%81%AF.png"),
        ("https://cdn.example.com/a\nb.png", "https://cdn.example.com/ab.png"),
        ('https://cdn.example.com/a"b<c>.png', "https://cdn.example.com/a%22b%3Cc%3E.png"),
    ],
)
@each_success
def test_a_link_is_trimmed_and_encoded(provider: str, call: str, link: str, read_as: str) -> None:
    observation = received(provider, call, with_link(provider, call, link))
    assert isinstance(observation, Succeeded)
    assert [image.url for image in observation.images] == [read_as]


@pytest.mark.parametrize(
    "value", ["", " ", None, 7, "cdn", "data:image/png;base64,x", "javascript:alert(1)", "https://", [LINK]]
)
def test_no_link_is_read_out_of_something_else(value: Any) -> None:
    assert read_link(value) is None


def test_unusable_links_are_named_and_bounded() -> None:
    assert dropped_links(["", None, LINK, "file:///x", 7]) == ("file:///x", "int")
    many = dropped_links(["x" * 10_000] * 100)
    assert len(many) == 10 and all(len(text) <= 200 for text in many)


@each_success
def test_a_success_without_a_link_is_told_apart_from_a_failure(provider: str, call: str) -> None:
    observation = received(provider, call, with_link(provider, call, ""))
    assert isinstance(observation, Accepted if (provider, call) == ("acedata", "submit") else NoOutput)


# Error texts


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("too odd", "too odd"),
        ({"message": "too odd"}, "too odd"),
        ({"error": {"detail": {"msg": "too odd"}}}, "too odd"),
        (["too odd", {"message": "too wide"}], "too odd; too wide"),
        ({"detail": [{"loc": ["body", "ratio"], "msg": "too odd"}]}, "body.ratio: too odd"),
        ('{"error": {"message": "too odd"}}', "too odd"),
        ({"code": 7}, None),
        ([], None),
        (None, None),
        ([[[[[["too deep"]]]]]], None),
    ],
)
def test_an_error_is_read_in_any_shape(error: Any, text: str | None) -> None:
    assert error_text(error) == text


SHAPES: tuple[Any, ...] = ("{}", {"message": "{}"}, [{"msg": "{}"}], {"detail": "{}"}, {"error": {"message": "{}"}})


def _filled(shape: Any, text: str) -> Any:
    return msgspec.json.decode(
        msgspec.json.encode(shape).replace(b"{}", text.encode()) if shape != "{}" else msgspec.json.encode(text)
    )


FAILURES = {
    "flux-context": lambda error: {"status": "failed", "error": error},
    "fluxapi-ai": lambda error: {"code": 200, "data": {"taskId": "t1", "successFlag": 3, "errorMessage": error}},
    "acedata": lambda error: {"id": "t1", "response": {"success": False, "error": error}},
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", FAILURES)
def test_a_failed_task_keeps_its_text_and_its_moderation(provider: str, shape: Any) -> None:
    for text, code in (
        ("worker lost", "provider_error"),
        ("The prompt was rejected by the safety system", "content_policy"),
    ):
        body = msgspec.json.encode(FAILURES[provider](_filled(shape, text)))
        observation = received(provider, "poll", body)
        assert isinstance(observation, Failed), observation
        assert text in observation.error.message and observation.error.code == code


@pytest.mark.parametrize("key", ["error", "detail", "message", "msg"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["flux-context", "fluxapi-ai", "acedata", "fluxapi-org"])
def test_a_refused_submit_keeps_its_text(provider: str, shape: Any, key: str) -> None:
    body = msgspec.json.encode({key: _filled(shape, "ratio 5:9 is not supported")})
    observation = received(provider, "submit", body, status=400)
    assert isinstance(observation, Failed)
    assert observation.error.code == "invalid_request"
    assert "ratio 5:9 is not supported" in observation.error.message
