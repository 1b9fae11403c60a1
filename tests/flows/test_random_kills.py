"""The process killed again and again at random moments, under load: nothing is lost, and nothing submitted twice."""

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("random kills")]


async def submitted(service: Service, prompt: str, key: str) -> str:
    """The task's id, from a caller who asks again under one key until there is an answer."""

    async def answered() -> str | None:
        try:
            reply = await service.api.post_task("acedata/flux-dev", prompt, key=key, timeout_s=30)
        except httpx.TransportError:
            return None
        return reply.json()["id"] if reply.status_code in (200, 202) else None

    return await until(answered, 30, f"an answer for {key}")


async def killed_at_random(service: Service, dice: random.Random, accepted: dict[str, str], submitting: Any) -> None:
    """Four kills, each a random moment after some more tasks were accepted."""
    for _ in range(4):
        seen = len(accepted)
        await until(lambda seen=seen: submitting.done() or len(accepted) >= seen + 15, 30, "more tasks")
        await asyncio.sleep(dice.uniform(0.05, 0.8))
        await service.restart()


@pytest.mark.timeout(240)
async def test_kills_at_random_moments_lose_no_task_and_submit_none_twice(world: World) -> None:
    fake = world.acedata
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    service = await world.start({"TASKHOOK_CALLBACK_GRACE_S": "3"})
    subscriber = world.receiver.subscriber("random")
    await service.api.endpoint(subscriber.url, max_in_flight=50)
    fake.script_rest(callback="success", callback_delay=0.3, callback_tries=60)
    accepted: dict[str, str] = {}

    async def submit_all() -> None:
        for number in range(240):
            prompt = new_prompt("one of many")
            accepted[await submitted(service, prompt, f"random-{number}")] = prompt

    submitting = asyncio.create_task(submit_all())
    await killed_at_random(service, random.Random(seed), accepted, submitting)
    await submitting
    assert len(accepted) == 240

    async def all_final() -> list[dict[str, Any]] | None:
        tasks = await service.api.pages("/v1/tasks", limit=100)
        return tasks if all(task["status"] in FINAL for task in tasks) else None

    tasks = await until(all_final, 60, f"every task final, seed {seed}")
    assert {task["id"] for task in tasks} == set(accepted)
    twice = {prompt: len(plan.submits) for prompt, plan in fake.plans.items() if len(plan.submits) > 1}
    assert twice == {}, f"seed {seed}"
    for task in tasks:
        # A submit that was cut before the provider had read it exists nowhere: it ended at its deadline.
        lost = accepted[task["id"]] not in fake.plans
        assert task["status"] == ("failed" if lost else "succeeded"), (task, f"seed {seed}")
        assert not lost or task["error"]["code"] == "submit_unconfirmed", (task, f"seed {seed}")
    assert sum(task["status"] == "succeeded" for task in tasks) > 150
    finals = Counter(event["data"]["id"] for event in await service.api.finals())
    assert finals == Counter(set(accepted)), f"seed {seed}"
    await until(
        lambda: {one.task_id for one in subscriber.received} == set(accepted), 60, f"every event delivered, seed {seed}"
    )
    await service.close()
