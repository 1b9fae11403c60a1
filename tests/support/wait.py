"""Wait for a fact, never for a time: one patience for all waits, and a failure that says what was waited for."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

PATIENCE_S = 60.0
"""The deadline of every wait: far above what a busy machine needs, so only a wait that would fail reaches it."""

T = TypeVar("T")


async def until(fact: Callable[[], Any | Awaitable[Any]], at_most_s: float = PATIENCE_S, what: str = "") -> Any:
    """Return the first true value of `fact`; fail after `at_most_s`, naming `what` and the last value."""
    end = time.monotonic() + at_most_s
    pause = 0.02
    while True:
        value = fact()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {at_most_s} s: {what or _text(fact)}; last value: {value!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.15)


def until_sync(fact: Callable[[], Any], at_most_s: float = PATIENCE_S, what: str = "") -> Any:
    """`until` for tests without an event loop."""
    end = time.monotonic() + at_most_s
    while not (value := fact()):
        assert time.monotonic() < end, f"not within {at_most_s} s: {what or _text(fact)}; last value: {value!r}"
        time.sleep(0.02)
    return value


async def soon(awaitable: Awaitable[T]) -> T:
    """Return its result; raise TimeoutError after the patience of every wait."""
    return await asyncio.wait_for(awaitable, PATIENCE_S)


def patience() -> asyncio.Timeout:
    """`async with patience():` bounds what is in it."""
    return asyncio.timeout(PATIENCE_S)


def _text(fact: Callable[[], Any]) -> str:
    try:
        return " ".join(inspect.getsource(fact).split())
    except OSError:
        return repr(fact)
