"""Ten times what the service was set to take, over real sockets: each request is kept or told to come again."""

import asyncio
from collections import Counter

import httpx
import pytest

from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.service import API_KEY
from tests.support.upstream import Plan
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("overload")]

CAPACITY = 4


async def test_a_burst_of_ten_times_the_capacity_loses_nothing_that_was_answered(world: World) -> None:
    service = await world.start({"TASKHOOK_MAX_REQUESTS": str(CAPACITY)})
    fake = world.acedata
    fake.script_rest(callback="success", callback_tries=200)
    answers: list[httpx.Response] = []
    headers = {"Authorization": f"Bearer {API_KEY}"}
    limits = httpx.Limits(max_connections=CAPACITY * 10)
    client = httpx.AsyncClient(
        base_url=service.url, headers=headers, limits=limits, timeout=PATIENCE_S, trust_env=False
    )
    async with client:

        async def caller(number: int) -> None:
            for round_ in range(5):
                body = {"model": "acedata/flux-dev", "input": {"prompt": new_prompt(f"{number}-{round_}")}}
                answers.append(await client.post("/v1/tasks", json=body))

        await asyncio.gather(*(caller(number) for number in range(CAPACITY * 10)))
    counts = Counter(reply.status_code for reply in answers)
    assert set(counts) == {202, 503}, counts
    for reply in answers:
        assert reply.status_code == 202 or int(reply.headers["retry-after"]) >= 1
    accepted = {reply.json()["id"] for reply in answers if reply.status_code == 202}

    async def all_ended() -> bool:
        try:
            return len(await service.api.finals()) == len(accepted)
        except AssertionError:  # the callbacks take all the places
            return False

    await until(all_ended, what="an event for each task that was accepted")
    await until(lambda: all(is_taken(plan) for plan in fake.plans.values()), what="no callback takes a place any more")
    stored = {task["id"]: task["status"] for task in await service.api.pages("/v1/tasks", limit=100)}
    assert stored.keys() == accepted and set(stored.values()) == {"succeeded"}
    assert service.log().count("request.unavailable") <= 20, "one line for each would be a flood"
    assert (await service.client.get("/readyz")).status_code == 200
    await service.close()


def is_taken(plan: Plan) -> bool:
    """Its callback, in the end."""
    return bool(plan.callback_answers) and plan.callback_answers[-1].status == 200


async def test_those_who_wait_or_follow_take_no_place_from_those_who_ask(world: World) -> None:
    service = await world.start({"TASKHOOK_MAX_REQUESTS": str(CAPACITY)})
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", new_prompt(), timeout_s=60)
    path = f"/v1/tasks/{task['id']}"
    async with service.api.stream(), service.api.stream():
        waiting = [asyncio.create_task(service.client.get(path, params={"wait": 30})) for _ in range(CAPACITY * 2)]
        await asyncio.sleep(0.5)
        assert (await service.client.get(path)).status_code == 200
        assert (await service.client.post(f"{path}/cancel")).status_code == 200
        ended = await asyncio.gather(*waiting)
    assert Counter(reply.status_code for reply in ended) <= Counter({200: CAPACITY * 2, 503: CAPACITY * 2})
    assert sum(reply.status_code == 200 for reply in ended) >= CAPACITY
    await service.close()
