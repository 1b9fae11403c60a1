"""A clock that a test moves in processes of the service: what is due in hours is due at once."""

import mmap
import struct
import time
from pathlib import Path

from service.wiring import RealEnv, now_ms

_OFFSET = struct.Struct("d")


class Clock:
    """How far the processes with this file are ahead of real time, in seconds."""

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.exists():
            file.write_bytes(_OFFSET.pack(0.0))
        with file.open("r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _OFFSET.size)

    @property
    def ahead_s(self) -> float:
        return float(_OFFSET.unpack_from(self._memory)[0])

    def pass_time(self, seconds: float) -> None:
        _OFFSET.pack_into(self._memory, 0, self.ahead_s + seconds)


class MovedEnv(RealEnv):
    """The real environment, ahead by the clock of a test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(lambda: now_ms() + round(clock.ahead_s * 1000))
        self._clock = clock

    def monotonic(self) -> float:
        return time.monotonic() + self._clock.ahead_s
