"""Cost of work in processor time of its thread: the best of several runs, since a busy machine slows single ones."""

import time
from collections.abc import Callable


def least_s(work: Callable[[], object], times: int = 5) -> float:
    def once() -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    return min(once() for _ in range(times))
