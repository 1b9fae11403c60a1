"""Null for an optional field of a request body means its default."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import UNSET, inspect

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode
_NULL = b"null"


class _Field(msgspec.Struct, frozen=True, kw_only=True):
    """`nested` is the struct inside the field's type, None for any other type.

    A field whose default is "not given" belongs to a change: its null is kept, or refused.
    """

    drops_null: bool
    nested: type[msgspec.Struct] | None


def drop_nulls(body: bytes | msgspec.Raw, kind: Any) -> bytes | None:
    """Return the object without the nulls of fields that have a default; None if there are none of those.

    The types themselves refuse null, so that handlers never see one where a default exists.
    """
    struct = struct_of(kind)
    if struct is None:
        return None
    try:
        given = _OBJECT.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # no object of JSON: for others to refuse
        return None
    changed = {name: _change(given[name], field) for name, field in _fields(struct).items() if name in given}
    if all(value is given[name] for name, value in changed.items()):
        return None
    kept = {name: changed.get(name, value) for name, value in given.items()}
    return _encode({name: value for name, value in kept.items() if value is not None})


def allow_nulls(kinds: Iterable[type[msgspec.Struct]], components: dict[str, Any]) -> None:
    """Let the JSON Schemas of these request bodies accept the nulls that `drop_nulls` drops."""
    for kind in set(_with_nested(kinds)):
        properties = components[kind.__name__]["properties"]
        for name, field in _fields(kind).items():
            if field.drops_null:
                properties[name] = _nullable(properties[name])


def _with_nested(kinds: Iterable[type[msgspec.Struct]]) -> Iterator[type[msgspec.Struct]]:
    for kind in kinds:
        yield kind
        yield from _with_nested(field.nested for field in _fields(kind).values() if field.nested is not None)


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = {name: schema[name] for name in ("default", "description", "examples") if name in schema}
    values = {name: value for name, value in schema.items() if name not in about}
    return {"anyOf": [*values.get("anyOf", [values]), {"type": "null"}], **about}


def struct_of(kind: Any) -> type[msgspec.Struct] | None:
    """Return the struct that a type is, or that a union with null or "not given" holds."""
    return _struct_in(inspect.type_info(kind))


def _struct_in(node: inspect.Type) -> type[msgspec.Struct] | None:
    match node:
        case inspect.StructType():
            return node.cls
        case inspect.Metadata():
            return _struct_in(node.type)
        case inspect.UnionType():
            return next(filter(None, map(_struct_in, node.types)), None)
        case _:
            return None


def _change(value: msgspec.Raw, field: _Field) -> msgspec.Raw | None:
    """Return the value itself where nothing changes, None where it is to be dropped."""
    if bytes(value).strip() == _NULL:
        return None if field.drops_null else value
    plain = None if field.nested is None else drop_nulls(value, field.nested)
    return value if plain is None else msgspec.Raw(plain)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, _Field]:
    return {
        field.encode_name: _Field(
            drops_null=not (field.required or field.default is UNSET or _takes_null(inspect.type_info(field.type))),
            nested=struct_of(field.type),
        )
        for field in msgspec.structs.fields(kind)
    }


def _takes_null(node: inspect.Type) -> bool:
    match node:
        case inspect.NoneType() | inspect.AnyType():
            return True
        case inspect.Metadata():
            return _takes_null(node.type)
        case inspect.UnionType():
            return any(map(_takes_null, node.types))
        case _:
            return False
