"""Every row of the callback table: what a provider, or somebody who says so, can send, and what becomes of it."""

import asyncio
import string
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.service import SECRET_KEY, Service
from tests.support.upstream import FakeProvider, Plan, accept, kie_signature
from tests.support.wait import patience, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("callbacks")]

CALLING_BACK = ["fluxapi-ai", "acedata"]
HMAC_KEY = "test-webhook-hmac-key"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    """Its grace time is long: a poll that comes soon was caused by a callback."""
    yield await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})


async def running(service: Service, fake: FakeProvider, **script: Any) -> tuple[dict[str, Any], Plan]:
    """A task that waits for its callback."""
    prompt = new_prompt()
    plan = fake.script(prompt, **script)
    task = await service.api.submit(f"{fake.provider}/{fake.default_model}", prompt)
    return await service.api.accepted(task["id"]), plan


async def refused(service: Service) -> float:
    """How many callbacks were refused so far, by the metrics."""
    texts = await service.metrics()
    words = ("refused", "forged", "forbidden", "token", "403")
    return sum(
        sample.value
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "callback" in sample.name
        and sample.name.endswith("_total")
        and any(word in f"{sample.name} {sample.labels}" for word in words)
    )


def other_character(character: str) -> str:
    return "A" if character != "A" else "B"


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_good_callback_ends_the_task_before_it_is_answered(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake)
    assert task["status"] == "running"
    assert (await fake.callback(plan.job, "success")).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["tracking"]["via"]) == ("succeeded", "callback")
    assert after["tracking"]["callbacks"] == 1
    assert plan.poll_requests == []
    assert len(await service.api.finals(task["id"])) == 1


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_fifty_equal_callbacks_at_once_are_all_answered_and_are_one_event(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake)
    answers = await asyncio.gather(*(fake.callback(plan.job, "success") for _ in range(50)))
    assert [answer.status for answer in answers] == [200] * 50
    assert [event["type"] for event in await service.api.finals(task["id"])] == ["task.succeeded"]


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_contradictory_callbacks_at_once_leave_one_state_and_one_event(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake)
    outcomes = ["success", "failed", "moderated"] * 5
    answers = await asyncio.gather(*(fake.callback(plan.job, outcome) for outcome in outcomes))
    assert {answer.status for answer in answers} == {200}
    after = await service.api.task(task["id"])
    events = await service.api.finals(task["id"])
    assert [event["type"] for event in events] == [f"task.{after['status']}"]


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_callback_to_a_final_task_is_a_line_in_its_timeline(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake)
    await fake.callback(plan.job, "success")
    before = await service.api.task(task["id"])
    lines = len(await service.api.timeline(task["id"]))
    assert (await fake.callback(plan.job, "success")).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["result"], after["finished_at"]) == (
        before["status"],
        before["result"],
        before["finished_at"],
    )
    assert len(await service.api.timeline(task["id"])) > lines
    assert len(await service.api.finals(task["id"])) == 1


async def test_every_altered_token_is_refused_and_changes_nothing(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    lines = len(await service.api.timeline(task["id"]))
    counted = await refused(service)
    base, token = plan.job.callback_url.rsplit("/", 1)
    alphabet = string.ascii_letters + string.digits + "-_."
    altered = {token[:at] + other_character(token[at]) + token[at + 1 :] for at in range(len(token))}
    altered |= {token[:-1] + last for last in alphabet if last != token[-1]}
    altered |= {token[: len(token) // 2], token[:-1], token + "A", token + "=", token.swapcase(), "x", "null"}
    body = fake.callback_body(plan.job, "success")
    answers = await asyncio.gather(*(fake.callback(plan.job, url=f"{base}/{one}", body=body) for one in altered))
    wrong = {one: answer.status for one, answer in zip(altered, answers, strict=True) if answer.status != 403}
    assert wrong == {}
    assert (await service.api.task(task["id"]))["status"] == "running"
    assert len(await service.api.timeline(task["id"])) == lines, "a forged callback left a line"
    assert await refused(service) >= counted + len(altered)


async def test_the_token_of_another_provider_is_refused(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    url = f"{service.url}/callbacks/acedata/{plan.job.token}"
    assert (await fake.callback(plan.job, url=url)).status == 403
    assert (await service.api.task(task["id"]))["status"] == "running"


@pytest.mark.parametrize("provider", ["unknown", "flux-context-2", "fluxapi_ai"])
async def test_an_unknown_provider_is_not_found(world: World, service: Service, provider: str) -> None:
    task, plan = await running(service, world.fluxapi_ai)
    url = f"{service.url}/callbacks/{provider}/{plan.job.token}"
    assert (await world.fluxapi_ai.callback(plan.job, url=url)).status == 404
    assert (await service.api.task(task["id"]))["status"] == "running"


UNREADABLE = {
    "no bytes": b"",
    "no json": b"status=done",
    "cut json": b'{"code": 200, "data": {"taskId"',
    "bad utf-8": b'{"msg": "\xff\xfe"}',
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "an empty object": b"{}",
    "another shape": b'{"hello": "world"}',
    "very deep": b"[" * 100_000,
}


@pytest.mark.parametrize("provider", CALLING_BACK)
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_callback_is_refused_and_the_task_polled_at_once(
    world: World, service: Service, provider: str, body: bytes
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake, poll=["success"])
    lines = len(await service.api.timeline(task["id"]))
    assert (await fake.callback(plan.job, body=body)).status == 400
    after = await service.api.finished(task["id"])
    assert (after["status"], after["tracking"]["via"]) == ("succeeded", "poll")
    assert len(await service.api.timeline(task["id"])) > lines


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_another_tasks_id_in_the_body_is_a_conflict_and_the_task_is_polled_at_once(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake, poll=["success"])
    other, stranger = await running(service, fake)
    body = fake.callback_body(stranger.job, "failed")
    assert (await fake.callback(plan.job, body=body)).status == 409
    assert (await service.api.finished(task["id"]))["tracking"]["via"] == "poll"
    assert (await service.api.task(other["id"]))["status"] == "running"


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_failure_callback_without_the_tasks_id_is_matched_by_its_token(
    world: World, service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(service, fake)
    body = {
        "fluxapi-ai": {"code": 501, "msg": "Image generation task failed"},
        "acedata": {"success": False, "error": {"code": "api_error", "message": "fetch failed"}},
    }[provider]
    assert (await fake.callback(plan.job, body=body)).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["error"]["code"]) == ("failed", "provider_error")


async def test_an_empty_string_in_a_callback_is_no_picture(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    assert (await fake.callback(plan.job, "moderated")).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["result"]) == ("failed", None)


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "in chunks"])
async def test_a_callback_over_one_mebibyte_is_too_large(world: World, service: Service, declared: bool) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    lines = len(await service.api.timeline(task["id"]))
    assert await post_large(plan.job.callback_url, (1 << 20) + 1, declared) == 413
    assert (await service.api.task(task["id"]))["status"] == "running"
    assert len(await service.api.timeline(task["id"])) == lines


async def post_large(url: str, size: int, declared: bool) -> int:
    """The status; raw, since a client may see a broken pipe first. A length alone is enough: its body is not sent."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    length = f"Content-Length: {size}" if declared else "Transfer-Encoding: chunked"
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.host}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    body = b'{"a": "' + b"x" * (size - 9) + b'"}'
    chunked = (
        b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[: 1 << 19], body[1 << 19 :])) + b"0\r\n\r\n"
    )
    try:
        writer.write(head.encode() + (b"" if declared else chunked))
        async with patience():
            status_line = await reader.readline()
    finally:
        writer.transport.abort()
    return int(status_line.split()[1])


async def test_a_callback_just_under_one_mebibyte_is_read(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    body = fake.callback_body(plan.job, "success") | {"padding": "x" * ((1 << 20) - 1000)}
    assert (await fake.callback(plan.job, body=body)).status == 200
    assert (await service.api.task(task["id"]))["status"] == "succeeded"


async def test_a_callback_needs_no_bearer_key_and_must_be_a_post(world: World, service: Service) -> None:
    _, plan = await running(service, world.fluxapi_ai)
    got = await service.client.get(plan.job.callback_url)
    assert got.status_code in (404, 405)


async def test_the_timeline_does_not_show_the_whole_token(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(service, fake)
    await fake.callback(plan.job, "success")
    assert plan.job.token not in str(await service.api.timeline(task["id"]))
    assert plan.job.token not in (await service.client.get("/metrics")).text
    assert plan.job.token not in service.log()


async def test_keys_rotate_all_verify_the_first_signs_and_a_retired_one_is_refused(world: World) -> None:
    fake = world.fluxapi_ai
    ours = await world.start({"TASKHOOK_SECRET_KEYS": "old-" + SECRET_KEY, "TASKHOOK_CALLBACK_GRACE_S": "60"})
    first, first_plan = await running(ours, fake)
    second, second_plan = await running(ours, fake)
    await ours.restart({"TASKHOOK_SECRET_KEYS": f"new-{SECRET_KEY},old-{SECRET_KEY}"})
    assert (await fake.callback(first_plan.job)).status == 200
    assert (await ours.api.task(first["id"]))["status"] == "succeeded"
    third, third_plan = await running(ours, fake)
    await ours.restart({"TASKHOOK_SECRET_KEYS": f"new-{SECRET_KEY}"})
    assert (await fake.callback(second_plan.job)).status == 403
    assert (await ours.api.task(second["id"]))["status"] == "running"
    assert (await fake.callback(third_plan.job)).status == 200
    assert (await ours.api.task(third["id"]))["status"] == "succeeded"
    await ours.terminate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def signing_service(world: World) -> AsyncIterator[Service]:
    """Callbacks of fluxapi-ai must be signed."""
    ours = await world.start({"TASKHOOK_FLUXAPI_AI_HMAC_KEY": HMAC_KEY, "TASKHOOK_CALLBACK_GRACE_S": "60"})
    yield ours
    await ours.close()


async def test_a_signed_callback_is_accepted_where_signatures_are_asked_for(
    world: World, signing_service: Service
) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(signing_service, fake)
    signed = kie_signature(HMAC_KEY, plan.job.id)
    assert (await fake.callback(plan.job, headers=signed)).status == 200
    assert (await signing_service.api.task(task["id"]))["status"] == "succeeded"


@pytest.mark.parametrize("at", [-310, 310], ids=["too old", "too new"])
async def test_a_signature_of_another_time_is_refused(world: World, signing_service: Service, at: int) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(signing_service, fake)
    now = int(kie_signature(HMAC_KEY, plan.job.id)["X-Webhook-Timestamp"])
    assert (await fake.callback(plan.job, headers=kie_signature(HMAC_KEY, plan.job.id, now + at))).status == 403
    assert (await signing_service.api.task(task["id"]))["status"] == "running"


async def test_the_published_signature_is_right_but_long_ago(world: World, signing_service: Service) -> None:
    fake = world.fluxapi_ai
    published = kie_signature(HMAC_KEY, "task12345", 1769670760)
    assert published["X-Webhook-Signature"] == "iJc+9lRS0+RNENe+floXduDty7iYFX8wYWqN4ZFlyfc="
    task, plan = await running(signing_service, fake, submit=[accept(job_id="task12345")])
    assert (await fake.callback(plan.job, headers=published)).status == 403
    assert (await fake.callback(plan.job, headers=kie_signature(HMAC_KEY, "task12345"))).status == 200
    assert (await signing_service.api.task(task["id"]))["status"] == "succeeded"


async def test_an_unsigned_or_wrongly_signed_callback_is_refused(world: World, signing_service: Service) -> None:
    fake = world.fluxapi_ai
    task, plan = await running(signing_service, fake)
    good = kie_signature(HMAC_KEY, plan.job.id)
    bad: list[dict[str, str]] = [
        {},
        {"X-Webhook-Signature": good["X-Webhook-Signature"]},
        {"X-Webhook-Timestamp": good["X-Webhook-Timestamp"]},
        kie_signature("another key", plan.job.id),
        kie_signature(HMAC_KEY, "another task"),
        good | {"X-Webhook-Signature": "not base64 at all"},
        good | {"X-Webhook-Signature": ""},
        good | {"X-Webhook-Timestamp": "yesterday"},
        good | {"X-Webhook-Timestamp": "9" * 400},
    ]
    statuses = [(await fake.callback(plan.job, headers=headers)).status for headers in bad]
    assert statuses == [403] * len(bad)
    assert (await signing_service.api.task(task["id"]))["status"] == "running"


async def test_a_signature_is_asked_of_that_provider_alone(world: World, signing_service: Service) -> None:
    task, plan = await running(signing_service, world.acedata)
    assert (await world.acedata.callback(plan.job)).status == 200
    assert (await signing_service.api.task(task["id"]))["status"] == "succeeded"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def confirming_service(world: World) -> AsyncIterator[Service]:
    """A callback is a hint alone."""
    ours = await world.start({"TASKHOOK_CONFIRM_CALLBACKS": "true", "TASKHOOK_CALLBACK_GRACE_S": "60"})
    yield ours
    await ours.close()


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_confirmed_callback_ends_the_task_by_what_the_poll_says(
    world: World, confirming_service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(confirming_service, fake, poll=["success"])
    body = fake.callback_body(plan.job, "failed")
    assert (await fake.callback(plan.job, body=body)).status == 200
    after = await confirming_service.api.finished(task["id"])
    assert after["status"] == "succeeded"
    assert after["result"]["outputs"][0]["url"] == fake.image_url(plan.job)
    assert len(plan.poll_requests) == 1


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_callback_that_no_poll_confirms_changes_nothing(
    world: World, confirming_service: Service, provider: str
) -> None:
    fake = world.fakes[provider]
    task, plan = await running(confirming_service, fake, poll=["running"])
    body = fake.callback_body(plan.job, "success")
    assert (await fake.callback(plan.job, body=body)).status == 200
    await until(lambda: plan.poll_requests, what="a poll at once")
    after = await confirming_service.api.task(task["id"])
    assert (after["status"], after["result"]) == ("running", None)
    assert await confirming_service.api.finals(task["id"]) == []
