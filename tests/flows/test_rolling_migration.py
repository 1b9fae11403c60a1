"""Two versions of Taskhook on one PostgreSQL while the newer one changes the schema: no error, no lost task."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.flows.conftest import World
from tests.support.api import new_prompt
from tests.support.postgres import database, shared_server
from tests.support.process import ROOT
from tests.support.replicas import of_one_process
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("rolling")]

MODEL = "fluxapi-ai/flux-kontext-pro"
EXPAND = {
    "9001_notes.sql": "-- runs with: 0006\nalter table tasks add column note text;\ncreate table notes (id text);",
    "9002_index.postgresql.sql": "-- runs with: 0006\n-- outside of a transaction\n"
    "drop index concurrently if exists tasks_by_step;\ncreate index concurrently tasks_by_step on tasks (step);",
}
CONTRACT = {"9003_no_notes.sql": "-- runs with: 9001\nalter table tasks drop column note;"}


def later_version(folder: Path, scripts: dict[str, str]) -> Path:
    """A copy of the code that has more migrations."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "service", folder / "service", ignore=ignored, dirs_exist_ok=True)
    for name, script in scripts.items():
        (folder / "service" / "store" / "migrations" / name).write_text(script)
    return folder


@of_one_process("it starts each version itself, on PostgreSQL in any case")
async def test_both_versions_serve_while_one_changes_the_schema(world: World, tmp_path: Path) -> None:
    fake = world.fluxapi_ai
    async with database(shared_server()) as url:
        old = await world.start({"TASKHOOK_DATABASE_URL": url})
        newer = later_version(tmp_path / "newer", EXPAND)
        new = world.service({"TASKHOOK_DATABASE_URL": url, "PYTHONPATH": str(newer)}, beside=old)
        accepted: list[str] = []
        stop = asyncio.Event()

        async def use(services: list[Service]) -> None:
            while not stop.is_set():
                for service in services:
                    prompt = new_prompt()
                    fake.script(prompt, callback="success")
                    task = await service.api.submit(MODEL, prompt)
                    accepted.append(task["id"])
                    await service.api.task(task["id"])
                    await service.client.get("/v1/tasks", params={"status": "succeeded"})

        using = [asyncio.create_task(use([old])) for _ in range(2)]
        await new.start()
        assert "9002_index" in new.log()
        using.append(asyncio.create_task(use([old, new])))
        count = len(accepted)
        await until(lambda: len(accepted) > count + 15)
        stop.set()
        await asyncio.gather(*using)
        await old.terminate()
        await old.start()
        assert "store.newer" in old.log()
        for task_id in accepted:
            assert (await old.api.finished(task_id))["status"] == "succeeded"
        finals = [event["data"]["id"] for event in await new.api.finals()]
        assert sorted(finals) == sorted(accepted)
        await new.terminate()
        later_version(newer, CONTRACT)
        await new.start()
        await old.terminate()
        old.log_path.unlink()
        await old.launch()
        assert old.process is not None and await old.process.wait() == 1
        assert [line for line in old.log().splitlines() if "newer version" in line and "9003_no_notes" in line]
        await new.close()
        await old.close()
