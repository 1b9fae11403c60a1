"""Ace Data Cloud: blocks unless told not to; a state is the shape of an answer."""

import pytest

from tests.sandbox.conftest import World, open_world, state_of

PROMPT = "a white siamese cat"


async def test_without_a_callback_url_the_answer_is_the_result(world: World) -> None:
    done = await world.acedata(PROMPT, callback_url=None, count=2)
    assert done.status == 200
    assert done.body["success"] is True
    assert set(done.body) == {"success", "task_id", "trace_id", "data"}
    assert len(done.body["data"]) == 2
    for picture in done.body["data"]:
        assert picture["prompt"] == PROMPT
        assert isinstance(picture["timings"], int)
    assert len({picture["image_url"] for picture in done.body["data"]}) == 2


async def test_with_a_callback_url_the_answer_is_a_bare_id_and_the_callback_brings_the_result(world: World) -> None:
    accepted = await world.acedata(PROMPT)
    assert (accepted.status, set(accepted.body)) == (200, {"task_id"})
    [callback] = await world.inbox.expect(1)
    assert (callback["success"], callback["task_id"]) == (True, accepted.body["task_id"])
    [picture] = callback["data"]
    assert set(picture) == {"prompt", "image_url", "seed", "timings"}
    assert set(picture["timings"]) == {"inference"}
    polled = (await world.poll("acedata", callback["task_id"])).body
    assert polled["response"] == callback
    assert polled["finished_at"] - polled["created_at"] == pytest.approx(polled["elapsed"])


async def test_async_gives_the_id_at_once_and_the_query_the_result(world: World) -> None:
    world.pace.hold()
    accepted = await world.acedata(PROMPT, callback_url=None, **{"async": True})
    assert set(accepted.body) == {"task_id", "trace_id"}
    pending = (await world.poll("acedata", accepted.body["task_id"])).body
    assert "response" not in pending
    assert "finished_at" not in pending
    assert pending["request"]["prompt"] == PROMPT
    world.pace.go_on()
    assert (await world.final("acedata", accepted.body["task_id"]))["response"]["success"] is True


async def test_a_batch_holds_the_known_tasks(world: World) -> None:
    ids = [(await world.acedata(f"cat {number}")).body["task_id"] for number in range(2)]
    batch = (await world.post("/acedata/flux/tasks", {"action": "retrieve_batch", "ids": [*ids, "unknown"]})).body
    assert batch["count"] == 2
    assert [item["id"] for item in batch["items"]] == ids


async def test_an_unknown_task_is_an_empty_object(world: World) -> None:
    unknown = await world.poll("acedata", "2db0168c")
    assert (unknown.status, unknown.body) == (200, {})


async def test_a_task_of_another_provider_is_unknown(world: World) -> None:
    accepted = await world.flux_context()
    assert (await world.poll("acedata", accepted.body["taskId"])).body == {}


async def test_moderation_refuses_the_submit(world: World) -> None:
    refused = await world.acedata("sandbox:moderated")
    assert (refused.status, refused.body["error"]["code"]) == (403, "forbidden")
    assert set(refused.body) == {"error", "trace_id"}


async def test_a_failure_blocks_into_a_500_and_calls_back_with_success_false(world: World) -> None:
    blocked = await world.acedata("sandbox:failed", callback_url=None)
    assert (blocked.status, blocked.body["success"], blocked.body["error"]["code"]) == (500, False, "api_error")
    accepted = await world.acedata("sandbox:failed")
    [callback] = await world.inbox.expect(1)
    assert (callback["success"], callback["task_id"]) == (False, accepted.body["task_id"])
    assert callback["error"]["code"] == "api_error"
    assert (await world.final("acedata", callback["task_id"]))["response"] == callback


async def test_success_without_a_picture_has_no_items(world: World) -> None:
    assert (await world.acedata("sandbox:no-picture", callback_url=None)).body["data"] == []


async def test_a_stuck_task_blocks_until_the_gateway_gives_up() -> None:
    async with open_world(job_seconds=0.002) as world:
        given_up = await world.acedata("sandbox:stuck", callback_url=None)
        assert given_up.status == 504


async def test_the_account_is_told_by_the_error_code(world: World) -> None:
    path, body = "/acedata/flux/images", {"action": "generate", "prompt": PROMPT}
    bad_key = await world.post(path, body, headers={"Authorization": "Bearer bad-key"})
    assert (bad_key.status, bad_key.body["error"]["code"]) == (401, "invalid_token")
    no_key = await world.post(path, body, headers={"Authorization": "Basic abc"})
    assert (no_key.status, no_key.body["error"]["code"]) == (400, "no_token")
    no_credits = await world.acedata("sandbox:no-credits")
    assert (no_credits.status, no_credits.body["error"]["code"]) == (403, "used_up")
    no_route = await world.post("/acedata/flux/videos", body)
    assert (no_route.status, no_route.body["error"]["code"]) == (404, "no_api")


@pytest.mark.parametrize(
    ("model", "good", "bad"),
    [
        ("flux-2-pro", "2048x1024", "16:9"),
        ("flux-2-flex", "64x64", "32x64"),
        ("flux-2-max", "96x64", "4096x4096"),
        ("flux-pro-1.1", "1440x256", "1472x256"),
        ("flux-dev", "1024x768", "1000x768"),
        ("flux-pro", "1024x1792", "1024x768"),
        ("flux-pro-1.1-ultra", "21:9", "1024x1024"),
        ("flux-kontext-pro", "4:5", "16:21"),
        ("flux-kontext-max", "9:21", "0:1"),
    ],
)
async def test_each_model_has_its_sizes(world: World, model: str, good: str, bad: str) -> None:
    assert (await world.acedata(model=model, size=good)).status == 200
    refused = await world.acedata(model=model, size=bad)
    assert (refused.status, refused.body["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "fields",
    [
        {"action": None},
        {"action": "upscale"},
        {"prompt": None},
        {"model": "flux-9"},
        {"model": {}},
        {"size": 1024},
        {"count": 0},
        {"count": "2"},
        {"callback_url": "javascript:alert(1)"},
        {"async": "yes"},
        {"action": "edit", "model": "flux-kontext-pro"},
        {"action": "edit", "model": "flux-dev", "image_url": "https://example.com/a.png"},
    ],
)
async def test_a_bad_field_is_a_bad_request(world: World, fields: dict[str, object]) -> None:
    refused = await world.acedata(**fields)  # type: ignore[arg-type]
    assert (refused.status, refused.body["error"]["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "query", [{}, {"task_id": "a"}, {"id": 1}, {"action": "list"}, {"action": "retrieve_batch", "ids": "a"}]
)
async def test_a_bad_query_is_a_bad_request(world: World, query: dict[str, object]) -> None:
    refused = await world.post("/acedata/flux/tasks", query)
    assert (refused.status, refused.body["error"]["code"]) == (400, "bad_request")


async def test_an_edit_makes_one_picture(world: World) -> None:
    edit = {"action": "edit", "model": "flux-kontext-pro", "image_url": "https://example.com/a.png", "count": 3}
    done = await world.acedata(callback_url=None, **edit)
    assert len(done.body["data"]) == 1


async def test_a_refused_callback_is_not_sent_again(world: World) -> None:
    world.inbox.statuses = [500]
    accepted = await world.acedata("first")
    await world.inbox.expect(1)
    await world.acedata("second")
    await world.inbox.expect(2)
    assert [body["task_id"] for body in world.inbox.bodies].count(accepted.body["task_id"]) == 1
    assert state_of("acedata", await world.poll("acedata", accepted.body["task_id"])) == "succeeded"
