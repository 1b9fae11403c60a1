"""A checkout as somebody has it who follows the pages: a folder of its own, terminals in it, and what they type."""

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import Self

from tests.docs.samples import ROOT, Sample
from tests.support.service import free_port
from tests.support.wait import soon, until

CURL = "fail-with-body\nshow-error\nno-progress-meter\nmax-time = 90\n"
"""With it a refusal fails the sample, whatever the sample does with the answer."""


class Terminal:
    """A shell that stays open, as a person has it."""

    def __init__(self, process: Process, log_path: Path) -> None:
        self._process = process
        self._log_path = log_path
        self._count = itertools.count(1)

    @classmethod
    async def open(cls, directory: Path, env: dict[str, str], log_path: Path) -> Self:
        """In a process group of its own, so that all it starts ends with it."""
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *("bash", "--noprofile", "--norc"),
                cwd=directory,
                env=env,
                stdin=PIPE,
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,
            )
        return cls(process, log_path)

    def output(self) -> str:
        return self._log_path.read_text(errors="replace")

    async def type(self, text: str, ready: str = "") -> None:
        """Waits until it is done, or until it says that it is ready; a failure of the last command fails."""
        assert self._process.stdin
        mark = f"<done {next(self._count)}:"
        self._process.stdin.write(f'{text}\nprintf "\\n{mark}%d>\\n" "$?"\n'.encode())
        await self._process.stdin.drain()
        await self.shows(ready or mark)
        done = re.search(rf"{mark}(\d+)>", self.output())
        assert done is None or done[1] == "0", f"{text}\n{self.output()[-3000:]}"

    async def shows(self, text: str) -> None:
        """Waits for it; an ellipsis stands for anything in its line."""
        wanted = ".*".join(map(re.escape, text.strip("\n").split("…")))
        try:
            await until(lambda: re.search(wanted, self.output()), what=f"the terminal shows {text!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-3000:]}") from None

    async def close(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(TimeoutError):
                await soon(self._process.wait())


class Checkout:
    """The repository, set up, with ports of its own; `make run` is started in it by its first sample."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "taskhook"
        self._logs = directory
        self._terminals: dict[str, Terminal] = {}
        self._count = itertools.count(1)
        self.port, self.receiver_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        own = {"HOME": str(directory), "TASKHOOK_PORT": str(self.port), "PYTHONUNBUFFERED": "1"}
        self.env = inherited | own
        self._furnish()

    def _furnish(self) -> None:
        """Create what `make run` checks, with old lock files, so that it finds the environment up to date."""
        self.directory.mkdir()
        (self._logs / ".curlrc").write_text(CURL)
        (self.directory / "Makefile").symlink_to(ROOT / "Makefile")
        (self.directory / ".venv").symlink_to(sys.prefix)
        for name in ("requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.directory)
            os.utime(self.directory / name, (1, 1))

    def adapt(self, text: str, receiver_port: int | None = None) -> str:
        """The same on free ports."""
        return text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}").replace(
            "9000", str(receiver_port or self.receiver_port)
        )

    async def follow(self, sample: Sample) -> None:
        """Does what the quickstart says: types it, saves it as a file, or looks for it."""
        text = self.adapt(sample.text)
        if sample.language == "bash":
            await (await self._terminal(sample.title)).type(text, sample.ready)
        elif sample.language == "text":
            await (await self._terminal(sample.title.removesuffix(" shows"))).shows(text)
        else:
            (self.directory / sample.title).write_text(text)

    async def _terminal(self, name: str) -> Terminal:
        if name not in self._terminals:
            opened = await Terminal.open(self.directory, self.env, self._logs / f"{name}.log")
            self._terminals[name] = opened
        return self._terminals[name]

    async def run(self, text: str, ready: str, env: dict[str, str]) -> str:
        """Run a sample alone, in a shell that stops at the first failure; return its output."""
        terminal = await Terminal.open(self.directory, self.env | env, self._logs / f"{next(self._count)}.log")
        try:
            await terminal.type(f"(set -eo pipefail\n{text}\n) < /dev/null", ready)
        finally:
            await terminal.close()
        return terminal.output()

    async def close(self) -> None:
        await asyncio.gather(*(terminal.close() for terminal in self._terminals.values()))
