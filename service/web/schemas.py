"""JSON Schemas that generators of clients read as they are meant.

Generators disagree on some words of JSON Schema, so these schemas avoid them:

- `default`: openapi-typescript makes a field that has one required, and others write code for it that does not compile.
  The default of a request's field stands in its description. An answer always has its fields, so there it is required.
- an object without `additionalProperties`: allows any member, and becomes an object without any.
- `enum` without `type`: becomes a type without a name.
- a number without `format`: has 32 bits in Go and Java, too few for the sequence of an event and for amounts of money.
"""

import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from service.web.nulls import allow_nulls

Json = dict[str, Any]
REF = "#/components/schemas/{name}"
WIDEST = {"integer": "int64", "number": "double"}


Structs = Sequence[type[msgspec.Struct]]


def describe_types(bodies: Structs, answers: Structs, queries: Structs) -> tuple[Json, Json]:
    """Return the schemas of bodies and answers by name, and those of queries, which keep their defaults."""
    _, components = msgspec.json.schema_components([*bodies, *answers, *queries], ref_template=REF)
    allow_nulls(bodies, components)
    read = {name: components.pop(name) for name in {kind.__name__ for kind in queries}}
    requested = _reachable((kind.__name__ for kind in bodies), components)
    return {name: _tidy_type(schema, is_request=name in requested) for name, schema in components.items()}, read


def tidy(schema: Json) -> Json:
    """Return the schema in words that generators understand."""
    made = {name: _tidy_part(name, value) for name, value in schema.items()}
    kind = made.get("type")
    if kind in WIDEST and "maximum" not in made:
        made["format"] = WIDEST[kind]
    if all(isinstance(value, str) for value in made.get("enum", [None])):
        made["type"] = "string"
    if kind == "object" and "properties" not in made:
        made.setdefault("additionalProperties", made.get("maxProperties") != 0)
    return made


def _tidy_part(name: str, value: Any) -> Any:
    match name:
        case "properties":
            return {field: tidy(schema) for field, schema in value.items()}
        case "anyOf" | "prefixItems":
            return [tidy(schema) for schema in value]
        case "items" | "additionalProperties" | "propertyNames" if isinstance(value, dict):
            return tidy(value)
        case "description":
            return inspect.cleandoc(value)
        case _:
            return value


def _tidy_type(schema: Json, *, is_request: bool) -> Json:
    properties: Json = schema.get("properties", {})
    made = {**schema, "properties": {name: _tidy_field(one, is_request) for name, one in properties.items()}}
    if not is_request:
        required = schema.get("required", ())
        made["required"] = [name for name, one in properties.items() if name in required or "default" in one]
    return tidy(made)


def _tidy_field(schema: Json, is_request: bool) -> Json:
    default = schema.get("default")
    made = {name: value for name, value in schema.items() if name != "default"}
    if is_request and default not in (None, "", []) and not isinstance(default, dict):
        made["description"] = f"{schema.get('description', '')} Default: `{_as_text(default)}`.".strip()
    return made


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _reachable(names: Iterable[str], components: Json) -> set[str]:
    """Return these names and those that their schemas refer to, however deep."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += _references(components[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _references(value)
