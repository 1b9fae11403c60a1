"""Malformed replies that providers are known to send: every adapter reads them, in every direction."""

from typing import Any

import msgspec
import pytest

from service.core.foreign_json import repair_json
from service.core.observation import Accepted, Failed, NoOutput, Observation, Succeeded, Unreadable
from service.providers.foreign import error_text, read_link
from service.providers.replies import dropped_links, is_moderation
from tests.providers.material import account, read, reply
from tests.support.cost import least_s

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


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: body[:-1] + b",}",
        lambda body: body[:-1] + b',"list":[1,2,]}',
        lambda body: body[:-1] + b',"said":"line\none\t"}',
        lambda body: body[:-1] + b',"said":"caf\xe9"}',
        lambda body: body[:-1] + b',"half":"\\ud83d"}',
        lambda body: body[:-1] + b',"seed":' + b"9" * 5_000 + b"}",
        lambda body: body[:-1] + b',"said":"a, ] b",}',
        lambda body: b"\xef\xbb\xbf \r\n" + body + b"\0\0",
        lambda body: body + b"\n<!-- served in 3 ms -->",
        lambda body: body + body,
        lambda body: b'{"progress":1}\n' + body + b"\n",
        lambda body: msgspec.json.encode(body.decode()),
    ],
    ids=[
        "trailing comma",
        "trailing comma in a list",
        "control characters",
        "latin-1",
        "half a surrogate pair",
        "a long number",
        "a comma and a bracket in a text",
        "blanks and NULs around it",
        "text after it",
        "sent twice",
        "JSON lines",
        "JSON in a string",
    ],
)
@each_success
def test_json_that_senders_break_is_read_all_the_same(provider: str, call: str, spoil: Any) -> None:
    observation = received(provider, call, spoil(msgspec.json.encode(SUCCESS[provider, call])))
    assert isinstance(observation, Succeeded), observation
    assert observation.images[0].url == LINK
    msgspec.json.decode(observation.raw)


@pytest.mark.parametrize("body", [b"<html>{}</html>", b'{"a":1}{"b":', b"Proxy error {}", b'{"a" 1}', b"[1, 2"])
def test_what_no_repair_makes_json_stays_as_it_is(body: bytes) -> None:
    assert repair_json(body) == body


@pytest.mark.parametrize(("provider", "call"), [key for key in SUCCESS if key[0] != "flux-context"])
def test_an_object_inside_is_read_out_of_a_text(provider: str, call: str) -> None:
    body = SUCCESS[provider, call]
    name = "response" if "response" in body else "data"
    observation = received(provider, call, msgspec.json.encode(body | {name: msgspec.json.encode(body[name]).decode()}))
    assert isinstance(observation, Succeeded) and observation.images[0].url == LINK


def test_the_words_of_a_long_transcript_are_read() -> None:
    words = [{"text": "word", "start": 1, "end": 2, "confidence": 0.5} for _ in range(15_000)]
    body = msgspec.json.encode(SUCCESS["acedata", "poll"] | {"words": words, "said": 'a "quote"'})
    assert isinstance(received("acedata", "poll", body), Succeeded)


MALFORMED = {
    "a comma before the bracket": lambda body: body[:-1] + b",}",
    "commas before all brackets": lambda body: body.replace(b"}", b" ,\n}"),
    "a line end in a text": lambda body: body[:-1] + b',"said":"two\nlines\t"}',
    "a NUL in a text": lambda body: body[:-1] + b',"said":"a\0b"}',
    "bytes that are not UTF-8": lambda body: body[:-1] + b',"said":"caf\xe9"}',
    "UTF-16 without a mark": lambda body: body.decode().encode("utf-16-le"),
    "a page after the object": lambda body: body + b"\n<!-- served by proxy 3 -->",
    "NULs after the object": lambda body: body + b"\0\0\0",
    "half of a pair": lambda body: body[:-1] + b',"said":"\\ud83d"}',
}


@pytest.mark.parametrize("fault", MALFORMED)
@each_success
def test_a_paid_result_in_malformed_json_is_read(provider: str, call: str, fault: str) -> None:
    body = MALFORMED[fault](msgspec.json.encode(SUCCESS[provider, call]))
    observation = received(provider, call, body)
    assert isinstance(observation, Succeeded) and observation.images[0].url == LINK
    assert isinstance(msgspec.json.decode(observation.raw), dict)


def test_a_comma_inside_a_text_is_no_fault() -> None:
    assert repair_json(b'{"a": ",}", "b": [1,],}') == b'{"a":",}","b":[1]}'


@pytest.mark.parametrize(
    ("text", "moderated"),
    [
        ("Blocked by content filter", True),
        ("The prompt contains sexual content", True),
        ("Sensitive content was detected", True),
        ("提示词违规", True),
        ("safety_tolerance must be from 0 to 6", False),
        ("names are case-sensitive", False),
        ("retry later", False),
    ],
)
def test_words_of_moderation_are_known(text: str, moderated: bool) -> None:
    assert is_moderation(text) is moderated


@pytest.mark.parametrize("name", ["errorMessage", "error_description", "fail_reason", "errmsg", "info", "cause"])
def test_an_error_text_is_found_under_any_name_that_is_in_use(name: str) -> None:
    assert error_text({"code": 17, name: "no credits"}) == "no credits"
    assert error_text({"error": {"code": 17, name: "no credits"}}) == "no credits"


def test_a_valid_body_stays_byte_for_byte() -> None:
    for body in (b'{"a": 1.0, "b": "NaN"}', b'{"a":"\\u00e9"}', b"", b"not json NaN", b'{"a":1}{"NaN"'):
        assert repair_json(body) == body


@pytest.mark.parametrize(
    "body", [b"[" * 500_000 + b"NaN", b"[NaN," * 200_000, b'"NaN",' * 170_000, b"1e999," * 170_000]
)
def test_a_repair_of_1_mib_takes_little_time(body: bytes) -> None:
    assert least_s(lambda: repair_json(body)) < 0.05


@pytest.mark.parametrize(
    "body",
    [b"[" + b"1e-310," * 149_000 + b"1]", b"[" + b"[]," * 340_000 + b"1]", b"{" + b'"a":{},' * 140_000 + b'"a":1}'],
    ids=["small numbers", "lists", "objects"],
)
@pytest.mark.parametrize("escaped", [b"", b'"\\u0041",'])
def test_json_that_is_costly_to_decode_is_unreadable_at_once(body: bytes, escaped: bytes) -> None:
    body = body[:1] + escaped + body[1:] if body.startswith(b"[") else body
    assert isinstance(received("fluxapi-ai", "callback", body), Unreadable)
    assert least_s(lambda: received("fluxapi-ai", "callback", body)) < 0.05


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
        ("https://cdn.example.com/50%.png", "https://cdn.example.com/50%25.png"),
        ("https://bücher.example/r.png", "https://xn--bcher-kva.example/r.png"),
        (f"\u200b{LINK}\ufeff", LINK),
        (f"<{LINK}>", LINK),
        ("https:\\/\\/cdn.example.com\\/r.png", LINK),
        (f'["{LINK}"]', LINK),
        (f'{{"url": "{LINK}"}}', LINK),
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


@pytest.mark.parametrize("shape", [lambda link: [link], lambda link: {"url": link}, lambda link: [{"src": link}]])
@each_success
def test_a_link_is_found_in_a_list_or_an_object(provider: str, call: str, shape: Any) -> None:
    observation = received(provider, call, with_link(provider, call, shape(LINK)))
    assert isinstance(observation, Succeeded)
    assert [image.url for image in observation.images] == [LINK]


@each_success
def test_several_links_in_one_text_are_several_outputs(provider: str, call: str) -> None:
    other = "https://cdn.example.com/a,b.png"
    observation = received(provider, call, with_link(provider, call, f"{LINK},\n{other}"))
    assert isinstance(observation, Succeeded)
    assert [image.url for image in observation.images] == [LINK, other]


@each_success
def test_an_output_that_is_no_link_is_dropped_by_name(provider: str, call: str) -> None:
    observation = received(provider, call, with_link(provider, call, [LINK, "file:///etc/x", {"blob": "x"}]))
    assert isinstance(observation, Succeeded)
    assert [image.url for image in observation.images] == [LINK]
    assert observation.dropped == ("file:///etc/x", "an object with blob")


@pytest.mark.parametrize("provider", ["acedata", "fluxapi-org"])
def test_an_item_without_a_link_beside_others_is_dropped_by_name(provider: str) -> None:
    key = "image_url" if provider == "acedata" else "url"
    body = SUCCESS[provider, "submit"] | {"data": [{key: LINK}, {"b64_json": "aGk="}]}
    observation = received(provider, "submit", msgspec.json.encode(body))
    assert isinstance(observation, Succeeded)
    assert observation.dropped == ("an object with b64_json",)


def test_unusable_links_are_named_and_bounded() -> None:
    assert dropped_links(["", None, LINK, "file:///x", 7]) == ("file:///x", "int")
    many = dropped_links(["x" * 10_000] * 100)
    assert many[-1] == "and 91 more"
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
        ({"error_message": "too odd"}, "too odd"),
        ({"failure_reason": "too odd"}, "too odd"),
        ([{"loc": ["body"], "msg": "too odd", "input": {"prompt": "x"}}], "body: too odd"),
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


@pytest.mark.parametrize(
    "error",
    [
        {"code": "content_policy_violation"},
        {"message": "worker lost", "details": {"Moderation Reasons": ["violence"]}},
        {"type": "SafetyError", "message": "refused"},
        [{"type": "nsfw_content_detected"}],
        '{"error": {"code": "moderation_blocked"}}',
        {"message": "提示词包含敏感内容"},
    ],
    ids=str,
)
@pytest.mark.parametrize("provider", FAILURES)
def test_moderation_is_recognised_wherever_an_error_names_it(provider: str, error: Any) -> None:
    observation = received(provider, "poll", msgspec.json.encode(FAILURES[provider](error)))
    assert isinstance(observation, Failed), observation
    assert observation.error.code == "content_policy"


@pytest.mark.parametrize(
    "error",
    [{"message": "worker lost", "input": {"prompt": "a policy"}}, "safetyTolerance is too high", {"nsfw": [False]}],
)
@pytest.mark.parametrize("provider", FAILURES)
def test_what_was_asked_for_is_no_moderation(provider: str, error: Any) -> None:
    observation = received(provider, "poll", msgspec.json.encode(FAILURES[provider](error)))
    assert isinstance(observation, Failed), observation
    assert observation.error.code == "provider_error"


@pytest.mark.parametrize("key", ["error", "detail", "message", "msg"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("provider", ["flux-context", "fluxapi-ai", "acedata", "fluxapi-org"])
def test_a_refused_submit_keeps_its_text(provider: str, shape: Any, key: str) -> None:
    body = msgspec.json.encode({key: _filled(shape, "ratio 5:9 is not supported")})
    observation = received(provider, "submit", body, status=400)
    assert isinstance(observation, Failed)
    assert observation.error.code == "invalid_request"
    assert "ratio 5:9 is not supported" in observation.error.message
