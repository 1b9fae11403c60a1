"""`replay` sends again what was sent or received the first time, byte for byte."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.cli.conftest import run, to_service
from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.receiver import Subscriber, status
from tests.support.server import Request
from tests.support.service import SIGNING_SECRET, Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli")]
MODEL = "fluxapi-ai/flux-kontext-pro"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start()


async def delivered_task(world: World, service: Service, subscriber: Subscriber, layout: str = "") -> tuple[str, bytes]:
    """A task that was called back with a body of unusual layout, and that body."""
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt)
    task = await service.api.submit(MODEL, prompt, webhook_url=subscriber.url)
    await service.api.accepted(task["id"])
    body = world.fluxapi_ai.callback_body(plan.job, "success")
    sent = (json.dumps(body, indent=3, ensure_ascii=True) + layout).encode()
    assert (await world.fluxapi_ai.callback(plan.job, body=sent)).status == 200
    await until(lambda: subscriber.of(task["id"]))
    return task["id"], sent


async def posted(world: World, service: Service, name: str, folder: Path, *arguments: str) -> tuple[Request, str]:
    """Return what arrived of a replay, and the command's output."""
    target = world.receiver.subscriber(name)
    ended = await run(folder, "replay", *arguments, "--to", target.url, env=to_service(service))
    assert ended.code == 0, ended
    return target.received[0].request, ended.out + ended.err


async def test_an_event_is_sent_as_it_was_by_any_of_its_names(world: World, service: Service, tmp_path: Path) -> None:
    clouds, hook = world.receiver.subscriber("clouds"), world.receiver.subscriber("hook")
    endpoint = await service.api.endpoint(clouds.url, format="cloudevents", headers={"X-Own": "hidden-value"})
    task_id, _ = await delivered_task(world, service, hook, layout=" \n")
    await until(lambda: clouds.of(task_id))
    first, cloud = hook.of(task_id)[0], clouds.of(task_id)[0]
    deliveries = {one["endpoint_id"]: one["id"] for one in await service.api.deliveries(task_id=task_id)}
    named = {
        "as-event": (first.id, first.request),
        "as-task": (task_id, first.request),
        "as-delivery": (deliveries[None], first.request),
        "as-cloud": (deliveries[endpoint["id"]], cloud.request),
    }
    for name, (thing, original) in named.items():
        request, said = await posted(world, service, name, tmp_path, thing, "--secret", SECRET)
        assert request.raw_body == original.raw_body
        assert request.headers["content-type"] == original.headers["content-type"]
        assert request.headers["webhook-id"] == original.headers["webhook-id"]
        world.receiver.subscribers[f"/{name}"].received[0].verify(SECRET)
        assert "x-own" not in request.headers
        assert ("the endpoint's own headers are not sent" in said) == (thing.startswith("dlv_"))
        assert SECRET not in said


async def test_a_callback_is_sent_as_the_provider_sent_it(world: World, service: Service, tmp_path: Path) -> None:
    task_id, sent = await delivered_task(world, service, world.receiver.subscriber("for-callback"))
    request, said = await posted(world, service, "callback", tmp_path, task_id, "--type", "callback")
    assert request.raw_body == sent
    assert request.headers["content-type"] == "application/json"
    assert not [name for name in request.headers if name.startswith("webhook-")]
    assert "the provider's headers are not kept" in said


async def test_callbacks_that_failed_or_could_not_be_read_are_kept_too(
    world: World, service: Service, tmp_path: Path
) -> None:
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt, poll=["running"])
    task = await service.api.submit(MODEL, prompt)
    await service.api.accepted(task["id"])
    unreadable = b'{"neither":  "success",\n "nor": "an error"}'
    await world.fluxapi_ai.callback(plan.job, body=unreadable)
    request, said = await posted(world, service, "unreadable", tmp_path, task["id"], "--type", "callback")
    assert request.raw_body == unreadable
    assert "the first 16 KiB are kept" in said
    failure = json.dumps(world.fluxapi_ai.callback_body(plan.job, "moderated"), indent=1).encode()
    await world.fluxapi_ai.callback(plan.job, body=failure)
    await service.api.finished(task["id"])
    request, said = await posted(world, service, "failed", tmp_path, task["id"], "--type", "callback")
    assert request.json == json.loads(failure)
    assert "white space" in said


async def test_what_can_not_be_sent_is_told_in_one_line(world: World, service: Service, tmp_path: Path) -> None:
    target = world.receiver.subscriber("refuses", then=status(500, body=b"not \x1b[31mtoday"))
    env = {**to_service(service), "TASKHOOK_SIGNING_SECRET": SIGNING_SECRET}
    prompt = new_prompt()
    world.flux_context.script(prompt, poll=["success"])
    polled = await service.api.submit("flux-context/flux-kontext-pro", prompt)
    await service.api.finished(polled["id"])
    refused = await run(tmp_path, "replay", polled["id"], "--to", target.url, "--json", env=env)
    assert refused.code == 1
    told = json.loads(refused.out)
    assert (told["answer"]["status"], told["answer"]["response"]) == (500, "not \x1b[31mtoday")
    assert told["bytes"] == len(target.received[0].request.raw_body)
    target.received[0].verify(SIGNING_SECRET)
    for arguments, code, says in (
        ((polled["id"], "--type", "callback"), 1, "it ended by poll"),
        (("evt_" + "0" * 32,), 2, "no such event"),
        (("task_" + "0" * 32,), 2, "no such task"),
        (("../keys",), 2, "Give the id of a task"),
        (("evt_1", "--type", "callback"), 2, "A callback belongs to a task"),
    ):
        ended = await run(tmp_path, "replay", *arguments, "--to", target.url, env=env)
        assert (ended.code, len(ended.err.splitlines())) == (code, 1), ended
        assert says in ended.err
    assert len(target.received) == 1
