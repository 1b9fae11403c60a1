"""fluxapi.ai: everything in an envelope whose `code` counts; results under `info` in callbacks, `response` in polls."""

import base64
import hashlib
import hmac
import json

import pytest

from tests.sandbox.conftest import World, open_world

GENERATE = "/fluxapi-ai/api/v1/flux/kontext/generate"


async def test_an_ordinary_task_is_called_back_and_can_be_polled(world: World) -> None:
    accepted = await world.fluxapi_ai(aspectRatio="16:9")
    task_id = accepted.body["data"]["taskId"]
    assert (accepted.status, accepted.body) == (200, {"code": 200, "msg": "success", "data": {"taskId": task_id}})
    [callback] = await world.inbox.expect(1)
    urls = callback["data"]["info"]
    assert set(urls) == {"originImageUrl", "resultImageUrl"}
    assert callback == {
        "code": 200,
        "msg": "BFL image generated successfully.",
        "data": {"taskId": task_id, "info": urls},
    }
    polled = (await world.poll("fluxapi-ai", task_id)).body
    record = polled["data"]
    assert (polled["code"], polled["msg"]) == (200, "success")
    assert (record["taskId"], record["successFlag"], record["response"]) == (task_id, 1, urls)
    assert (record["errorCode"], record["errorMessage"]) == (None, "")
    assert record["completeTime"].endswith("Z")
    assert json.loads(record["paramJson"])["aspectRatio"] == "16:9"


async def test_a_running_task_has_nulls_where_results_will_be(world: World) -> None:
    accepted = await world.fluxapi_ai("sandbox:stuck")
    record = (await world.poll("fluxapi-ai", accepted.body["data"]["taskId"])).body["data"]
    assert (record["successFlag"], record["response"], record["completeTime"]) == (0, None, None)


@pytest.mark.parametrize(("fault", "code"), [("moderated", 400), ("failed", 501)])
async def test_a_failure_is_an_inner_one_in_polls_and_has_empty_urls_in_callbacks(
    world: World, fault: str, code: int
) -> None:
    accepted = await world.fluxapi_ai(f"sandbox:{fault}")
    [callback] = await world.inbox.expect(1)
    assert callback["code"] == code
    assert callback["data"]["info"] == {"originImageUrl": "", "resultImageUrl": ""}
    polled = await world.final("fluxapi-ai", accepted.body["data"]["taskId"])
    assert (polled["code"], polled["msg"]) == (200, "success")
    assert (polled["data"]["successFlag"], polled["data"]["errorCode"]) == (3, code)
    assert (polled["data"]["response"], polled["data"]["errorMessage"]) == (None, callback["msg"])


async def test_success_without_a_picture_has_empty_urls(world: World) -> None:
    accepted = await world.fluxapi_ai("sandbox:no-picture")
    polled = await world.final("fluxapi-ai", accepted.body["data"]["taskId"])
    assert polled["data"]["successFlag"] == 1
    assert polled["data"]["response"] == {"originImageUrl": "", "resultImageUrl": ""}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": None}, 422),
        ({"prompt": ["a"]}, 422),
        ({"aspectRatio": "5:4"}, 422),
        ({"model": "flux-dev"}, 422),
        ({"outputFormat": "webp"}, 422),
        ({"callBackUrl": "not a url"}, 422),
        ({"callBackUrl": "http://example.com:99999/"}, 422),
        ({"inputImage": True}, 422),
        ({"promptUpsampling": 1}, 422),
        ({"watermark": 1}, 422),
        ({"safetyTolerance": "2"}, 422),
        ({"safetyTolerance": 1.5}, 422),
        ({"safetyTolerance": True}, 422),
        ({"safetyTolerance": 7}, 500),
        ({"safetyTolerance": 3, "inputImage": "https://example.com/a.png"}, 500),
    ],
)
async def test_a_bad_field_is_refused_in_http_200(world: World, fields: dict[str, object], code: int) -> None:
    refused = await world.fluxapi_ai(**fields)  # type: ignore[arg-type]
    assert (refused.status, refused.body["code"], refused.body["data"]) == (200, code, None)


async def test_the_documented_extremes_are_accepted(world: World) -> None:
    assert (await world.fluxapi_ai(safetyTolerance=6, aspectRatio="16:21")).body["code"] == 200
    edit = await world.fluxapi_ai(safetyTolerance=2, inputImage="https://example.com/a.png")
    assert edit.body["code"] == 200


async def test_refusals_of_the_account_are_envelopes_in_http_200(world: World) -> None:
    bad_key = await world.post(GENERATE, {"prompt": "a"}, headers={"Authorization": "Bearer bad-one"})
    assert (bad_key.status, bad_key.body["code"]) == (200, 401)
    assert "data" not in bad_key.body
    no_credits = await world.fluxapi_ai("sandbox:no-credits")
    assert (no_credits.status, no_credits.body["code"], no_credits.body["data"]) == (200, 402, None)


async def test_an_unknown_task_is_a_422_envelope(world: World) -> None:
    expected = {"code": 422, "msg": "record is null", "data": None}
    assert (await world.poll("fluxapi-ai", "task_flux_nothing")).body == expected
    assert (await world.poll("fluxapi-ai", "")).body["code"] == 422


async def test_the_credits_can_be_asked_for(world: World) -> None:
    assert (await world.get("/fluxapi-ai/api/v1/common/credit")).body == {"code": 200, "msg": "success", "data": 1000}
    assert (await world.get("/fluxapi-ai/api/v1/chat/credit")).status == 404


async def test_a_client_without_a_name_is_blocked_before_the_api(world: World) -> None:
    blocked = await world.client.post(world.base_url + GENERATE, json={}, headers={"User-Agent": ""})
    assert (blocked.status_code, blocked.text) == (403, "error code: 1010")


async def test_a_refused_callback_is_sent_at_most_four_times(world: World) -> None:
    world.inbox.statuses = [500, 302, 404, 503]
    await world.fluxapi_ai()
    bodies = await world.inbox.expect(4)
    assert bodies.count(bodies[0]) == 4


async def test_a_callback_that_fails_once_is_not_sent_after_its_success(world: World) -> None:
    world.inbox.statuses = [500]
    await world.fluxapi_ai("a")
    await world.inbox.expect(2)
    await world.fluxapi_ai("b")
    assert len(await world.inbox.expect(3)) == 3


async def test_callbacks_are_signed_when_there_is_a_key() -> None:
    async with open_world(webhook_secrets={"fluxapi-ai": "secret"}) as world:
        await world.fluxapi_ai()
        [body] = await world.inbox.expect(1)
        headers = world.inbox.requests[0].headers
        signed = f"{body['data']['taskId']}.{headers['x-webhook-timestamp']}".encode()
        digest = hmac.new(b"secret", signed, hashlib.sha256).digest()
        assert headers["x-webhook-signature"] == base64.b64encode(digest).decode()
        assert headers["content-type"] == "application/json"


async def test_callbacks_are_not_signed_without_a_key(world: World) -> None:
    await world.fluxapi_ai()
    await world.inbox.expect(1)
    assert "x-webhook-signature" not in world.inbox.requests[0].headers
