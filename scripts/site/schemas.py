"""JSON Schemas in words: types with links to each other, limits, and the fields of a body."""

import inspect
import json
from typing import Any

from scripts.site.tables import code, codes, render_table

Json = dict[str, Any]
NULL = {"type": "null"}
WORDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "maxProperties": "at most {} keys",
}


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
    return str(schema.get("format") or schema.get("type", "any"))


def render_limits(schema: Json, described: Json) -> str:
    """What it means, and what it may be."""
    found = [
        words.format(branch[name])
        for branch in (schema, *(branch for branch in schema.get("anyOf", []) if branch != NULL))
        for name, words in WORDS.items()
        if name in branch
    ]
    if schema.get("default") is not None:
        found.append(f"default {code(json.dumps(schema['default']))}")
    about = inspect.cleandoc(described.get("description", ""))
    return " ".join(part for part in (about, ", ".join(found)) if part)
