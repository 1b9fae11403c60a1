"""Faults around the service: a clock that is set, networks that break, a disk that is full."""

import random
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import Answer, Cut, Hang, Reply, Request, Reset, ScriptedServer


class Clock:
    """The service's time of day. Its own code is as it is: the C library it runs on is told another time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self._library = folder / "clock.so"
        self.set(0)

    @staticmethod
    def is_possible() -> bool:
        return shutil.which("cc") is not None

    def build(self) -> dict[str, str]:
        """The environment of a process that shall have this clock."""
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", self._library, source, "-ldl"], check=True)
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.replace(self._file)


def break_now_and_then(server: ScriptedServer, dice: random.Random, share: float) -> None:
    """So many of its exchanges go wrong: cut before or within the answer, an error page, or no answer for a while."""
    sound: Callable[[Request], Awaitable[Answer]] = server._answer

    async def answer(request: Request) -> Answer:
        if dice.random() >= share:
            return await sound(request)
        fault = dice.choice([Reset(), Reset(rst=False), Reply(502, "<html>"), Cut(Reply(200, b"x" * 100), 60), Hang()])
        if dice.random() < 0.5:
            await sound(request)  # it was taken; only its answer is lost
        return fault

    server._answer = answer


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[bool]:
    """A file system of that size, which root alone can make; whether it could."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield made
    finally:
        if made:
            subprocess.run(["umount", "-l", str(folder)], check=False)


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()
