"""What no durable answer can do without: a bare request and a page on the disk, as long as they take at a low rate.

Then caches are cold and cores asleep when something comes, so both take several times what they take at full speed.
"""

import os
import tempfile
import time
from collections.abc import Iterator

import msgspec

from bench.calls import bare, create_requests

PAGE = 4096


class Least(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds, p50 and p99."""

    bare: tuple[float, float]
    synced: tuple[float, float]


def least_at(rate: float, count: int) -> Least:
    """So many of each, so many a second."""
    asked = bare(create_requests(count), rate)["ms"]
    synced = sorted(_sync_pages(rate, count))
    return Least(bare=(asked["p50"], asked["p99"]), synced=(synced[count // 2], synced[count * 99 // 100]))


def _sync_pages(rate: float, count: int) -> Iterator[float]:
    """The milliseconds of each, where the file has its place already, as in a log that is used again."""
    with tempfile.NamedTemporaryFile() as file:
        os.pwrite(file.fileno(), bytes(PAGE * count), 0)
        os.fsync(file.fileno())
        for number in range(count):
            time.sleep(1 / rate)
            began = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(PAGE), PAGE * number)
            os.fdatasync(file.fileno())
            yield (time.perf_counter() - began) * 1000
