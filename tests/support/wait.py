"""Wait for a fact, never for a time: every wait is bounded and says what it waited for."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def until(fact: Callable[[], Any | Awaitable[Any]], timeout: float = 10.0, what: str = "") -> Any:
    """The first true value of `fact`; fails after `timeout` seconds, naming `what` and the last value."""
    end = time.monotonic() + timeout
    pause = 0.02
    while True:
        value = fact()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or _text(fact)}; last value: {value!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.15)


def _text(fact: Callable[[], Any]) -> str:
    try:
        return " ".join(inspect.getsource(fact).split())
    except OSError:
        return repr(fact)
