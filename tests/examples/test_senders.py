"""Every sender among the examples, run against a real service: the loop that polls, what replaces it, and a batch."""

import asyncio
import csv
from pathlib import Path

import httpx

from service.core.signing import PREFIX, derive_secret
from tests.examples.conftest import EXAMPLES, MODEL, Scene, python, started
from tests.support.service import SECRET_KEY
from tests.support.wait import PATIENCE_S, until


async def test_before_and_after_print_a_picture(scene: Scene, tmp_path: Path) -> None:
    key = derive_secret(f"sandbox {SECRET_KEY}").removeprefix(PREFIX)
    provider = {"PROVIDER_URL": f"{scene.url}/sandbox/flux-context", "PROVIDER_API_KEY": key}

    async def printed(script: str, env: dict[str, str]) -> list[str]:
        command = python(EXAMPLES / "polling" / script, "a lighthouse at dusk")
        async with started(*command, env=scene.environment(**env), cwd=tmp_path) as process:
            assert await process.ended() == 0, process
        return process.lines

    pictures = await asyncio.gather(printed("before.py", provider), printed("after.py", {}))
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        for (url,) in pictures:
            assert (await client.get(url)).headers["content-type"].startswith("image/")


async def test_a_batch_that_is_killed_and_run_again_makes_each_picture_once(scene: Scene, tmp_path: Path) -> None:
    prompts, pictures = tmp_path / "prompts.csv", tmp_path / "pictures.csv"
    rows = [{"id": f"row {n}", "model": MODEL, "prompt": f"picture {n}"} for n in range(6)]
    rows[4]["prompt"] = "sandbox:moderated"
    rows[5]["model"] = "nobody/nothing"
    with prompts.open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "model", "prompt"])
        table.writeheader()
        table.writerows(rows)
    command, env = python(EXAMPLES / "python" / "batch.py", prompts, pictures), scene.environment()

    async def made() -> list[str]:
        return [task.id async for task in client.tasks.list(metadata={"batch": "prompts"})]

    async with scene.client() as client:
        async with started(*command, env=env, cwd=tmp_path):
            await until(made, what="the first task was created")
        async with started(*command, env=env, cwd=tmp_path) as process:
            assert await process.ended() == 0, process
        assert len(await made()) == 5
    results = {row["id"]: row for row in csv.DictReader(pictures.read_text().splitlines())}
    assert set(results) == {row["id"] for row in rows}
    assert all(results[f"row {n}"]["url"].startswith(scene.url) for n in range(4))
    assert "content_policy" in results["row 4"]["error"]
    assert "422" in results["row 5"]["error"]
