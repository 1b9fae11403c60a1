"""A provider that is down in any way: its tasks wait and do not fail, it is tried gently, and all goes on after it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import new_prompt, ok
from tests.support.server import Answer, Drip, Endless, Reply
from tests.support.service import Service
from tests.support.upstream import FakeProvider, answer
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("provider down")]

OPENS_AFTER = 5
DOWN: dict[str, Answer] = {
    "html": Reply(502, "<html>Bad gateway</html>"),
    "html with 200": Reply(200, "<html>We will be back soon</html>"),
    "empty": Reply(200, b""),
    "huge": Endless(200),
    "deeply nested": Reply(200, b"[" * 100_000),
    "nested objects": Reply(200, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "invalid utf-8": Reply(200, b'{"status": "\xff\xfe'),
    "not a number": Reply(200, b'{"taskId": NaN}'),
    "cut": Drip(Reply(200, b"x" * 50), 0.001),
    "an error of its own": Reply(500, json.dumps({"error": "Internal server error"}).encode()),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_POLL_MAX_S": "0.3"})


async def circuit(service: Service, provider: str) -> dict[str, Any]:
    found = ok(await service.client.get("/v1/providers"))["data"]
    (view,) = [one for one in found if one["id"] == provider]
    assert (view["circuit"]["state"] == "closed") == (view["circuit"]["since"] is None)
    assert view["healthy"] is (view["circuit"]["state"] == "closed")
    return view["circuit"]


async def in_circuit(service: Service, provider: str, *states: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found = await circuit(service, provider)
        return found if found["state"] in states else None

    return await until(there, what=f"{provider} {states}")


async def tracked(service: Service, fake: FakeProvider, count: int) -> list[str]:
    ids = []
    for _ in range(count):
        prompt = new_prompt()
        fake.script(prompt)
        task = await service.api.submit(f"{fake.provider}/{fake.default_model}", prompt, timeout_s=90)
        ids.append((await service.api.accepted(task["id"]))["id"])
    return ids


@pytest.mark.parametrize("kind", DOWN)
async def test_an_answer_that_says_nothing_counts_against_the_account_and_a_good_one_clears_it(
    world: World, service: Service, kind: str
) -> None:
    fake = world.flux_context
    (task_id,) = await tracked(service, fake, 1)
    fake.down = DOWN[kind]

    async def failures(least: int, most: int) -> bool:
        return least <= (await circuit(service, "flux-context"))["failures"] <= most

    try:
        await until(lambda: failures(2, OPENS_AFTER), what="failures counted")
    finally:
        fake.down = None
    await until(lambda: failures(0, 0), what="failures cleared")
    for job in fake.jobs.values():
        job.state = "success"
    assert (await service.api.finished(task_id))["status"] == "succeeded"


async def test_tasks_wait_while_the_circuit_is_open_and_all_succeed_after_it(world: World, service: Service) -> None:
    """With tasks to poll, polls find out: no submit is spent on a provider that can't answer."""
    fake = world.flux_context
    ids = await tracked(service, fake, 3)
    fake.down = DOWN["html"]
    opened = await in_circuit(service, "flux-context", "open", "half_open")
    assert opened["failures"] >= OPENS_AFTER and opened["next_probe_at"]
    model = "flux-context/flux-kontext-pro"
    ids += [(await service.api.submit(model, new_prompt(), timeout_s=90))["id"] for _ in range(5)]
    calls = len(fake.server.requests)
    why = ok(await service.client.get(f"/v1/tasks/{ids[-1]}/why"))
    assert "has not answered properly" in why["next"], why
    await asyncio.sleep(0.5)
    assert len(fake.server.requests) - calls <= 1, "one task at a time tries it"
    assert {(await service.api.task(task_id))["status"] for task_id in ids[3:]} == {"queued"}
    fake.down = None
    await in_circuit(service, "flux-context", "closed")

    async def all_ended() -> bool:
        for job in fake.jobs.values():
            job.state = "success"
        return {(await service.api.task(task_id))["status"] for task_id in ids} == {"succeeded"}

    await until(all_ended, 30, "every task succeeded")
    assert max(len(plan.submits) for plan in fake.plans.values()) == 1


async def test_a_provider_that_cannot_be_reached_fails_no_task(world: World, service: Service) -> None:
    fake = world.fluxapi_ai
    fake.script_rest(callback="success")
    await fake.server.close()
    ids = [
        (await service.api.submit("fluxapi-ai/flux-kontext-pro", new_prompt(), timeout_s=90))["id"] for _ in range(8)
    ]
    await in_circuit(service, "fluxapi-ai", "open")
    assert "account.opened" in service.log()
    metrics = (await service.client.get("/metrics")).text
    assert 'taskhook_account_circuit_open{account="default",provider="fluxapi-ai"} 1.0' in metrics
    await fake.server.listen()
    for task_id in ids:
        assert (await service.api.finished(task_id))["status"] == "succeeded"
    assert (await circuit(service, "fluxapi-ai"))["state"] == "closed"
    assert {len(plan.submits) for plan in fake.plans.values()} == {1}
    await until(lambda: "account.closed" in service.log())


async def test_the_deadline_holds_while_the_circuit_is_open(world: World, service: Service) -> None:
    fake = world.acedata
    prompts = [new_prompt() for _ in range(OPENS_AFTER)]
    for prompt in prompts:
        fake.script(prompt, submit=[answer(Reply(503, "down"))] * 3)
    first = [(await service.api.submit("acedata/flux-dev", prompt, timeout_s=6))["id"] for prompt in prompts]
    await in_circuit(service, "acedata", "open")
    late = (await service.api.submit("acedata/flux-dev", new_prompt(), timeout_s=2))["id"]
    task = await service.api.finished(late)
    assert (task["status"], task["tracking"]["via"]) == ("failed", "deadline")
    for task_id in first:
        await service.api.finished(task_id)
    assert len(await service.api.finals(late)) == 1
