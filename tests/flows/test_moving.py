"""An installation moved from SQLite to PostgreSQL in the middle of its work: it goes on there, and nothing twice."""

import asyncio
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.postgres import database, shared_server
from tests.support.process import ROOT
from tests.support.receiver import status
from tests.support.replicas import of_one_process
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("moving")]

MODEL = "fluxapi-ai/flux-kontext-pro"


async def migrate(service: Service, *arguments: str, kill_at: bytes | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "service", "migrate", *arguments),
        cwd=service.directory,
        env={"PYTHONPATH": str(ROOT), **service.env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    said = ""
    async for line in process.stdout:
        said += line.decode()
        if kill_at is not None and kill_at in line:
            process.send_signal(signal.SIGKILL)
    await process.wait()
    return process.returncode or 0, said


def add_rows(file: Path, count: int) -> None:
    """Enough that a kill comes in the middle."""
    with closing(sqlite3.connect(file)) as found:
        found.execute(
            "with recursive n (n) as (select 1 union all select n + 1 from n where n < ?) "
            "insert into faults (id, failures, first_ms, last_ms, reason) "
            "select 'task_' || n, 1, 4000000000000, 4000000000000, 'a' || char(0) || 'b' from n",
            (count,),
        )
        found.commit()


@of_one_process("it moves away from a file of SQLite")
async def test_a_service_moved_in_the_middle_of_its_work_ends_it_elsewhere_and_nothing_twice(world: World) -> None:
    fake = world.fluxapi_ai
    service = await world.start()
    file = service.directory / "taskhook.db"
    subscriber = world.receiver.subscriber("moved", [status(200)] * 3 + [status(503)] * 3)
    endpoint = await service.api.endpoint(subscriber.url)
    prompts = [new_prompt() for _ in range(12)]
    plans = [fake.script(prompt, callback="success" if n < 6 else None) for n, prompt in enumerate(prompts)]
    tasks = [await service.api.submit(MODEL, prompt, key=f"k{n}") for n, prompt in enumerate(prompts)]
    for task in tasks[:6]:
        await service.api.finished(task["id"])
    await until(lambda: all(plan.jobs for plan in plans))
    before = [event["id"] for event in await service.api.events()]
    async with database(shared_server(), migrated=False) as url:
        code, said = await migrate(service, "--from", f"sqlite:///{file}", "--to", url)
        assert code == 1 and "stop it first" in said, said
        await service.terminate()
        add_rows(file, 5_000)
        content = dump(file)
        code, said = await migrate(service, "--from", f"sqlite:///{file}", "--to", url, kill_at=b"tasks: 12 rows")
        assert code == -signal.SIGKILL and "moved" not in said, said
        code, said = await migrate(service, "--from", f"sqlite:///{file}", "--to", url)
        assert code == 0 and "tasks: 12 rows" in said and "faults: 5000 rows" in said, said
        assert dump(file) == content
        code, said = await migrate(service, "--from", f"sqlite:///{file}", "--to", url)
        assert code == 1 and "not empty" in said, said
        service.env["TASKHOOK_DATABASE_URL"] = url
        code, said = await migrate(service, "--check")
        assert (code, said) == (0, "The database is up to date.\n")
        await service.start()
        for plan in plans[6:]:
            await fake.callback(plan.job)
        ended = [await service.api.finished(task["id"]) for task in tasks]
        assert {task["status"] for task in ended} == {"succeeded"}
        assert [len(plan.submits) for plan in plans] == [1] * 12
        again = await service.api.post_task(MODEL, prompts[0], key="k0")
        assert (again.status_code, again.json()["id"]) == (200, tasks[0]["id"])
        events = await service.api.events()
        assert [event["id"] for event in events[: len(before)]] == before
        finals = Counter(event["data"]["id"] for event in await service.api.finals())
        assert finals == Counter(task["id"] for task in tasks)
        await until(lambda: len({got.task_id for got in subscriber.received}) == 12)
        assert (await service.api.get_endpoint(endpoint["id"]))["url"] == subscriber.url
        await service.close()


def dump(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as found:
        return list(found.iterdump())
