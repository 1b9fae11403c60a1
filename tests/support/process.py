"""Processes of Python for the tests: forked from one that has imported the service, where that makes no difference."""

import asyncio
import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from tests.support.wait import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
INHERITED = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
COMMON = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "SSL_CERT_")
"""What an interpreter and its libraries look at once: a process that has it otherwise is started anew."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Forked:
    """As `asyncio.subprocess.Process`, as far as the tests use one."""

    def __init__(self, pid: int, handle: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._handle = handle
        self._told = told
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(told, self._end)

    @classmethod
    async def start(cls, order: dict[str, object], files: list[int]) -> Self:
        told, asker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with asker:
            socket.send_fds(_fork_server(), [json.dumps(order).encode()], [asker.fileno(), *files])
        answer, handles, _, _ = await asyncio.to_thread(socket.recv_fds, told, 16, 1)
        return cls(int(answer), handles[0], told)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            try:
                signal.pidfd_send_signal(self._handle, number)
            except ProcessLookupError:
                return  # it ended, and we are about to be told

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._told)
        with self._told:
            self.returncode = int(self._told.recv(16))
        os.close(self._handle)
        self._ended.set()


Process = asyncio.subprocess.Process | Forked


@functools.cache
def _fork_server() -> socket.socket:
    """Of this process, started at the first use; it ends when the socket closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forkserver", str(theirs.fileno())],
            cwd=ROOT,
            env=INHERITED | COMMON,
            stdin=DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    def end() -> None:
        ours.close()
        process.wait(PATIENCE_S)

    atexit.register(end)
    return ours


def _is_like_any_other(env: Mapping[str, str]) -> bool:
    """Whether a fork is the same as a start."""
    known = os.environ | COMMON
    return sys.platform == "linux" and all(
        known.get(name) == value for name, value in env.items() if name.startswith(READ_AT_START)
    )


async def start_python(
    module: str,
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str],
    output: IO[bytes] | None = None,
    anew: bool = False,
) -> Process:
    """`python -m module arguments`. What it says goes to `output`, or is read from its `stdout` and `stderr`."""
    full = INHERITED | COMMON | dict(env)
    if anew or not _is_like_any_other(full):
        to = PIPE if output is None else output
        command = (sys.executable, "-m", module, *arguments)
        return await asyncio.create_subprocess_exec(*command, cwd=cwd, env=full, stdin=DEVNULL, stdout=to, stderr=to)
    order: dict[str, object] = {"module": module, "arguments": arguments, "cwd": str(cwd), "env": full}
    if output is not None:
        return await Forked.start(order, [output.fileno(), output.fileno()])
    out, out_end = await _pipe()
    err, err_end = await _pipe()
    with out_end, err_end:
        process = await Forked.start(order, [out_end.fileno(), err_end.fileno()])
    process.stdout, process.stderr = out, err
    return process


async def _pipe() -> tuple[asyncio.StreamReader, IO[bytes]]:
    """Where something is read, and where it is written."""
    reading, writing = os.pipe()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", 0))
    return reader, os.fdopen(writing, "wb", 0)


async def run_python(module: str, *arguments: str, cwd: Path, env: Mapping[str, str]) -> Ended:
    """The same until its end."""
    process = await start_python(module, *arguments, cwd=cwd, env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return Ended(await process.wait(), out.decode(), err.decode())
