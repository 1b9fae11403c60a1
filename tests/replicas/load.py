"""Load that keeps its accounts: callbacks sent until they are taken, clients that follow, and what became of it all."""

import asyncio
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from tests.support.api import FINAL, new_prompt
from tests.support.replicas import Replicas
from tests.support.upstream import CallbackAnswer, FakeProvider, Plan
from tests.support.wait import until

TIMES = int(os.environ.get("REPLICAS_TIMES", "1"))
"""How much longer and larger than in the default suite."""
AT_ONCE = 4


class Callbacks:
    """A provider that calls back about its tasks, one after the other and again from the first, until it is stopped."""

    def __init__(self, replicas: Replicas, fake: FakeProvider) -> None:
        self.replicas = replicas
        self.fake = fake
        self.plans: dict[str, Plan] = {}
        self.taken: set[str] = set()
        self.times: list[float] = []
        """When one was taken."""
        self.refused: list[CallbackAnswer] = []

    async def prepare(self, count: int, **rest: Any) -> None:
        """That many tasks that the provider has accepted."""
        self.plans |= await asyncio.gather(*(running(self.replicas, self.fake, **rest) for _ in range(count)))

    @asynccontextmanager
    async def sent(self) -> AsyncIterator[None]:
        waiting = asyncio.Queue[str]()
        for task_id in self.plans:
            waiting.put_nowait(task_id)

        async def caller() -> None:
            while True:
                task_id = await waiting.get()
                await self.send(task_id)
                waiting.put_nowait(task_id)
                await asyncio.sleep(0.02)

        callers = [asyncio.create_task(caller()) for _ in range(AT_ONCE)]
        try:
            yield
        finally:
            for one in callers:
                one.cancel()
            await asyncio.gather(*callers, return_exceptions=True)

    async def send(self, task_id: str) -> CallbackAnswer:
        answer = await self.fake.callback(self.plans[task_id].job)
        if answer.status == 200:
            self.taken.add(task_id)
            self.times.append(time.monotonic())
        else:
            self.refused.append(answer)
        return answer

    async def taken_again(self, count: int = 20) -> None:
        """So many more callbacks were answered 200, of whatever task."""
        before = len(self.times)
        await until(lambda: len(self.times) >= before + count, what="callbacks taken again")

    def longest_gap_s(self, since: float) -> float:
        """The longest time from then on in which none was taken."""
        times = [since, *(at for at in self.times if at > since)]
        return max(after - before for before, after in itertools.pairwise(times))

    def check_refusals(self) -> None:
        """Check that every refused request got a Retry-After."""
        wrong = [answer for answer in self.refused if answer.status != 503 or not int(answer.retry_after or 0) >= 1]
        assert not wrong, wrong[:5]

    async def check(self) -> None:
        """Every callback that was answered 200 is there, and ended its task with one event; none was sent twice."""
        await check_ends(self.replicas, set(self.taken), "succeeded")
        assert {len(plan.submits) for plan in self.plans.values()} == {1}


async def running(replicas: Replicas, fake: FakeProvider, **rest: Any) -> tuple[str, Plan]:
    """A task that its provider has. The provider is asked first, since it costs the service nothing."""
    plan = fake.script(new_prompt(), poll=["success"])
    task = await replicas.api.submit(f"{fake.provider}/{fake.default_model}", plan.prompt, **rest)
    await until(lambda: plan.jobs, what="the task at its provider")
    await replicas.api.accepted(task["id"])
    return task["id"], plan


class Follower:
    """A client of the event stream that goes on where it was, wherever the balancer sends it, as browsers do."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self.ids: list[str] = []
        self.opened: list[float] = []
        """When each of its connections was open."""

    async def follow(self) -> None:
        while True:
            with suppress(httpx.TransportError, AssertionError):
                async with self._replicas.api.stream(self.ids[-1] if self.ids else None) as stream:
                    self.opened.append(time.monotonic())
                    while True:
                        self.ids.append((await stream.next()).id)
            await asyncio.sleep(0.05)


@asynccontextmanager
async def followed(replicas: Replicas, count: int) -> AsyncIterator[list[Follower]]:
    """So many clients of the event stream, all of them connected."""
    followers = [Follower(replicas) for _ in range(count)]
    following = [asyncio.create_task(one.follow()) for one in followers]
    try:
        await until(lambda: all(one.opened for one in followers), what="every stream open")
        yield followers
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


async def check_told(followers: list[Follower], told: list[str]) -> None:
    """Each got these events, in this order, none twice."""
    with suppress(AssertionError):
        await until(lambda: all(one.ids[-1:] == told[-1:] for one in followers))
    for one in followers:
        assert one.ids == told


async def check_ends(replicas: Replicas, ids: set[str], status: str | None = None) -> list[dict[str, Any]]:
    """Each of these tasks has ended, with exactly one event about it; those events."""
    finals = [event for event in await replicas.api.finals() if event["data"]["id"] in ids]
    assert Counter(event["data"]["id"] for event in finals) == Counter(ids)
    tasks = {task["id"]: task for task in await replicas.api.pages("/v1/tasks", limit=100)}
    for event in finals:
        task = tasks[event["data"]["id"]]
        assert task["status"] in FINAL and event["type"] == f"task.{task['status']}"
        assert status in (None, task["status"]), task
    return finals


async def readiness(replicas: Replicas) -> set[int]:
    """Return the answer of each web's /readyz."""
    found = await asyncio.gather(*(web.client.get("/readyz") for web in replicas.webs))
    return {reply.status_code for reply in found}


async def becomes(replicas: Replicas, status: int) -> None:
    async def there() -> bool:
        try:
            return await readiness(replicas) == {status}
        except httpx.TransportError:
            return False

    await until(there, what=f"/readyz of both webs {status}")


def still_the_same(replicas: Replicas, pids: list[int]) -> bool:
    """No process of ours was started anew."""
    running = [one.process for one in replicas.all if one.process is not None and one.process.returncode is None]
    return [process.pid for process in running] == pids


def pids_of(replicas: Replicas) -> list[int]:
    return [one.process.pid for one in replicas.all if one.process is not None]
