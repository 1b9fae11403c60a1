"""The magic prompts, on every provider they apply to."""

import asyncio
import time

import httpx
import pytest

from service.sandbox.faults import FAULTS, Tally, parse_faults
from tests.sandbox.conftest import JOB_SECONDS, World, id_of, state_of
from tests.support.wait import until

ALL = ("flux-context", "fluxapi-ai", "acedata", "fluxapi-org")
POLLED = ("flux-context", "fluxapi-ai", "acedata")
CALLING = ("fluxapi-ai", "acedata")


def named(body: dict[str, object]) -> object:
    """The task id in a callback."""
    return body["task_id"] if "task_id" in body else body["data"]["taskId"]  # type: ignore[index]


def test_known_names_are_found_wherever_they_stand() -> None:
    assert parse_faults("a cat sandbox:slow, Sandbox:DUPLICATE-CALLBACK.") == {"slow", "duplicate-callback"}


def test_unknown_names_and_ordinary_words_are_no_faults() -> None:
    assert parse_faults("a slow cat in a sandbox: failed sandbox:unheard-of sandbox:slow-") == {"slow"}


def test_the_tally_forgets_what_was_longest_unseen() -> None:
    tally = Tally(size=2)
    assert [tally.first(1, name) for name in ("a", "b", "a", "c", "b")] == [True, True, False, True, True]


async def test_the_index_lists_providers_and_magic_prompts(world: World) -> None:
    index = (await world.get("/")).body
    assert [provider["id"] for provider in index["providers"]] == list(ALL)
    assert index["providers"][-1]["base_url"] == f"{world.base_url}/fluxapi-org/v1"
    assert index["magic_prompts"] == {f"sandbox:{name}": meaning for name, meaning in FAULTS.items()}


THROTTLED = {"flux-context": (429, None), "fluxapi-ai": (200, 429), "acedata": (429, None), "fluxapi-org": (429, None)}
UNAVAILABLE = {
    "flux-context": (503, None),
    "fluxapi-ai": (503, 455),
    "acedata": (503, None),
    "fluxapi-org": (503, None),
}


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(("fault", "refusals"), [("throttled", THROTTLED), ("unavailable", UNAVAILABLE)])
async def test_two_submits_of_a_prompt_are_refused_and_the_third_is_fine(
    world: World, provider: str, fault: str, refusals: dict[str, tuple[int, int | None]]
) -> None:
    prompt = f"a cat sandbox:{fault}"
    for _ in range(2):
        refused = await world.submit(provider, prompt)
        assert (refused.status, refused.body.get("code")) == refusals[provider]
    accepted = await world.submit(provider, prompt)
    assert accepted.status in {200, 202}
    assert accepted.body.get("code", 200) == 200


@pytest.mark.parametrize("provider", ALL)
async def test_the_proxy_can_answer_for_the_provider(world: World, provider: str) -> None:
    answered = await world.submit(provider, "sandbox:html-error")
    assert answered.status == 502
    assert answered.headers["content-type"].startswith("text/html")
    assert len(world.sandbox.site.jobs) == 0


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(("fault", "started"), [("cut-connection", 1), ("cut-lost", 0)])
async def test_the_connection_really_breaks(world: World, provider: str, fault: str, started: int) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        await world.submit(provider, f"sandbox:{fault}")
    assert len(world.sandbox.site.jobs) == started


@pytest.mark.parametrize("provider", CALLING)
async def test_after_a_cut_connection_the_callback_comes(world: World, provider: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await world.submit(provider, "sandbox:cut-connection")
    [callback] = await world.inbox.expect(1)
    assert state_of(provider, await world.poll(provider, str(named(callback)))) == "succeeded"


@pytest.mark.parametrize("provider", ALL)
async def test_a_bad_key_is_refused_by_prompt_and_by_name(world: World, provider: str) -> None:
    by_prompt = await world.submit(provider, "sandbox:bad-key")
    world.client.headers["Authorization"] = "Bearer bad-key"
    by_name = await world.submit(provider, "a cat")
    for body in (by_prompt.body, by_name.body):
        body.pop("trace_id", None)
    assert by_prompt == by_name
    assert by_name.status == 401 or by_name.body["code"] == 401


@pytest.mark.parametrize("provider", POLLED)
@pytest.mark.parametrize(
    ("fault", "disturbed"),
    [("html-poll", "html 502"), ("unknown-status", "unknown"), ("not-found", "not found")],
)
async def test_two_polls_are_disturbed_and_then_the_truth_comes(
    world: World, provider: str, fault: str, disturbed: str
) -> None:
    task_id = id_of(provider, (await world.submit(provider, f"sandbox:{fault}")).body)
    states = [state_of(provider, await world.poll(provider, task_id)) for _ in range(3)]
    assert states[:2] == [disturbed, disturbed]
    assert states[2] in {"running", "succeeded"}
    await world.final(provider, task_id)


@pytest.mark.parametrize("provider", POLLED)
async def test_a_stuck_task_keeps_running(world: World, provider: str) -> None:
    stuck, ordinary = [
        id_of(provider, (await world.submit(provider, prompt)).body) for prompt in ("sandbox:stuck", "a cat")
    ]
    await world.final(provider, ordinary)
    assert state_of(provider, await world.poll(provider, stuck)) == "running"


@pytest.mark.parametrize("provider", POLLED)
async def test_a_slow_task_takes_ten_times_as_long(world: World, provider: str) -> None:
    begun = time.monotonic()
    task_id = id_of(provider, (await world.submit(provider, "sandbox:slow")).body)
    await world.final(provider, task_id)
    assert time.monotonic() - begun >= 10 * JOB_SECONDS


@pytest.mark.parametrize("provider", CALLING)
@pytest.mark.parametrize("fault", ["lost-callback", "garbage-callback", "wrong-id"])
async def test_without_a_good_callback_the_poll_still_tells(world: World, provider: str, fault: str) -> None:
    task_id = id_of(provider, (await world.submit(provider, f"sandbox:{fault}")).body)
    await world.final(provider, task_id)
    await world.submit(provider, "an ordinary cat")
    expected = 1 if fault == "lost-callback" else 2
    await until(lambda: len(world.inbox.requests) >= expected)
    good = [request.json for request in world.inbox.requests if request.raw_body.startswith(b"{")]
    assert task_id not in map(named, good)


@pytest.mark.parametrize("provider", CALLING)
async def test_garbage_is_no_json(world: World, provider: str) -> None:
    await world.submit(provider, "sandbox:garbage-callback")
    await until(lambda: world.inbox.requests)
    with pytest.raises(ValueError, match="Expecting value"):
        _ = world.inbox.requests[0].json


@pytest.mark.parametrize("provider", CALLING)
async def test_an_early_callback_is_there_before_the_answer(world: World, provider: str) -> None:
    accepted = await world.submit(provider, "sandbox:early-callback")
    [callback] = world.inbox.bodies
    assert named(callback) == id_of(provider, accepted.body)


@pytest.mark.parametrize("provider", CALLING)
async def test_a_late_callback_comes_long_after_the_poll_knows(world: World, provider: str) -> None:
    world.pace.hold(2 * JOB_SECONDS)
    task_id = id_of(provider, (await world.submit(provider, "sandbox:late-callback")).body)
    await world.final(provider, task_id)
    assert world.inbox.requests == []
    world.pace.go_on()
    [callback] = await world.inbox.expect(1)
    assert named(callback) == task_id


@pytest.mark.parametrize("provider", CALLING)
async def test_a_duplicate_callback_comes_three_times(world: World, provider: str) -> None:
    await world.submit(provider, "sandbox:duplicate-callback")
    bodies = await world.inbox.expect(3)
    assert bodies.count(bodies[0]) == 3


@pytest.mark.parametrize("provider", CALLING)
async def test_contradictory_callbacks_say_success_then_failure(world: World, provider: str) -> None:
    accepted = await world.submit(provider, "sandbox:contradictory-callback")
    first, second = await world.inbox.expect(2)
    assert named(first) == named(second) == id_of(provider, accepted.body)
    assert [first.get("code", first.get("success")), second.get("code", second.get("success"))] in (
        [200, 501],
        [True, False],
    )


async def test_faults_can_be_combined(world: World) -> None:
    await world.fluxapi_ai("sandbox:failed sandbox:duplicate-callback")
    assert [body["code"] for body in await world.inbox.expect(3)] == [501] * 3


async def test_an_early_callback_that_is_refused_does_not_hold_up_the_other_submits(world: World) -> None:
    world.inbox.statuses = [503] * 4
    early, ordinary = await asyncio.gather(world.fluxapi_ai("sandbox:early-callback"), world.flux_context())
    assert (early.body["code"], ordinary.status) == (200, 202)
