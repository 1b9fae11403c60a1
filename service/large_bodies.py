"""Large bodies are read in a thread of their own, one after the other, so that reading them never holds the event loop.

A body of 1 MiB takes 10 to 40 ms to decode, mask and interpret. Python's lock is free between the steps, each of which
takes at most some ms, so the loop goes on meanwhile.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
LARGE_BYTES = 64 * 1024
_READER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="large-bodies")


async def read_apart(size: int, read: Callable[[], T]) -> T:
    """Return what `read` returns, which reads a body of `size` bytes. It must touch nothing but its own values."""
    if size <= LARGE_BYTES:
        return read()
    return await asyncio.get_running_loop().run_in_executor(_READER, read)
