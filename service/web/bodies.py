"""Bodies: read within a bound, decoded into the declared type, and every mistake named by its place."""

import asyncio
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import inspect
from starlette.types import Receive, Scope

from service.core.foreign_json import COMMAS_MAX, is_costly
from service.core.problems import FieldError, InvalidRequest, Malformed, TooLarge, Unavailable, UnsupportedType
from service.web.calls import find_header
from service.web.errors import ClientGone
from service.web.nulls import drop_nulls, struct_of
from service.web.shares import Share, Shares

T = TypeVar("T")
Loc = list[str | int]

BODY_MAX = 1 << 20
SLOW_MIN = 16 * 1024
"""What a body counts at least, since its connection and its task take memory, too."""

ERRORS_MAX = 50
"""Wrong fields that one refusal names."""
NOT_KNOWN, REQUIRED = "is not known here", "is required"

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*?)`(?: - at `\$(?P<path>[^`]*)`)?", re.DOTALL)
_WRONG = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ESCAPED = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a type, decoded on its own."""

    decoder: msgspec.json.Decoder[Any]
    is_required: bool


async def read_body(scope: Scope, receive: Receive, slow: Shares, owner: str, limit: int = BODY_MAX) -> bytes:
    """At most `limit` bytes; nothing beyond them is kept. Raises TooLarge, ClientGone and Unavailable.

    Call it only when it is known who sends: the caller of the API, the task of a callback. `slow` bounds what has
    arrived of bodies that are not complete; one that is here at once takes no share of it.
    """
    declared = find_header(scope, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    body, is_whole = await _next_part(receive)
    if len(body) > limit:
        raise _too_large(limit)
    if is_whole:
        return body
    try:
        async with asyncio.timeout(None) as time:
            with slow.held(owner, lambda: time.reschedule(0)) as share:
                return await _read_rest(receive, [body], share, limit)
    except TimeoutError:
        raise Unavailable("Too many request bodies arrive slowly.", retry_after_s=1, cause="slow bodies") from None


async def _read_rest(receive: Receive, parts: list[bytes], share: Share, limit: int) -> bytes:
    size, is_whole = len(parts[0]), False
    while not is_whole:
        share.set(SLOW_MIN + size)
        part, is_whole = await _next_part(receive)
        parts.append(part)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


async def _next_part(receive: Receive) -> tuple[bytes, bool]:
    """The next bytes, and whether they are the last. Raises ClientGone."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), not message.get("more_body", False)


def check_content_type(value: str | None) -> None:
    """JSON, in UTF-8. Raises UnsupportedType."""
    media_type, _, parameters = (value or "").partition(";")
    media_type = media_type.strip().lower()
    is_json = media_type == "application/json" or (media_type.startswith("application/") and media_type[-5:] == "+json")
    charset = parameters.lower().partition("charset=")[2].partition(";")[0].strip().strip('"')
    if not is_json or charset not in ("", "utf-8", "utf8"):
        raise UnsupportedType("The body must be JSON in UTF-8: Content-Type: application/json.")


def decode_body(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Raises Malformed for what is no JSON and InvalidRequest for what is not this type."""
    if not body:
        raise Malformed("The body is empty; it must be a JSON object.")
    body = body.removeprefix(BOM_UTF8)
    if is_costly(body, COMMAS_MAX):
        raise Malformed("The body holds too many values; it must have at most 30,000.")
    if _ESCAPED.search(body):
        _check_storable(_parse(body))
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        if (plain := drop_nulls(body, decoder.type)) is not None:
            return decode_body(plain, decoder)
        _parse(body)
        found = list(islice(_wrong_fields(body, decoder.type, ["body"]), ERRORS_MAX))
        raise InvalidRequest(found or [field_error(str(error), decoder.type, "body")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        _parse(body)
        raise Malformed("The body is no JSON.") from None


def field_error(message: str, kind: Any, *at: str | int) -> FieldError:
    """Return msgspec's error about a value as a location and a sentence; `at` begins with body or query."""
    for pattern, text in ((_UNKNOWN, NOT_KNOWN), (_MISSING, REQUIRED)):
        if found := pattern.fullmatch(message):
            return FieldError(loc=[*at, *_steps(found["path"]), found["field"]], msg=text)
    found = _WRONG.fullmatch(message)
    what, path = (found["what"], _steps(found["path"])) if found else (message, [])
    if what.startswith("Invalid enum value"):
        what = f"must be one of {', '.join(_choices(inspect.type_info(kind), path))}"
    subject = "has a name that is wrong: " if found and found["key"] else ""
    return FieldError(loc=[*at, *path], msg=subject + what[0].lower() + what[1:].replace("`", ""))


def is_storable(text: str) -> bool:
    """Neither a NUL nor half of a surrogate pair: both databases and every subscriber can hold it."""
    return _UNSTORABLE.search(text) is None


def _wrong_fields(body: bytes | msgspec.Raw, kind: Any, at: Loc) -> Iterator[FieldError]:
    """Each of them: msgspec itself stops at the first. A field that is given twice is judged by its last value."""
    try:
        given = _OBJECT.decode(body)
    except msgspec.ValidationError as error:
        yield field_error(str(error), kind, *at)
        return
    fields = _fields(kind)
    for name, field in fields.items():
        if name in given:
            yield from _wrong_value(given[name], field, [*at, name])
        elif field.is_required:
            yield FieldError(loc=[*at, name], msg=REQUIRED)
    if kind.__struct_config__.forbid_unknown_fields:
        renamed: Mapping[str, str] = getattr(kind, "renamed", {})
        yield from (
            FieldError(loc=[*at, name], msg=f"is now {renamed[name]}" if name in renamed else NOT_KNOWN)
            for name in given
            if name not in fields
        )


def _wrong_value(value: msgspec.Raw, field: "_Field", at: Loc) -> Iterator[FieldError]:
    kind: Any = field.decoder.type
    try:
        field.decoder.decode(value)
    except msgspec.ValidationError as error:
        nested = struct_of(kind)
        found = [] if nested is None else list(islice(_wrong_fields(value, nested, at), ERRORS_MAX))
        yield from found or [field_error(str(error), kind, *at)]


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, "_Field"]:
    return {
        field.encode_name: _Field(decoder=msgspec.json.Decoder(field.type), is_required=field.required)
        for field in msgspec.structs.fields(kind)
    }


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")


def _parse(body: bytes) -> Any:
    """With the standard library, which reads half surrogate pairs too. Raises Malformed with the position."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, parse_int=float)
    except json.JSONDecodeError as error:
        raise Malformed(f"The body is no JSON: {error.msg} at character {error.pos}.") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is no UTF-8: byte {error.start}.") from None
    except RecursionError:
        raise Malformed("The body is nested too deeply.") from None


def _refuse_constant(name: str) -> None:
    raise Malformed(f"The body is no JSON: {name} is no JSON value.")


def _check_storable(value: Any) -> None:
    errors = [
        FieldError(loc=["body", *loc], msg="holds a NUL or half of a surrogate pair, which can't be stored")
        for loc in _unstorable(value)
    ]
    if errors:
        raise InvalidRequest(errors)


def _unstorable(value: Any) -> Iterator[Loc]:
    left: list[tuple[Loc, Any]] = [([], value)]
    while left:
        loc, value = left.pop()
        if isinstance(value, str) and not is_storable(value):
            yield loc
        elif isinstance(value, dict):
            left += [([*loc, _UNSTORABLE.sub("?", name)], child) for name, child in value.items()]
            left += [([*loc, _UNSTORABLE.sub("?", name)], name) for name in value if not is_storable(name)]
        elif isinstance(value, list):
            left += [([*loc, index], child) for index, child in enumerate(value)]


def _steps(path: str | None) -> Loc:
    """`.input.options[...]` and `.events[1]`, taken apart; what msgspec leaves open ends there."""
    return [name or int(index) for name, index in _STEP.findall((path or "").replace("[...]", ""))]


def _choices(node: inspect.Type, path: Loc) -> Iterator[str]:
    """The values allowed at that place of a type."""
    match node:
        case inspect.Metadata():
            yield from _choices(node.type, path)
        case inspect.UnionType():
            for branch in node.types:
                yield from _choices(branch, path)
        case inspect.LiteralType():
            yield from map(str, node.values)
        case _ if path:
            for child in _children(node, path[0]):
                yield from _choices(child, path[1:])


def _children(node: inspect.Type, step: str | int) -> list[inspect.Type]:
    if isinstance(node, inspect.StructType):
        return [field.type for field in node.fields if field.encode_name == step]
    return [node.item_type] if isinstance(node, inspect.VarTupleType | inspect.ListType) else []
