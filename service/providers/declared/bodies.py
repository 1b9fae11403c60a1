"""Bodies of requests: paths into them, constants with templates, and their encodings."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from service.providers.declared.templates import Template, Values, WrongTemplateError

_NAME, _INDEX = r"[^.\[\]]+", r"\[\d{1,2}\]"
_PATH = re.compile(rf"({_NAME}({_INDEX}|\.{_NAME})*)?")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,2})\]")


class BodyPath(tuple[str | int, ...]):
    """Keys and list indexes that lead to one member of a body; `instances[0].prompt` as text."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "BodyPath":
        """Raise ValueError for what is no path; the empty text is the body itself."""
        steps = [match[1] or int(match[2]) for match in _STEP.finditer(text)]
        if not _PATH.fullmatch(text):
            raise ValueError("is no path into a body; write it like input.prompt or instances[0].prompt")
        return cls(steps)

    def __str__(self) -> str:
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self).removeprefix(".")


class TemplateTree:
    """A constant of any JSON type, whose texts are templates. A text without all its values is left out."""

    def __init__(self, source: Any) -> None:
        self._tree = _compile(source)
        self.names = frozenset(name for template in _templates(self._tree) for name in template.names)

    @property
    def templates(self) -> list[Template]:
        return list(_templates(self._tree))

    def fill(self, values: Values) -> Any:
        """The value; None if it is a text that lacks a value."""
        return _fill(self._tree, values)


def put(body: dict[str, Any], path: BodyPath, value: Any) -> None:
    """Set one member; objects and lists on the way are made. None sets nothing. A list grows by one at a time."""
    if value is None:
        return
    place: Any = body
    for step, following in pairwise(path):
        place = _enter(place, step, [] if isinstance(following, int) else {})
    if isinstance(place, list) and path[-1] == len(place):
        place.append(value)
    else:
        place[path[-1]] = value


def merge(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    """Put in all members of `extra`, objects member by member."""
    for name, value in extra.items():
        present = body.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            merge(present, value)
        else:
            body[name] = value


def encode_json(body: Any) -> tuple[bytes, str]:
    """The bytes and their content type."""
    return msgspec.json.encode(body), "application/json"


def encode_multipart(body: Mapping[str, Any]) -> tuple[bytes, str]:
    """Form fields (RFC 7578). The boundary is made of the content, so that the same task gives the same bytes."""
    fields = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode() for name, value in body.items()
    }
    boundary = hashlib.sha256(msgspec.json.encode(fields)).hexdigest()
    parts = [
        f'--{boundary}\r\ncontent-disposition: form-data; name="{_field_name(name)}"\r\n\r\n{text}\r\n'
        for name, text in fields.items()
    ]
    return "".join([*parts, f"--{boundary}--\r\n"]).encode(), f"multipart/form-data; boundary={boundary}"


def _field_name(name: str) -> str:
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _enter(place: Any, step: str | int, empty: Any) -> Any:
    if isinstance(step, int):
        if step >= len(place):
            place.append(empty)
        return place[min(step, len(place) - 1)]
    if not isinstance(place.get(step), type(empty)):
        place[step] = empty
    return place[step]


def _compile(source: Any) -> Any:
    match source:
        case str():
            return Template(source)
        case dict():
            return {key: _compile(value) for key, value in source.items()}
        case list():
            return [_compile(value) for value in source]
        case bool() | int() | float():
            return source
    raise WrongTemplateError(f"can't be sent as JSON: {type(source).__name__}")


def _templates(tree: Any) -> Iterator[Template]:
    if isinstance(tree, Template):
        yield tree
    elif isinstance(tree, dict | list):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from _templates(child)


def _fill(tree: Any, values: Values) -> Any:
    if isinstance(tree, Template):
        return tree.fill(values)
    if isinstance(tree, dict):
        filled = {key: _fill(child, values) for key, child in tree.items()}
        return {key: value for key, value in filled.items() if value is not None}
    if isinstance(tree, list):
        return [value for value in (_fill(child, values) for child in tree) if value is not None]
    return tree
