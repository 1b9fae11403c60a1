"""Processes of a benchmark: started, pinned to cores, looked at from outside, and ended whatever happens."""

import http.client
import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 180.0
"""No step takes longer; one that does ends the benchmark."""
CORES = sorted(os.sched_getaffinity(0))
SERVICE, ELSE = set(CORES[:1]), set(CORES[1:] or CORES)
"""Where there are two cores, the service has one to itself, and all the rest shares the others."""
TICKS_S = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    arguments: Sequence[str],
    port: int | None,
    path: str,
    folder: str,
    env: Mapping[str, str],
    cores: set[int] = SERVICE,
) -> Iterator[int]:
    """Run a Python process from its first answer at `path` until the block ends; yield its process id.

    A process without a port counts as ready at once.
    """
    with (Path(folder) / "log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            stdout=log,
            stderr=log,
        )
    try:
        os.sched_setaffinity(started.pid, cores)
        if port is not None:
            _wait_for(f"http://127.0.0.1:{port}{path}", started)
        yield started.pid
    finally:
        _end(started)


def _end(started: subprocess.Popen[Any]) -> None:
    started.terminate()
    try:
        started.wait(40)
    except subprocess.TimeoutExpired:
        started.kill()
        started.wait()


def _wait_for(url: str, started: subprocess.Popen[Any]) -> None:
    """Anything but a 503 is an answer."""
    end_at = time.monotonic() + PATIENCE_S
    while started.poll() is None and time.monotonic() < end_at:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except (OSError, http.client.HTTPException):
            pass
        else:
            return
        time.sleep(0.01)
    raise SystemExit(f"{url} does not answer")


def until(fact: Callable[[], bool], what: str, pause_s: float = 0.1) -> None:
    end_at = time.monotonic() + PATIENCE_S
    while not fact():
        if time.monotonic() > end_at:
            raise SystemExit(f"not within {PATIENCE_S:g} s: {what}")
        time.sleep(pause_s)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process with all its threads, and of its children that have ended."""
    return _seconds(_stat(pid))


def cpu_seconds_of_all(parent: int) -> float:
    """The same with its children that live."""
    total = cpu_seconds(parent)
    for path in Path("/proc").iterdir():
        try:
            stat = _stat(int(path.name)) if path.name.isdecimal() else None
        except OSError:  # it has just ended, and counts with its parent from then on
            continue
        if stat and int(stat[1]) == parent:
            total += _seconds(stat)
    return total


def _seconds(stat: list[str]) -> float:
    return sum(map(int, stat[11:15])) / TICKS_S


def _stat(pid: int) -> list[str]:
    """From the third field of proc(5) on: the second may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def resident_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def tool(arguments: Sequence[str], given: bytes = b"", cores: set[int] = ELSE) -> Any:
    """Return the JSON that a benchmark program prints on its standard output."""
    pipe = subprocess.PIPE
    started = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        os.sched_setaffinity(started.pid, cores)
        told, complaint = started.communicate(given, PATIENCE_S)
    finally:
        started.kill()
    if started.returncode:
        raise SystemExit(f"{' '.join(arguments[:3])} failed: {complaint.decode()[-2000:]}")
    return json.loads(told)


def may_open_many_files() -> None:
    """Here and in all that is started from here."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
