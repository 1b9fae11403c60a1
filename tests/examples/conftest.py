"""The examples as processes of their own, among a real service with its sandbox and an event that it has published."""

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from taskhook import AsyncTaskhook, Task

from tests.support.process import ROOT
from tests.support.server import Request
from tests.support.service import API_KEY, Service
from tests.support.wait import patience

EXAMPLES = ROOT / "examples"
MODEL = "fluxapi-ai/flux-kontext-pro"


@dataclass(frozen=True)
class Scene:
    """A running service, and a task that succeeded before anybody subscribed."""

    url: str
    directory: Path
    task: Task

    def client(self) -> AsyncTaskhook:
        return AsyncTaskhook(API_KEY, base_url=self.url)

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        own = {"TASKHOOK_URL": self.url, "TASKHOOK_API_KEY": API_KEY, "PYTHONUNBUFFERED": "1"}
        return inherited | own | more


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("examples")
    service = Service(directory, env={"TASKHOOK_SANDBOX": "true"})
    try:
        await service.start()
        async with AsyncTaskhook(API_KEY, base_url=service.url) as client:
            task = await client.tasks.create_and_wait(model=MODEL, prompt="a lighthouse", metadata={"for": "receivers"})
        yield Scene(service.url, directory, task)
    finally:
        await service.close()


class Process:
    """An example that runs: what it prints, and how it ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: asyncio.Queue[int] = asyncio.Queue()
        self._reading = [asyncio.create_task(self._read(pipe)) for pipe in (process.stdout, process.stderr) if pipe]
        self.lines: list[str] = []

    async def _read(self, pipe: asyncio.StreamReader) -> None:
        async for raw_line in pipe:
            line = raw_line.decode().rstrip("\n")
            if line.startswith("="):
                self._answers.put_nowait(int(line[1:]))
            else:
                self.lines.append(line)

    async def ask(self, request: Request) -> int:
        """The status that an adapter's handler answers with."""
        assert self._process.stdin
        given = {
            "headers": request.headers,
            "body": base64.b64encode(request.raw_body).decode(),
            "text": request.raw_body.decode(),
        }
        self._process.stdin.write(json.dumps(given).encode() + b"\n")
        return await self._answers.get()

    async def ended(self) -> int:
        async with patience():
            code = await self._process.wait()
            await asyncio.gather(*self._reading)
        return code

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    def __repr__(self) -> str:
        return f"Process(returncode={self._process.returncode}, lines={self.lines})"


@contextlib.asynccontextmanager
async def started(*command: str | Path, env: dict[str, str], cwd: Path) -> AsyncIterator[Process]:
    pipe = asyncio.subprocess.PIPE
    made = await asyncio.create_subprocess_exec(*command, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)
    process = Process(made)
    try:
        yield process
    finally:
        process.kill()
        await process.ended()


def python(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, *arguments]
