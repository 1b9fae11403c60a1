"""Short rounds of chaos, and what they measure; `make chaos` runs long ones."""

import asyncio
import random
import re
from pathlib import Path

import pytest

from tests.chaos.faults import Clock
from tests.chaos.rounds import Plan, Round
from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("chaos")]

TASK_KB = 50
"""What a task that has ended may leave in memory, warm-up included; it is about 10."""
WINDOW_S = 0.25
"""Far above what it takes: 10 to 20 ms where nothing else runs."""


async def test_kills_at_random_moments_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    plan = Plan(seed=random.randrange(1 << 32), tasks=100, kills=3)
    print(plan)
    figures = await Round(plan, tmp_path).run()
    print(figures)
    assert figures.faults == [], plan
    assert (figures.tasks, figures.kills) == (100, 3)


async def test_replicas_killed_at_random_moments_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    plan = Plan(seed=random.randrange(1 << 32), tasks=60, kills=3, on_replicas=True)
    print(plan)
    figures = await Round(plan, tmp_path).run()
    print(figures)
    assert figures.faults == [], plan
    assert (figures.tasks, figures.kills) == (60, 3)


async def test_the_window_in_which_a_kill_leaves_a_submit_unknown_is_short(world: World) -> None:
    """From the commit that says it is being sent to the commit of its outcome; the provider here answers at once."""
    service = await world.start()
    world.fluxapi_ai.script_rest()
    for _ in range(20):
        task = await service.api.submit("fluxapi-ai/flux-kontext-pro", new_prompt())
        await service.api.accepted(task["id"])
    metrics = (await service.client.get("/metrics")).text
    count, total_s = (
        float(
            re.findall(
                rf'taskhook_submit_window_seconds_{part}{{account="default",provider="fluxapi-ai"}} (\S+)', metrics
            )[0]
        )
        for part in ("count", "sum")
    )
    print(f"window: {total_s / count * 1000:.1f} ms in the mean of {count:.0f}")
    assert count == 20 and total_s / count < WINDOW_S
    await service.close()


@pytest.mark.skipif(not Clock.is_possible(), reason="the clock of a process is set by a C library, which needs cc")
async def test_a_clock_that_jumps_an_hour_either_way_sticks_no_task_and_storms_no_provider(
    world: World, tmp_path: Path
) -> None:
    clock, fake = Clock(tmp_path), world.flux_context
    service = await world.start({**clock.build(), "TASKHOOK_CALLBACK_GRACE_S": "60"})
    plans = [fake.script(new_prompt(), poll=["running"]) for _ in range(10)]
    ids = []
    for plan in plans:
        ids.append((await service.api.submit("flux-context/flux-kontext-pro", plan.prompt, timeout_s=7200))["id"])
        await service.api.accepted(ids[-1])
    subscriber = world.receiver.subscriber("clock", [])
    await service.api.endpoint(subscriber.url)
    for seconds in (3600, 0, -3600):
        clock.set(seconds)
        polled = [len(plan.poll_requests) for plan in plans]
        await asyncio.sleep(1.5)
        more = [len(plan.poll_requests) - before for plan, before in zip(plans, polled, strict=True)]
        assert min(more) >= 1, f"stuck after a jump to {seconds}: {more}"
        assert max(more) <= 12, f"a storm after a jump to {seconds}: {more}"
        assert (await service.client.get("/readyz")).status_code == 200
    for plan in plans:
        plan.polls.clear()
        plan.job.state = "success"
    for task_id in ids:
        assert (await service.api.finished(task_id))["status"] == "succeeded"
    await until(lambda: {one.task_id for one in subscriber.received} == set(ids))
    await service.close()


def memory_kb(service: Service) -> int:
    assert service.process is not None
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def open_files(service: Service) -> int:
    assert service.process is not None
    return len(list(Path(f"/proc/{service.process.pid}/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory and files are read from /proc")
async def test_a_soak_leaves_memory_files_and_the_log_of_the_database_flat(world: World) -> None:
    service = await world.start()
    world.acedata.script_rest(callback="success", callback_tries=5)
    subscriber = world.receiver.subscriber("soak")
    await service.api.endpoint(subscriber.url, max_in_flight=50)

    async def some(count: int) -> None:
        gate = asyncio.Semaphore(20)

        async def one() -> None:
            async with gate:
                task = await service.api.submit("acedata/flux-dev", new_prompt())
                assert (await service.api.finished(task["id"], wait=5))["status"] in FINAL

        await asyncio.gather(*(one() for _ in range(count)))

    await some(60)
    memory, files = memory_kb(service), open_files(service)
    await some(100)
    assert memory_kb(service) < memory + 100 * TASK_KB, "memory grows with the tasks that went by"
    assert open_files(service) <= files + 30
    assert (service.directory / "taskhook.db-wal").stat().st_size < 16 << 20
    await service.close()
