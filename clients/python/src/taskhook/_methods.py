"""Operations as methods: each is written once and bound here for blocking and for asyncio, with its full signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec, TypeVar

from taskhook._callers import AsyncCaller, Caller
from taskhook._pages import AsyncPages, Page, fetch
from taskhook._plan import Listing, Plan
from taskhook._stream import Place
from taskhook._streams import AsyncEventStream, EventStream

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Resource:
    """A noun of the API, such as tasks."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller


class AsyncResource:
    """A noun of the API, such as tasks."""

    def __init__(self, caller: AsyncCaller) -> None:
        self._caller = caller


class Method(Generic[P, R]):
    """A method of a resource; what `bind` makes of the caller and the operation's value is its result."""

    def __init__(self, operation: Callable[P, Any], bind: Callable[[Any, Any], R]) -> None:
        self._operation = operation
        self._bind = bind
        self.__doc__ = operation.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{owner.__name__}.{name}"

    def __get__(self, resource: Resource | AsyncResource | None, owner: type) -> Callable[P, R]:
        caller = None if resource is None else resource._caller

        @functools.wraps(self._operation)
        def method(*args: P.args, **kwargs: P.kwargs) -> R:
            return self._bind(caller, self._operation(*args, **kwargs))

        method.__qualname__ = self._name
        method.__name__ = self._name.rpartition(".")[2]
        signature = inspect.signature(self._operation).replace(return_annotation=inspect.Signature.empty)
        vars(method)["__signature__"] = signature
        return method


def call(operation: Callable[P, Plan[T]]) -> Method[P, T]:
    def bind(caller: Caller, plan: Plan[T]) -> T:
        return caller.run(plan)

    return Method(operation, bind)


def pages(operation: Callable[P, Listing[T]]) -> Method[P, Page[T]]:
    def bind(caller: Caller, listing: Listing[T]) -> Page[T]:
        return fetch(caller, listing)

    return Method(operation, bind)


def streamed(operation: Callable[P, Place]) -> Method[P, EventStream]:
    return Method(operation, EventStream)


def async_call(operation: Callable[P, Plan[T]]) -> Method[P, Awaitable[T]]:
    def bind(caller: AsyncCaller, plan: Plan[T]) -> Awaitable[T]:
        return caller.run(plan)

    return Method(operation, bind)


def async_pages(operation: Callable[P, Listing[T]]) -> Method[P, AsyncPages[T]]:
    def bind(caller: AsyncCaller, listing: Listing[T]) -> AsyncPages[T]:
        return AsyncPages(caller, listing)

    return Method(operation, bind)


def async_streamed(operation: Callable[P, Place]) -> Method[P, AsyncEventStream]:
    return Method(operation, AsyncEventStream)
