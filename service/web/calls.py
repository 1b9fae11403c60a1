"""Calls of the API: declaration, decoded request, and answer."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from service.core.ids import PREFIXES
from service.core.keys import Scope as Right
from service.core.problems import NotFound
from service.web.auth import Caller
from service.web.context import Web

Q = TypeVar("Q")
B = TypeVar("B")
Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
ID_SHAPES = {kind: re.compile(rf"{prefix}_[0-9a-f]{{32}}", re.ASCII) for kind, prefix in PREFIXES.items()}


class Reply(Protocol):
    """Reply of an operation; it sends itself."""

    async def __call__(self, receive: Receive, send: Send) -> None: ...


class Answer:
    """A reply that is complete when it is made; may be sent any number of times."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, body: bytes = b"", media_type: bytes = JSON, headers: Headers = ()) -> None:
        self.status = status
        self.body = body
        described = ((b"content-type", media_type), (b"content-length", b"%d" % len(body))) if status != 204 else ()
        self.headers = (*described, *headers)

    async def __call__(self, receive: Receive, send: Send) -> None:
        await self.begin(send)
        await send({"type": "http.response.body", "body": self.body})

    async def begin(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    return Answer(status, msgspec.json.encode(value), JSON, headers)


def page_answer(items: Sequence[msgspec.Raw], next_cursor: str | None) -> Answer:
    """A page of items that were encoded one by one: never all are there as objects, and all are copied once."""
    parts: list[bytes | memoryview] = [b'{"data":[']
    for item in items:
        parts += [memoryview(item), b","]
    parts[-1] = b'{"data":[' if len(parts) == 1 else b""
    return Answer(200, b"".join([*parts, b'],"next_cursor":', msgspec.json.encode(next_cursor), b"}"]))


def encode_item(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


class Call(Generic[Q, B]):
    """A request to an operation, its query and body decoded into the declared types."""

    __slots__ = ("body", "caller", "query", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, caller: Caller, query: Q, body: B) -> None:
        self.scope = scope
        self.receive = receive
        self.caller = caller
        self.query = query
        self.body = body

    def header(self, name: bytes) -> str | None:
        return find_header(self.scope, name)

    def path_id(self, kind: str) -> str:
        """The id in the path. One that can't be an id names nothing."""
        found: str = self.scope["path_params"]["id"]
        if ID_SHAPES[kind].fullmatch(found) is None:
            raise NotFound(f"There is no such {kind}.")
        return found


class Operation(msgspec.Struct, Generic[Q, B], frozen=True, kw_only=True):
    """A method of a path. Routes and OpenAPI are made from it, so they can't differ.

    `answers` maps a good status to the type of its body (None: no body; media types: text in one of them), `problems`
    lists the statuses of refusals beyond those that `body`, `query` and the path bring with them. `right` is the scope
    that a key must have; one without is open to everybody.
    """

    method: str
    path: str
    endpoint: Callable[[Web, Call[Q, B]], Awaitable[Reply]]
    summary: str
    tag: str
    right: Right | None
    answers: Mapping[int, Any]
    query: type[Q] | None = None
    body: type[B] | None = None
    problems: tuple[int, ...] = ()
    headers: Mapping[str, str] = {}
    takes_ticket: bool = False


def find_header(scope: Scope, name: bytes) -> str | None:
    """The first of that name, which is given in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return None


async def gone(receive: Receive) -> None:
    """Until the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(timeout_s: float | None, *waits: Awaitable[Any]) -> int | None:
    """Return the one that ended first, or None after the timeout; the rest are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        done = next((index for index, task in enumerate(tasks) if task.done()), None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if done is not None:
        tasks[done].result()
    return done
