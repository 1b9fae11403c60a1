"""The service with a watch on its event loop: the longest time between two turns of the loop, in a file.

Time is that of the loop's thread on a processor, so other processes on the machine do not count. The file is named by
TEST_BLOCKS and holds one double, the maximum in seconds since somebody wrote 0 into it.
"""

import asyncio
import mmap
import os
import struct
import time
from collections.abc import Coroutine
from typing import Any

import uvloop

from service.cli import main

DOUBLE = struct.Struct("d")
run = uvloop.run


async def watch(shared: mmap.mmap) -> None:
    """Turn the loop again and again. A turn runs all that is ready, so the gap between two is the longest block."""
    before = time.thread_time()
    while True:
        await asyncio.sleep(0)
        now = time.thread_time()
        if now - before > DOUBLE.unpack_from(shared)[0]:
            DOUBLE.pack_into(shared, 0, now - before)
        before = now


def run_watched(work: Coroutine[Any, Any, Any], **named: Any) -> Any:
    with open(os.environ.pop("TEST_BLOCKS"), "r+b") as file:
        shared = mmap.mmap(file.fileno(), DOUBLE.size)

    async def both() -> Any:
        watching = asyncio.create_task(watch(shared))
        try:
            return await work
        finally:
            watching.cancel()

    return run(both(), **named)


if __name__ == "__main__":
    uvloop.run = run_watched
    main()
