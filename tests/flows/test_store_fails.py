"""The store fails under a running service: what was answered is kept, the rest gets 503, and it heals by itself."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.wiring import Timings
from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt
from tests.support.process import run_python
from tests.support.replicas import of_one_process
from tests.support.service import Service
from tests.support.upstream import Plan
from tests.support.wait import soon, until

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("store fails"),
    of_one_process("about the file of SQLite; tests/replicas has PostgreSQL failing"),
]

MODEL = "fluxapi-ai/flux-kontext-pro"
LOGS_MAX = 80


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"}, timings=Timings(lock_wait_s=1.5))


class Asked:
    """Callers that go on asking while the store is away, and what each was answered."""

    def __init__(self, service: Service, world: World) -> None:
        self.service = service
        self.fake = world.fluxapi_ai
        self.accepted: list[str] = []
        self.refused: list[httpx.Response] = []

    async def post(self, timeout_s: float = 60) -> int:
        prompt = new_prompt()
        self.fake.script(prompt, callback="success", callback_tries=100)
        reply = await self.service.api.post_task(MODEL, prompt, timeout_s=timeout_s)
        if reply.status_code == 202:
            self.accepted.append(reply.json()["id"])
        else:
            self.refused.append(reply)
        return reply.status_code

    def check_refusals(self) -> None:
        assert self.refused, "nothing failed, so nothing was tested"
        for reply in self.refused:
            assert reply.status_code == 503, (reply.status_code, reply.text)
            assert int(reply.headers["retry-after"]) >= 1

    async def all_ended(self) -> None:
        for task_id in self.accepted:
            assert (await self.service.api.finished(task_id))["status"] == "succeeded"
        assert self.service.log().count('"level":"error"') < LOGS_MAX
        assert self.service.log().count('"level":"warning"') < LOGS_MAX


async def readyz(service: Service) -> int:
    return (await service.client.get("/readyz")).status_code


async def red(service: Service) -> None:
    async def not_ready() -> bool:
        return await readyz(service) == 503

    await until(not_ready, what="/readyz red")


async def running(service: Service, world: World) -> tuple[dict[str, Any], Plan]:
    """A task that its provider has, and that no callback has ended yet."""
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt)
    task = await service.api.submit(MODEL, prompt, timeout_s=120)
    await service.api.accepted(task["id"])
    return task, plan


async def test_a_locked_database_is_told_at_once_and_heals(world: World, service: Service) -> None:
    asked = Asked(service, world)
    await asked.post()
    task, plan = await running(service, world)
    with closing(sqlite3.connect(service.directory / "taskhook.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        asking = [asyncio.create_task(asked.post()) for _ in range(40)]
        calling = asyncio.create_task(world.fluxapi_ai.callback(plan.job))
        await red(service)
        assert set(await asyncio.gather(*asking)) == {503}
        assert (await calling).status == 503, "a 200 for what is not stored"
        assert await asked.post() == 503
        other.execute("rollback")
    asked.check_refusals()
    await service.ready()
    assert (await world.fluxapi_ai.callback(plan.job)).status == 200
    assert (await service.api.finished(task["id"]))["status"] == "succeeded"
    assert await asked.post() == 202
    await asked.all_ended()


async def test_a_disk_that_takes_no_more_loses_nothing_and_heals(world: World, service: Service) -> None:
    """A limit on the size of files is an I/O error to the database, and to the log."""
    asked = Asked(service, world)
    for _ in range(3):
        await asked.post()
    task, plan = await running(service, world)
    assert service.process is not None
    pid, lifted = service.process.pid, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        assert await asked.post() == 503
        assert (await world.fluxapi_ai.callback(plan.job)).status == 503
        await red(service)
        assert (await service.client.get(f"/v1/tasks/{task['id']}")).json()["status"] == "running", "reads go on"
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, lifted)
    asked.check_refusals()
    await service.ready()
    assert (await world.fluxapi_ai.callback(plan.job)).status == 200
    assert await asked.post() == 202
    await asked.all_ended()


@contextmanager
def small_disk(folder: Path, size: str, *options: str) -> Iterator[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip("a file system of a small size can be made by root alone")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


async def test_a_full_disk_loses_nothing_and_heals_when_space_returns(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        address = f"sqlite:///{disk / 'taskhook.db'}"
        service = await world.start({"TASKHOOK_DATABASE_URL": address, "TASKHOOK_CALLBACK_GRACE_S": "60"})
        asked = Asked(service, world)
        await asked.post()
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(bytes(4096))
        for _ in range(200):
            if await asked.post() == 503:
                break
        await red(service)
        asked.check_refusals()
        ballast.unlink()
        await service.ready()
        assert await asked.post() == 202
        await asked.all_ended()
        with closing(sqlite3.connect(disk / "taskhook.db")) as database:
            assert database.execute("pragma integrity_check").fetchone() == ("ok",)
        await service.close()


async def test_a_database_file_that_was_deleted_is_written_back(world: World) -> None:
    service = await world.start()
    asked = Asked(service, world)
    await asked.post()
    for name in ("taskhook.db", "taskhook.db-wal", "taskhook.db-shm"):
        (service.directory / name).unlink()
    assert await asked.post() == 202
    await asked.all_ended()
    await service.restart()
    assert {task["id"] for task in await service.api.pages("/v1/tasks")} == set(asked.accepted)
    assert "store.written_back" in service.log()
    await service.close()


async def fails_to_start(service: Service) -> str:
    """The one line that it says."""
    await service.launch()
    assert service.process is not None
    code = await soon(service.process.wait())
    lines = [line for line in service.log().splitlines() if line]
    assert (code, len(lines)) == (1, 1), (code, lines)
    return lines[0]


async def test_a_start_with_a_damaged_file_says_so_in_one_line(world: World) -> None:
    service = world.service()
    (service.directory / "taskhook.db").write_bytes(b"what somebody else wrote" * 1000)
    said = await fails_to_start(service)
    assert "damaged" in said and "backup" in said


async def test_a_start_on_a_newer_database_says_so_in_one_line(world: World) -> None:
    service = await world.start()
    await service.terminate()
    with closing(sqlite3.connect(service.directory / "taskhook.db")) as database:
        database.execute("insert into migrations (name, applied_ms) values ('9999_future', 1)")
        database.commit()
    service.log_path.unlink()
    said = await fails_to_start(service)
    assert "newer version" in said and "9999_future" in said


async def test_a_start_on_a_read_only_file_system_says_so_in_one_line(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "3m", "ro") as disk:
        service = world.service({"TASKHOOK_DATABASE_URL": f"sqlite:///{disk / 'taskhook.db'}"})
        assert "can't be used" in await fails_to_start(service)


async def test_a_backup_made_under_load_is_restored_by_putting_it_in_place(world: World, tmp_path: Path) -> None:
    service = await world.start()
    asked = Asked(service, world)
    for _ in range(5):
        await asked.post(timeout_s=3)
    before = set(asked.accepted)
    copy = tmp_path / "copies" / "taskhook.db"
    posts = [asyncio.create_task(asked.post(timeout_s=3)) for _ in range(30)]
    made = await run_command(service, "backup", str(copy))
    await asyncio.gather(*posts)
    assert made.startswith(f"{copy}: ")
    await service.terminate()
    for file in service.directory.glob("taskhook.db*"):
        file.unlink()
    shutil.copy(copy, service.directory / "taskhook.db")
    await service.restart()
    found = {task["id"]: task for task in await service.api.pages("/v1/tasks")}
    assert before <= found.keys() <= set(asked.accepted)
    for task_id in found:
        assert (await service.api.finished(task_id))["status"] in FINAL
    assert len(await service.api.finals()) == len(found)
    await service.close()


async def run_command(service: Service, *words: str) -> str:
    ended = await run_python("service", *words, cwd=service.directory, env=service.env)
    assert ended.code == 0, ended
    return ended.out + ended.err


async def test_a_backup_that_cannot_be_made_says_so_in_one_line(world: World, tmp_path: Path) -> None:
    service = world.service()
    with pytest.raises(AssertionError, match="names a file that is not there"):
        await run_command(service, "backup", str(tmp_path / "copy.db"))
    assert not list(tmp_path.glob("copy*"))
