"""fluxapi.org: the answer is the result, errors are OpenAI's objects."""

import base64
import io

import pytest
from PIL import Image

from tests.sandbox.conftest import Answered, World, open_world

ERROR_KEYS = {"message", "type", "param", "code"}


async def test_the_answer_holds_as_many_urls_as_asked_for(world: World) -> None:
    done = await world.fluxapi_org(n=3)
    assert done.status == 200
    assert isinstance(done.body["created"], int)
    assert len({picture["url"] for picture in done.body["data"]}) == 3


async def test_pictures_can_come_inline(world: World) -> None:
    done = await world.fluxapi_org(response_format="b64_json", size="512x256")
    [picture] = done.body["data"]
    assert set(picture) == {"b64_json"}
    assert Image.open(io.BytesIO(base64.b64decode(picture["b64_json"]))).size == (512, 256)


async def test_explicit_nulls_count_as_missing(world: World) -> None:
    assert (await world.fluxapi_org(n=None, size=None, response_format=None)).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": "flux-pro-1.1"}, "model"),
        ({"prompt": None}, "prompt"),
        ({"size": "16:9"}, "size"),
        ({"size": "99999x99999"}, "size"),
        ({"n": 0}, "n"),
        ({"n": 11}, "n"),
        ({"n": "2"}, "n"),
        ({"response_format": "png"}, "response_format"),
    ],
)
async def test_a_bad_field_is_named_in_the_error_object(world: World, fields: dict[str, object], param: str) -> None:
    refused = await world.fluxapi_org(**fields)  # type: ignore[arg-type]
    assert refused.status == 400
    assert set(refused.body["error"]) == ERROR_KEYS
    assert (refused.body["error"]["type"], refused.body["error"]["param"]) == ("invalid_request_error", param)


def outcome(answered: Answered) -> tuple[int, str]:
    assert set(answered.body["error"]) == ERROR_KEYS
    return answered.status, answered.body["error"]["code"]


async def test_refusals_and_failures_are_error_objects(world: World) -> None:
    assert outcome(await world.fluxapi_org("sandbox:bad-key")) == (401, "invalid_api_key")
    assert outcome(await world.fluxapi_org("sandbox:no-credits")) == (402, "insufficient_credits")
    assert outcome(await world.fluxapi_org("sandbox:moderated")) == (400, "content_policy_violation")
    assert outcome(await world.fluxapi_org("sandbox:failed")) == (500, "generation_failed")


async def test_the_rate_limit_says_when_to_come_back(world: World) -> None:
    throttled = await world.fluxapi_org("sandbox:throttled")
    assert outcome(throttled) == (429, "rate_limit_exceeded")
    assert throttled.headers["retry-after"] == "1"


async def test_success_without_a_picture_has_no_items(world: World) -> None:
    assert (await world.fluxapi_org("sandbox:no-picture")).body["data"] == []


async def test_a_stuck_generation_ends_with_the_gateway_giving_up() -> None:
    async with open_world(job_seconds=0.002) as world:
        assert (await world.fluxapi_org("sandbox:stuck")).status == 504


async def test_an_unknown_route_is_an_error_object(world: World) -> None:
    assert (await world.get("/fluxapi-org/v1/models")).body["error"]["type"] == "invalid_request_error"
