"""The running service against its own OpenAPI document: good requests, bad ones and sequences of them, all checks on.

Providers and subscribers are the sandbox. FUZZ=20 sends twenty times as many, and others each time.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.fuzz import FACTOR, SEED
from tests.support.process import ROOT
from tests.support.service import API_KEY, Service

EXAMPLES = 3
HELD_S = 30
"""A request may be held that long: `wait` asks for it."""
SETTINGS = """
hooks = "tests.fuzz.api_checks"
[checks]
positive_data_acceptance = { expected-statuses = [200, 201, 202, 204, 403, 404, 409, 422] }
"""
STREAM = "/v1/events/stream"
TASK_STREAM = "/v1/tasks/{id}/stream"


@pytest.mark.timeout(600 * FACTOR)
@pytest.mark.parametrize("phases", ["examples,coverage,fuzzing", "stateful"])
async def test_the_api_does_what_its_document_says_whatever_is_sent(tmp_path: Path, phases: str) -> None:
    service = await Service(tmp_path, env={"TASKHOOK_SANDBOX": "true"}).start()
    try:
        code, told = await run_over(service, tmp_path, phases)
        assert "request.failed" not in service.log(), service.log(tail=40)
    finally:
        await service.close()
    assert code == 0, told


async def run_over(service: Service, directory: Path, phases: str) -> tuple[int, str]:
    """As a process of its own: the exit code, and what it told."""
    settings = directory / "schemathesis.toml"
    settings.write_text(SETTINGS)
    chosen = ["--generation-deterministic"] if FACTOR == 1 else ["--seed", str(SEED)]
    run = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"),
        *("--config-file", settings, "--no-color", "run", f"{service.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {API_KEY}"),
        *("--checks", "all", "--phases", phases, "--max-examples", str(EXAMPLES * FACTOR), *chosen),
        *(
            "--exclude-path",
            STREAM,
            "--exclude-path",
            TASK_STREAM,
            "--request-timeout",
            str(2 * HELD_S),
            "--continue-on-failure",
        ),
        cwd=directory,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), "NO_PROXY": "*"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await run.communicate()
    assert run.returncode is not None
    return run.returncode, told.decode()
