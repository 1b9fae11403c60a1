"""The process killed at its worst moments and started again: nothing is lost, and nothing is submitted twice."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
import pytest_asyncio

from service.wiring import Timings
from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.postgres import database, shared_server
from tests.support.proxy import Proxy
from tests.support.receiver import Subscriber, status
from tests.support.replicas import of_one_process
from tests.support.server import Hang
from tests.support.service import Service
from tests.support.upstream import accept, hang
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("crash")]

MODEL = "fluxapi-ai/flux-kontext-pro"
CUT_OFF = "service.cut_off"
"""Logged by a stop that was not over within its time."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def held(world: World) -> AsyncIterator[tuple[Subscriber, str]]:
    """A delivery whose process was killed while the subscriber held it; its lease runs while the other tests do."""
    service = await world.start()
    subscriber = world.receiver.subscriber("held", [Hang()])
    endpoint = await service.api.endpoint(subscriber.url)
    prompt = new_prompt()
    world.fluxapi_ai.script(prompt, callback="success")
    await service.api.submit(MODEL, prompt)
    await until(lambda: subscriber.in_flight == 1)
    await service.restart()
    yield subscriber, endpoint["secret"]


async def settled(service: Service, world: World) -> None:
    """Another task has gone all the way, so the first has had its time too."""
    prompt = new_prompt("a later task")
    world.fluxapi_ai.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt)
    await service.api.finished(task["id"])


async def test_a_task_that_was_stored_but_not_sent_is_sent_once_after_the_restart(world: World) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    service = await world.start(command="web")  # with a worker the kill might come while it is being sent
    plan = fake.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt)
    await service.kill()
    service.command = "serve"
    await service.restart()
    task = await service.api.finished(task["id"])
    assert task["status"] == "succeeded"
    assert len(plan.submits) == 1
    await service.close()


@pytest.mark.parametrize("provider", ["fluxapi-ai", "acedata"])
async def test_a_task_killed_before_its_submit_was_answered_is_not_sent_again_and_ends_by_its_callback(
    world: World, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    service = await world.start()
    plan = fake.script(prompt, submit=[hang(accepted=True)])
    task = await service.api.submit(f"{provider}/{fake.default_model}", prompt)
    await until(lambda: plan.jobs)
    await service.restart()
    await settled(service, world)
    assert len(plan.submits) == 1
    assert (await service.api.task(task["id"]))["status"] in ("queued", "running")
    assert (await fake.callback(plan.job)).status == 200
    task = await service.api.finished(task["id"])
    assert (task["status"], task["provider_task_id"]) == ("succeeded", plan.job.id)
    assert len(plan.submits) == 1
    await service.close()


async def test_a_task_killed_before_its_submit_was_answered_ends_unconfirmed_without_a_callback(world: World) -> None:
    service = await world.start()
    plans = {provider: fake.script(new_prompt(), submit=[hang()]) for provider, fake in world.fakes.items()}
    ids = {}
    for provider, fake in world.fakes.items():
        model, prompt = f"{provider}/{fake.default_model}", plans[provider].prompt
        ids[provider] = (await service.api.submit(model, prompt, timeout_s=5))["id"]
    await until(lambda: all(plan.submits for plan in plans.values()))
    await service.restart()
    for provider, task_id in ids.items():
        task = await service.api.finished(task_id)
        assert (task["status"], task["error"]["code"]) == ("failed", "submit_unconfirmed"), provider
        assert len(await service.api.finals(task_id)) == 1
    assert {provider: len(plan.submits) for provider, plan in plans.items()} == dict.fromkeys(plans, 1)
    await service.close()


@pytest.mark.parametrize("provider", ["flux-context", "fluxapi-ai", "acedata"])
async def test_a_task_killed_while_it_was_running_is_polled_on(world: World, provider: str) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    service = await world.start()
    plan = fake.script(prompt, poll=["running"])
    task = await service.api.submit(f"{provider}/{fake.default_model}", prompt)
    await service.api.accepted(task["id"])
    await service.kill()
    plan.polls.clear()
    plan.polls.append("success")
    await service.restart()
    task = await service.api.finished(task["id"])
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "poll")
    assert len(plan.submits) == 1
    await service.close()


async def test_a_callback_that_was_answered_survives_a_kill_and_is_delivered(world: World) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    service = await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})
    subscriber = world.receiver.subscriber("after-the-200")
    endpoint = await service.api.endpoint(subscriber.url)
    plan = fake.script(prompt)
    task = await service.api.submit(MODEL, prompt)
    await service.api.accepted(task["id"])
    service.command = "web"  # so that no worker has taken the delivery when the kill comes
    await service.restart()
    assert (await fake.callback(plan.job)).status == 200
    await service.kill()
    assert subscriber.received == []
    service.command = "serve"
    await service.restart()
    assert (await service.api.task(task["id"]))["status"] == "succeeded"
    await until(lambda: subscriber.of(task["id"]))
    subscriber.received[0].verify(endpoint["secret"])
    assert len(await service.api.finals(task["id"])) == 1
    await service.close()


async def test_callbacks_that_race_with_a_kill_are_kept_where_they_were_answered(world: World) -> None:
    fake = world.fluxapi_ai
    service = await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})
    plans = [fake.script(new_prompt()) for _ in range(60)]
    ids = [(await service.api.submit(MODEL, plan.prompt))["id"] for plan in plans]
    for task_id in ids:
        await service.api.accepted(task_id)
    calls = [asyncio.create_task(fake.callback(plan.job)) for plan in plans]
    await until(lambda: any(call.done() for call in calls))
    await service.kill()
    answers = await asyncio.gather(*calls)
    await service.restart()
    for task_id, plan, answer in zip(ids, plans, answers, strict=True):
        if answer.status == 200:
            assert (await service.api.task(task_id))["status"] == "succeeded", "a callback was answered, then lost"
        else:
            assert (await fake.callback(plan.job)).status == 200
            assert (await service.api.task(task_id))["status"] == "succeeded"
    events = Counter(event["data"]["id"] for event in await service.api.finals())
    assert events == Counter(ids)
    assert {len(plan.submits) for plan in plans} == {1}
    await service.close()


async def test_a_retry_that_was_scheduled_comes_after_the_restart(world: World) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    service = await world.start({"TASKHOOK_RETRY_SCHEDULE": "2,2,2"})
    subscriber = world.receiver.subscriber("scheduled", [status(500)])
    await service.api.endpoint(subscriber.url)
    fake.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt)
    await service.api.finished(task["id"])

    async def recorded() -> bool:
        return any(one["attempts"] for one in await service.api.deliveries(task_id=task["id"]))

    await until(recorded, what="the first attempt")
    await service.restart()
    await until(lambda: len(subscriber.received) == 2)
    assert subscriber.received[1].at - subscriber.received[0].at > 1.2
    assert len({one.id for one in subscriber.received}) == 1
    await service.close()


async def test_a_term_signal_ends_an_idle_service_at_once(world: World) -> None:
    long_s = 10 * PATIENCE_S
    service = await world.start(timings=Timings(web_grace_s=int(long_s), work_grace_s=long_s, stop_s=long_s))
    stopped = await service.terminate()
    assert stopped.code == 0, service.log(tail=30)


async def test_a_term_signal_lets_what_is_in_flight_finish_within_the_time_of_a_stop(world: World) -> None:
    fake, prompt, slow = world.fluxapi_ai, new_prompt(), new_prompt()
    service = await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})
    fake.script(prompt)
    waiting_task = await service.api.submit(MODEL, prompt)
    await service.api.accepted(waiting_task["id"])
    plan = fake.script(slow, submit=[accept(1.5)])
    slow_task = await service.api.submit(MODEL, slow)
    await until(lambda: plan.jobs)
    held = asyncio.create_task(service.client.get(f"/v1/tasks/{waiting_task['id']}", params={"wait": 50}))
    async with service.api.stream():
        stopped = await service.terminate()
    assert stopped.code == 0 and CUT_OFF not in service.log(), service.log(tail=30)
    await asyncio.gather(held, return_exceptions=True)
    await service.restart()
    task = await service.api.task(slow_task["id"])
    assert (task["status"], task["provider_task_id"]) == ("running", plan.job.id), "the answer in flight was lost"
    assert len(plan.submits) == 1
    await service.close()


@of_one_process("another connection locks the one file")
async def test_a_term_signal_ends_the_process_though_nothing_can_be_stored(world: World) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    service = await world.start(timings=Timings(work_grace_s=1))
    plan = fake.script(prompt, submit=[hang(accepted=True)])
    task = await service.api.submit(MODEL, prompt)
    await until(lambda: plan.jobs)
    with closing(sqlite3.connect(service.directory / "taskhook.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        stopped = await service.terminate()
        other.execute("rollback")
    assert stopped.code == 0 and CUT_OFF not in service.log(), service.log(tail=30)
    await service.restart()
    assert (await service.api.task(task["id"]))["status"] == "queued", "until its lease is over"
    assert len(plan.submits) == 1
    await service.close()


async def test_a_term_signal_ends_the_process_though_its_database_is_silent(world: World) -> None:
    async with database(shared_server()) as url, Proxy([shared_server().port]) as cable:
        there = url.replace(f":{shared_server().port}/", f":{cable.port}/")
        service = world.service({"TASKHOOK_DATABASE_URL": there}, command="serve", timings=Timings(stop_s=3))
        await service.restart()
        asked = [asyncio.create_task(service.api.submit(MODEL, new_prompt())) for _ in range(3)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        cable.moves.clear()
        stopped = await service.terminate()
        await asyncio.gather(*asked, return_exceptions=True)
    assert stopped.code == 0 and CUT_OFF in service.log(), service.log(tail=30)
    await service.close()


async def test_a_term_signal_does_not_wait_for_those_who_hang(world: World) -> None:
    fake, prompt, other = world.fluxapi_ai, new_prompt(), new_prompt()
    service = await world.start(timings=Timings(work_grace_s=2))
    stuck = world.receiver.subscriber("stuck", then=Hang())
    await service.api.endpoint(stuck.url)
    fake.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt)
    plan = fake.script(other, submit=[hang(accepted=True)])
    await service.api.submit(MODEL, other)
    await until(lambda: stuck.in_flight and plan.jobs)
    stopped = await service.terminate()
    assert stopped.code == 0 and CUT_OFF not in service.log(), service.log(tail=30)
    await service.restart()
    assert (await service.api.task(task["id"]))["status"] == "succeeded"
    await service.close()


async def test_web_and_worker_are_two_processes_on_one_database(world: World) -> None:
    web = await world.start(command="web")
    worker = world.service({"TASKHOOK_PUBLIC_URL": web.url}, beside=web, command="worker")
    await worker.start()
    prompt, fake = new_prompt(), world.fluxapi_ai
    subscriber = world.receiver.subscriber("two-processes")
    await web.api.endpoint(subscriber.url)
    fake.script(prompt, callback="success")
    task = await web.api.submit(MODEL, prompt)
    assert (await web.api.finished(task["id"]))["status"] == "succeeded"
    await until(lambda: subscriber.of(task["id"]))
    assert (await worker.terminate()).code == 0
    assert (await web.terminate()).code == 0


async def test_a_delivery_killed_while_the_subscriber_held_it_is_sent_again_under_the_same_id(
    held: tuple[Subscriber, str],
) -> None:
    subscriber, secret = held
    await until(lambda: len(subscriber.received) == 2, what="the event a second time")
    assert len({one.id for one in subscriber.received}) == 1
    for one in subscriber.received:
        assert one.verify(secret)["type"] == "task.succeeded"
