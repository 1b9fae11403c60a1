"""JSON Schemas in words: types with links to each other, limits, and the fields of a body."""

import inspect
import json
from typing import Any

from scripts.site.tables import code, codes, render_table

Json = dict[str, Any]
NULL = {"type": "null"}
BOUNDS = (
    ("minimum", "maximum", ""),
    ("minLength", "maxLength", "characters"),
    ("minItems", "maxItems", "entries"),
    ("minProperties", "maxProperties", "keys"),
)


def name_of(schema: Json) -> str:
    return str(schema["$ref"].rpartition("/")[2])


def render_schema(name: str, schema: Json) -> str:
    about = inspect.cleandoc(schema.get("description", ""))
    fields = render_fields(schema, {})
    return "\n\n".join(part for part in (f"### {name} {{ #type-{name.lower()} }}", about, fields) if part)


def render_fields(schema: Json, schemas: Json, prefix: str = "") -> str:
    """A row for each field; those of objects inside follow theirs where `schemas` knows them."""
    rows = _rows(schema, schemas, prefix)
    return render_table(("Field", "Type", ""), rows) if rows else "No fields."


def _rows(schema: Json, schemas: Json, prefix: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, field in schema.get("properties", {}).items():
        needed = " *required*" if name in schema.get("required", []) else ""
        rows.append((f"{code(prefix + name)}{needed}", render_type(field), render_limits(field, field)))
        if "$ref" in field and name_of(field) in schemas:
            rows += _rows(schemas[name_of(field)], schemas, f"{prefix}{name}.")
    return rows


def render_type(schema: Json) -> str:
    if "$ref" in schema:
        return f"[{name_of(schema)}](#type-{name_of(schema).lower()})"
    if "anyOf" in schema:
        return " or ".join(render_type(branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return codes(schema["enum"])
    if schema.get("type") == "array":
        return f"list of {render_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {render_type(schema['additionalProperties'])}"
    kind = str(schema.get("type", "any"))
    return str(schema.get("format", kind)) if kind == "string" else kind


def render_limits(schema: Json, described: Json) -> str:
    """What it means, and what it may be."""
    branches = (schema, *(branch for branch in schema.get("anyOf", []) if branch != NULL))
    found = [words for branch in branches for bound in BOUNDS if (words := _bounds(branch, *bound))]
    if "exclusiveMinimum" in schema:
        found.append(f"above {schema['exclusiveMinimum']:g}")
    if schema.get("default") is not None:
        found.append(f"default {code(json.dumps(schema['default']))}")
    about = inspect.cleandoc(described.get("description", ""))
    limits = "; ".join(found)
    return f"{about} {limits[0].upper()}{limits[1:]}." if about and limits else about or limits


def _bounds(schema: Json, least: str, most: str, unit: str) -> str:
    """Such as `1 to 50 entries`, `at most 50 keys`, `from 1`."""
    match schema.get(least), schema.get(most):
        case None, None:
            return ""
        case None, maximum:
            return f"at most {_plain(maximum)} {unit}".rstrip()
        case minimum, None:
            return f"from {_plain(minimum)} {unit}".rstrip()
        case minimum, maximum:
            return f"{_plain(minimum)} to {_plain(maximum)} {unit}".rstrip()


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
