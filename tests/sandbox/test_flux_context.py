"""flux-context.org: accepted with 202, polled to its end, errors as plain strings."""

import pytest

from tests.sandbox.conftest import World


async def test_an_ordinary_task_is_accepted_polled_and_completed(world: World) -> None:
    world.pace.hold()
    accepted = await world.flux_context(aspect_ratio="16:9")
    assert accepted.status == 202
    task_id = accepted.body.pop("taskId")
    assert accepted.body == {"status": "processing", "creditsCharged": 10}
    assert (await world.poll("flux-context", task_id)).body == {"status": "processing"}
    world.pace.go_on()
    done = await world.final("flux-context", task_id)
    assert done["status"] == "completed"
    assert done["result"]["url"].startswith(f"{world.base_url}/pictures/")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("moderated", {"status": "failed", "error": "The prompt was rejected by the safety system."}),
        ("failed", {"status": "failed", "error": "The image could not be generated."}),
        ("no-picture", {"status": "completed", "result": {}}),
    ],
)
async def test_a_bad_end_is_told_by_the_poll(world: World, fault: str, expected: dict[str, object]) -> None:
    accepted = await world.flux_context(f"a cat sandbox:{fault}")
    assert await world.final("flux-context", accepted.body["taskId"]) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": None},
        {"prompt": "  "},
        {"prompt": 5},
        {"model": None},
        {"model": "flux-dev"},
        {"aspect_ratio": "wide"},
        {"aspect_ratio": "99:1"},
        {"aspect_ratio": "16:9", "model": "gpt-4o"},
        {"input_image": "ftp://example.com/a.png"},
        {"input_image": "http://[broken"},
        {"input_image": 1},
        {"enable_translation": "yes"},
    ],
)
async def test_a_bad_field_is_a_400_with_a_text(world: World, fields: dict[str, object]) -> None:
    refused = await world.flux_context(**fields)  # type: ignore[arg-type]
    assert refused.status == 400
    assert isinstance(refused.body["error"], str)


async def test_gpt_4o_takes_its_three_ratios(world: World) -> None:
    for ratio in ("1:1", "3:2", "2:3"):
        assert (await world.flux_context(model="gpt-4o", aspect_ratio=ratio)).status == 202


async def test_too_few_credits_are_counted_out(world: World) -> None:
    refused = await world.flux_context("sandbox:no-credits")
    assert refused.status == 402
    assert refused.body == {"error": "Insufficient credits", "creditsRequired": 10, "creditsAvailable": 5}


async def test_faults_of_callbacks_are_ignored(world: World) -> None:
    accepted = await world.flux_context("sandbox:early-callback sandbox:garbage-callback sandbox:wrong-id")
    assert (await world.final("flux-context", accepted.body["taskId"]))["status"] == "completed"
