"""The dashboard as a user of the public API, inside the process: the same operations, with their rights and checks.

So nothing that a page shows or does has a second implementation, and no page can do what its key may not.
"""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec
from starlette.types import Message

from service.large_bodies import read_apart
from service.web.auth import Caller
from service.web.bodies import decode_body
from service.web.calls import Answer, Call, Headers, Operation
from service.web.context import Web
from service.web.queries import decode_query
from service.web.routes import OPERATIONS

T = TypeVar("T")
BY_LINE: Mapping[str, Operation[Any, Any]] = {f"{one.method} {one.path}": one for one in OPERATIONS}


def right_of(line: str) -> str:
    """The scope that an operation such as `POST /v1/tasks` needs."""
    return str(BY_LINE[line].right)


async def ask(
    web: Web,
    caller: Caller,
    line: str,
    kind: type[T],
    *,
    id: str = "",
    query: Mapping[str, Any] | None = None,
    body: Any = None,
    headers: Headers = (),
) -> T:
    """Return the answer of an API operation as that type. Raise the Problem that a caller of the API would get."""
    operation = BY_LINE[line]
    if operation.right is not None:
        caller.check(operation.right)
    given = {name: value for name, value in (query or {}).items() if value not in (None, "")}
    text = urlencode(given).encode()
    asked = None if operation.query is None else decode_query(text, operation.query)
    content: Any = None
    if operation.body is not None:
        content = decode_body(msgspec.json.encode(body), msgspec.json.Decoder(operation.body))
    scope = {"type": "http", "method": operation.method, "path_params": {"id": id}, "headers": list(headers)}
    reply = await operation.endpoint(web, Call(scope, _nothing, caller, asked, content))
    if not isinstance(reply, Answer):
        raise TypeError(f"{line} does not answer at once")
    answered = reply.body or b"null"
    return await read_apart(len(answered), lambda: msgspec.json.decode(answered, type=kind))


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
