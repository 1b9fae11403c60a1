"""Commands as processes of their own, in a folder of their own, among real services and servers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.flows.conftest import pytest_runtest_makereport, world
from tests.support.process import Ended, Process, start_python
from tests.support.service import API_KEY, Service
from tests.support.wait import patience, until

__all__ = ["Ended", "Running", "pytest_runtest_makereport", "run", "started", "to_service", "world"]


class Running:
    """A command that goes on."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.out = ""
        self.err = ""
        self._reading = [
            asyncio.create_task(self._read(process.stdout, "out")),
            asyncio.create_task(self._read(process.stderr, "err")),
        ]

    async def _read(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while chunk := await stream.read(65_536):
            setattr(self, name, getattr(self, name) + chunk.decode())

    async def says(self, text: str) -> None:
        """On standard error."""
        await until(lambda: text in self.err, what=text)

    async def interrupt(self) -> Ended:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        return await self.end()

    async def end(self) -> Ended:
        async with patience():
            await asyncio.gather(*self._reading)
            return Ended(await self._process.wait(), self.out, self.err)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.end()


@asynccontextmanager
async def started(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Running]:
    process = await start_python("service", *arguments, cwd=folder, env=env or {})
    running = Running(process)
    try:
        yield running
    finally:
        await running.kill()


async def run(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ended:
    async with started(folder, *arguments, env=env) as running:
        return await running.end()


def to_service(service: Service) -> dict[str, str]:
    return {"TASKHOOK_URL": service.url, "TASKHOOK_API_KEY": API_KEY}
