"""A provider invented on the spot works from its declaration alone."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from service.core.account import Account
from service.core.observation import (
    Accepted,
    Ask,
    Failed,
    Hint,
    NoOutput,
    NotFound,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.task import Task, TaskInput
from service.providers.base import HttpReply
from service.providers.declared.loading import load
from service.providers.declared.provider import DeclaredProvider

NOW = datetime(2026, 1, 29, 7, 12, 40, tzinfo=UTC)
INVENTED = r"""
schema = 1
id = "acme"
base_url = "https://api.acme.test/v1"
hosts = ["api.acme.test", "*.eu.acme.test"]
secrets = ["key", "webhook_secret"]
headers = { "X-Version" = "3" }
errors = [
  { when = "contains(lower(to_string(body.why)), 'unsafe')", code = "content_policy" },
  { http = [401], code = "authentication" },
  { http = [429], code = "rate_limited", wait_s = 12 },
  { http = [400, 422], code = "invalid_request" },
]

[auth]
header = "X-Acme-Token"
value = "acme {key}"

[submit]
path = "/jobs/{+model}"
input = "params"
map = { "params.text" = "input.prompt", "params.ratio" = "input.aspect_ratio || '1:1'", "params.seed" = "input.seed" }
set = { "meta.model" = "{model}", quality = 5 }
success = "body.ok"
id = "body.job.id"
remember = { look = "body.job.look" }
cost = { at = "body.job.price", unit = "credits" }

[poll]
url = "{look}"
path = "/jobs/{id}"
rules = [ { when = "http == `404`", is = "not_found" } ]
state = "body.state"
states = { 0 = "queued", 1 = "running", 2 = "succeeded", 3 = "failed", true = "succeeded" }

[result]
urls = "body.files[].{url: href, content_type: type, width: w, height: h, expires_at: until}"
cost = { at = "body.price", unit = "credits" }

[callback]
place = "header:X-Callback"
id = "body.id"
[callback.verify]
when_secret = "webhook_secret"
algorithm = "hmac-sha256"
message = "{timestamp}:{raw}"
signature = { header = "X-Acme-Signature", encoding = "hex" }
timestamp = { header = "X-Acme-Time" }

[cancel]
method = "DELETE"
path = "/jobs/{id}"
too_late = "http == `409`"

[models]
open = true
[models."art/one"]
kind = "image"
requires = ["prompt"]
aspect_ratios = ["1:1", "16:9"]
"""
LINK, EVIL = "https://a.eu.acme.test/x?y=%7E", "https://evil.test/x"
REFUSED = "look leads to evil.test:443, which is not in hosts"
PROVIDER = DeclaredProvider(load(INVENTED, "acme.toml"), lambda: NOW)
ACCOUNT = Account(provider="acme", base_url="https://api.acme.test/v1", secrets={"key": "k-1", "webhook_secret": "s-1"})


def task(**given: Any) -> Task:
    fields: dict[str, Any] = {
        "id": "task_1",
        "provider": "acme",
        "model": "art/one",
        "input": TaskInput(prompt="a lighthouse", options={"extra": {"a": 1}}),
        "metadata": {},
        "webhook_url": None,
        "on_unconfirmed": "wait",
        "created_at": NOW,
        "deadline_at": NOW + timedelta(minutes=15),
    }
    return Task(**(fields | given))


def reply(status: int, body: Any, **headers: str) -> HttpReply:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpReply(status=status, headers=named, body=raw, received_at=NOW)


def test_a_submit_carries_credentials_input_constants_options_and_the_callback_url() -> None:
    request = PROVIDER.build_submit(task(), ACCOUNT, "https://us.test/callbacks/acme/tok")
    assert (request.method, request.url) == ("POST", "https://api.acme.test/v1/jobs/art/one")
    assert request.headers["x-acme-token"] == "acme k-1"
    assert request.headers["x-version"] == "3"
    assert request.headers["x-callback"] == "https://us.test/callbacks/acme/tok"
    assert request.body is not None
    assert msgspec.json.decode(request.body) == {
        "params": {"text": "a lighthouse", "ratio": "1:1", "extra": {"a": 1}},
        "meta": {"model": "art/one"},
        "quality": 5,
    }


@pytest.mark.parametrize(
    ("given", "kind", "fields"),
    [
        (reply(200, {"ok": True, "job": {"id": 7, "price": "1.5"}}), Accepted, {"provider_task_id": "7", "cost": 1.5}),
        (reply(200, {"ok": True, "job": {"look": LINK, "id": "j"}}), Accepted, {"links": {"look": LINK}}),
        (reply(200, {"ok": True, "job": {"look": EVIL, "id": "j"}}), Accepted, {"links": {}, "refused": (REFUSED,)}),
        (reply(200, {"ok": True, "job": {}}), Unconfirmed, {}),
        (reply(200, {"ok": False, "why": "Unsafe prompt"}), Failed, {}),
        (reply(500, {"why": "oops"}), Unconfirmed, {}),
        (reply(502, b"<html>"), Unconfirmed, {}),
        (reply(429, {}), Throttled, {"retry_after_s": 12}),
        (reply(429, {}, retry_after="3"), Throttled, {"retry_after_s": 3}),
        (reply(401, {"why": "no"}), Failed, {}),
        (reply(302, b"", location="https://x.test"), Failed, {}),
    ],
)  # fmt: skip
def test_a_reply_to_a_submit_is_read(given: HttpReply, kind: type, fields: dict[str, Any]) -> None:
    found = PROVIDER.parse_submit(given, ACCOUNT)
    assert isinstance(found, kind)
    assert {name: getattr(found, name) for name in fields} == fields


def test_errors_are_classified_by_the_first_rule_that_fits() -> None:
    codes = {}
    for name, given in {
        "unsafe": reply(200, {"why": "UNSAFE"}),
        "key": reply(401, {}),
        "other": reply(418, {}),
    }.items():
        found = PROVIDER.parse_submit(given, ACCOUNT)
        assert isinstance(found, Failed)
        codes[name] = found.error.code
    assert codes == {"unsafe": "content_policy", "key": "authentication", "other": "provider_error"}


def test_a_poll_goes_to_the_remembered_url_or_to_the_path() -> None:
    link = "https://a.eu.acme.test/x?y=%7E"
    assert PROVIDER.build_poll(task(provider_task_id="7", links={"look": link}), ACCOUNT).url == link
    assert PROVIDER.build_poll(task(provider_task_id="7/8"), ACCOUNT).url == "https://api.acme.test/v1/jobs/7%2F8"
    leaves = task(provider_task_id="7", links={"look": "https://evil.test/"})
    assert PROVIDER.build_poll(leaves, ACCOUNT).url == "https://api.acme.test/v1/jobs/7"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (reply(200, {"state": 0}), Pending),
        (reply(200, {"state": 1.0}), Pending),
        (reply(200, {"state": "brewing"}), Pending),
        (reply(200, {"state": 2, "files": []}), NoOutput),
        (reply(200, {"state": True, "files": [{"href": "https://c.test/a.png"}]}), Succeeded),
        (reply(200, {"state": 3, "why": "unsafe"}), Failed),
        (reply(404, {}), NotFound),
        (reply(500, {"state": 2}), Unreadable),
        (reply(429, {}), Throttled),
        (reply(200, {}), Unreadable),
        (reply(200, b"<html>"), Unreadable),
        (reply(200, b"[" * 10_000), Unreadable),
    ],
)
def test_a_reply_to_a_poll_is_read(given: HttpReply, kind: type) -> None:
    assert isinstance(PROVIDER.parse_poll(given, ACCOUNT), kind)


def test_an_unknown_word_means_running_and_is_named() -> None:
    found = PROVIDER.parse_poll(reply(200, {"state": "brewing"}), ACCOUNT)
    assert isinstance(found, Pending)
    assert found.unknown_word == "brewing"


def test_an_output_has_its_media_type_size_and_expiry() -> None:
    files = [
        {"href": " https://c.test/a b.png ", "type": "image/png", "w": 10, "h": 20, "until": 1769674360},
        {"href": "x"},
    ]
    found = PROVIDER.parse_poll(reply(200, {"state": 2, "files": files, "price": 3}), ACCOUNT)
    assert isinstance(found, Succeeded)
    [image] = found.images
    assert (image.url, image.content_type, image.width, image.height) == (
        "https://c.test/a%20b.png",
        "image/png",
        10,
        20,
    )
    assert image.expires_at == "2026-01-29T08:12:40.000Z"
    assert found.cost == 3
    assert found.dropped == ("x",)


def test_a_callback_is_verified_over_its_raw_bytes() -> None:
    body = b'{"id": 7,  "state": 1}'
    sent_at = str(int(NOW.timestamp()))
    signature = hmac.new(b"s-1", f"{sent_at}:".encode() + body, hashlib.sha256).hexdigest()
    good = reply(0, body, x_acme_time=sent_at, x_acme_signature=signature)
    assert PROVIDER.verify_callback(good, ACCOUNT) is None
    assert PROVIDER.verify_callback(msgspec.structs.replace(good, body=body + b" "), ACCOUNT)
    unsigned = msgspec.structs.replace(ACCOUNT, secrets={"key": "k-1"})
    assert PROVIDER.verify_callback(reply(0, body), unsigned) is None
    found = PROVIDER.parse_callback(good, ACCOUNT)
    assert found == Pending(provider_task_id="7")


def test_a_callback_uses_the_words_of_polls_where_it_declares_none() -> None:
    found = PROVIDER.parse_callback(
        reply(0, {"id": 7, "state": 2, "files": [{"href": "https://c.test/a.png"}]}), ACCOUNT
    )
    assert isinstance(found, Succeeded)
    assert isinstance(PROVIDER.parse_callback(reply(0, {"id": 7}), ACCOUNT), Unreadable)


def test_a_cancel_says_what_came_of_it() -> None:
    request = PROVIDER.build_cancel(task(provider_task_id="7"), ACCOUNT)
    assert request is not None
    assert (request.method, request.url) == ("DELETE", "https://api.acme.test/v1/jobs/7")
    outcomes = [PROVIDER.parse_cancel(reply(status, b"")) for status in (204, 409, 404, 503)]
    assert outcomes == ["accepted", "too_late", "failed", "retry"]


def test_any_model_is_accepted_under_an_open_prefix_if_its_name_fits_into_a_path() -> None:
    model = PROVIDER.capabilities.open_model
    assert model is not None
    assert PROVIDER.check(msgspec.structs.replace(model, name="who/what-1.5:abc"), TaskInput(prompt="p")) == []
    for name in ("a/../b", "a//b", "a?b", "/a", "a b", "é"):
        assert PROVIDER.check(msgspec.structs.replace(model, name=name), TaskInput(prompt="p")), name


def test_the_declared_limits_of_a_model_are_checked_before_anything_is_sent() -> None:
    model = PROVIDER.capabilities.model("art/one")
    assert model is not None
    assert PROVIDER.check(model, TaskInput(prompt="p", aspect_ratio="16:9", options={"x": 1})) == []
    wrong = PROVIDER.check(model, TaskInput(prompt="p", aspect_ratio="3:1", n=2, size="1x1", options={"text": "mine"}))
    assert {str(error.loc[2]) for error in wrong} == {"aspect_ratio", "n", "size", "options"}


def test_a_two_step_result_asks_for_one_more_call() -> None:
    text = INVENTED.replace("[result]", '[result]\nfetch = { path = "/jobs/{id}/result" }\nrefused = "http == `422`"')
    provider = DeclaredProvider(load(text, "acme.toml"), lambda: NOW)
    found = provider.parse_poll(reply(200, {"state": 2}), ACCOUNT)
    assert isinstance(found, Ask)
    assert provider.build_poll(task(provider_task_id="7"), ACCOUNT, found.step).url.endswith("/jobs/7/result")
    done = provider.parse_poll(reply(200, {"files": [{"href": "https://c.test/a.png"}]}), ACCOUNT, found.step)
    assert isinstance(done, Succeeded)
    refused = provider.parse_poll(reply(422, {"why": "unsafe"}), ACCOUNT, found.step)
    assert isinstance(refused, Failed)
    assert refused.error.code == "content_policy"


def test_a_callback_that_is_a_hint_says_to_poll() -> None:
    text = INVENTED.replace('id = "body.id"', 'id = "body.id"\ntrust = "hint"')
    provider = DeclaredProvider(load(text, "acme.toml"), lambda: NOW)
    assert isinstance(provider.parse_callback(reply(0, {"id": 7, "state": 2}), ACCOUNT), Hint)
    assert isinstance(provider.parse_callback(reply(0, {"id": 7, "state": 1}), ACCOUNT), Pending)


def test_a_challenge_is_answered() -> None:
    text = INVENTED + '[callback.challenge]\nwhen = "body.challenge"\nanswer = { challenge = "body.challenge" }\n'
    provider = DeclaredProvider(load(text, "acme.toml"), lambda: NOW)
    answer = provider.answer_challenge(reply(0, {"challenge": "c1", "more": 1}))
    assert answer is not None
    assert answer.body == b'{"challenge":"c1"}'
    assert provider.answer_challenge(reply(0, {"id": 7})) is None
    assert provider.answer_challenge(reply(0, {"challenge": "x" * 5_000})) is None


def test_outputs_are_found_in_a_text_that_holds_several_and_others_are_named() -> None:
    files = [{"href": " https://x.test/a b.png,\nhttps://x.test/c.png"}, {"href": "file:///d.png"}]
    observation = PROVIDER.parse_poll(reply(200, {"state": 2, "files": files}), ACCOUNT)
    assert isinstance(observation, Succeeded)
    assert [image.url for image in observation.images] == ["https://x.test/a%20b.png", "https://x.test/c.png"]
    assert observation.dropped == ("file:///d.png",)


def test_words_of_moderation_count_for_more_than_a_rule_about_the_status() -> None:
    refused = PROVIDER.parse_submit(reply(422, {"error": {"code": "content_policy_violation"}}), ACCOUNT)
    assert isinstance(refused, Failed) and refused.error.code == "content_policy"
    refused = PROVIDER.parse_submit(reply(401, {"error": "the safety key is wrong"}), ACCOUNT)
    assert isinstance(refused, Failed) and refused.error.code == "authentication"
