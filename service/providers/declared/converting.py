"""Plain TOML values become the tables of `schema.py`, and every wrong key or value is found in one go."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import FieldInfo

from service.providers.declared.bodies import BodyPath, TemplateTree
from service.providers.declared.callback_texts import CallbackAnswer, Place
from service.providers.declared.expressions import Expression
from service.providers.declared.positions import Path
from service.providers.declared.schema import Table
from service.providers.declared.signed_message import SignedMessage
from service.providers.declared.templates import Template

_TEXTS: dict[Any, Callable[[str], Any]] = {
    BodyPath: BodyPath.parse,
    CallbackAnswer: CallbackAnswer,
    Place: Place,
    SignedMessage: SignedMessage,
    Template: Template,
}
"""Types that read a text and raise ValueError for a wrong one."""


class Fault(NamedTuple):
    """A fault of a declaration: the path of the key, what is wrong and what is meant."""

    path: Path
    message: str


class Converter:
    """Converts one document. `faults` collects what is wrong with it."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def convert(self, value: Any, kind: Any, path: Path) -> Any:
        """The value as `kind`; None if it has faults."""
        origin = get_origin(kind)
        if origin in (Union, UnionType):
            return self._one_of([part for part in get_args(kind) if part is not type(None)], value, path)
        if _is_table(kind):
            return self._table(value, kind, path)
        if origin is tuple:
            return self._list(value, get_args(kind)[0], path)
        if origin is dict:
            return self._dict(value, kind, path)
        try:
            return _scalar(value, kind)
        except ValueError as error:  # msgspec.ValidationError is one
            self._fault(path, str(error))
        return None

    def _fault(self, path: Path, message: str) -> None:
        self.faults.append(Fault(path, message))

    def _one_of(self, kinds: list[Any], value: Any, path: Path) -> Any:
        """Unions are of a number and a text only."""
        is_text = isinstance(value, str)
        fitting = [kind for kind in kinds if _takes_text(kind) == is_text]
        return self.convert(value, (fitting or kinds)[0], path)

    def _list(self, value: Any, kind: Any, path: Path) -> tuple[Any, ...] | None:
        if isinstance(value, dict) and _is_table(kind):
            value = [value]  # one table is a list of one
        if not isinstance(value, list):
            self._fault(path, f"must be a list, not {_name(value)}")
            return None
        return tuple(self.convert(item, kind, (*path, number)) for number, item in enumerate(value))

    def _dict(self, value: Any, kind: Any, path: Path) -> dict[Any, Any] | None:
        key_kind, kind = get_args(kind)
        if not isinstance(value, dict):
            self._fault(path, f"must be a table, not {_name(value)}")
            return None
        return {
            self.convert(key, key_kind, (*path, key)): self.convert(item, kind, (*path, key))
            for key, item in value.items()
        }

    def _table(self, value: Any, kind: type[Table], path: Path) -> Table | None:
        if not isinstance(value, dict):
            self._fault(path, f"must be a table, not {_name(value)}")
            return None
        fields, hints = dict(_fields(kind)), _hints(kind)
        rest = fields.pop(kind.REST, None) if kind.REST else None
        given, others = {}, {}
        rest_kind = get_args(hints[rest.name])[1] if rest else None
        for key, item in value.items():
            if key in fields:
                given[fields[key].name] = self.convert(item, hints[fields[key].name], (*path, key))
            elif rest and (isinstance(item, dict) if _is_table(rest_kind) else isinstance(item, str | int | float)):
                others[key] = self.convert(item, rest_kind, (*path, key))
            else:
                self._fault((*path, key), f"unknown key{hint(key, fields)}")
        for key, field in fields.items():
            if key not in value and field.required:
                self._fault(path, f"{key} is missing{_of(path)}")
        if rest:
            given[rest.name] = others
        return None if self.faults else kind(**given)


@cache
def _fields(kind: type[Table]) -> Mapping[str, FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@cache
def _hints(kind: type[Table]) -> Mapping[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _scalar(value: Any, kind: Any) -> Any:
    """Raise ValueError for a value of another kind."""
    origin, extra = get_args(kind)[:2] if get_origin(kind) is Annotated else (kind, frozenset())
    if origin is Any:
        return value
    if origin is TemplateTree:
        return TemplateTree(value)
    if origin in (Expression, *_TEXTS) and not isinstance(value, str):
        raise ValueError(f"must be a text, not {_name(value)}")
    if origin is Expression:
        return Expression(value, extra)
    if origin in _TEXTS:
        return _TEXTS[origin](value)
    if get_origin(origin) is Literal and value not in get_args(origin):
        words = [str(word) for word in get_args(origin)]
        raise ValueError(f"must be one of {', '.join(words)}, not {value!r}{_close(str(value), words)}")
    return msgspec.convert(value, kind)


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Table)


def _takes_text(kind: Any) -> bool:
    return (get_args(kind)[0] if get_origin(kind) is Annotated else kind) in (str, Expression, *_TEXTS)


def hint(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: what is meant, or what is known."""
    return _close(word, known) or f"; known are {', '.join(known)}"


def _close(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _of(path: Path) -> str:
    return f" in {'.'.join(map(str, path))}" if path else ""


def _name(value: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return names.get(type(value), "a date")
