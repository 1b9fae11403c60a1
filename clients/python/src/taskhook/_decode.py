"""JSON into the dataclasses of `models`: strict about what they need, indifferent to what they do not know."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache, partial
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Convert = Callable[[Any], Any]


class DecodeError(ValueError):
    """The answer is not one that the service would send."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Fields that a newer service added are kept: `to_dict()` gives all that was received."""

    _received: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False, hash=False)

    def to_dict(self) -> dict[str, Any]:
        """The JSON as received, fields unknown to this version included."""
        return dict(self._received)


M = TypeVar("M", bound=Model)


def decode(kind: type[M], value: object) -> M:
    """Unknown fields and unknown words of an enumeration are let through; a missing field without default is not."""
    if not isinstance(value, dict):
        raise DecodeError(f"{kind.__name__} is no JSON object")
    found: dict[str, Any] = {"_received": value}
    for name, (convert, required) in _fields(kind).items():  # type: ignore[arg-type]  # mypy: no class is Hashable
        if name in value:
            found[name] = _convert(kind, name, convert, value[name])
        elif required:
            raise DecodeError(f"{kind.__name__} has no {name}")
    return kind(**found)


def reader(kind: type[M]) -> Callable[[object], M]:
    return partial(decode, kind)


def _convert(kind: type[Model], name: str, convert: Convert, value: object) -> object:
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise DecodeError(f"{kind.__name__}.{name}: {error}") from error


@cache
def _fields(kind: type[Model]) -> dict[str, tuple[Convert, bool]]:
    hints = get_type_hints(kind)
    missing = dataclasses.MISSING
    return {
        field.name: (_converter(hints[field.name]), field.default is missing and field.default_factory is missing)
        for field in dataclasses.fields(kind)
        if not field.name.startswith("_")
    }


def _converter(hint: Any) -> Convert:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and type(None) in arguments:
        inner = _converter(next(one for one in arguments if one is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is list:
        item = _converter(arguments[0])
        return lambda value: [item(one) for one in _checked(list, value)]
    if hint is datetime:
        return lambda value: datetime.fromisoformat(_checked(str, value))
    if isinstance(hint, type) and issubclass(hint, Model):
        return lambda value: decode(hint, value)
    if hint in (str, int, bool) or origin is dict:
        return lambda value: _checked(origin or hint, value)
    return lambda value: value


def _checked(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise DecodeError(f"{type(value).__name__} instead of {kind.__name__}")
    return value
