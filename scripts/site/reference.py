"""The API reference as Markdown, made from the OpenAPI document that the service itself serves."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from scripts.site.schemas import Json, name_of, render_fields, render_limits, render_schema, render_type
from scripts.site.tables import code, render_table
from service.web.openapi import build_document
from service.web.routes import OPERATIONS

IDS = {"Tasks": "TASK", "Events": "EVENT", "Endpoints": "ENDPOINT", "Deliveries": "DELIVERY", "Keys": "KEY"}
PROBLEM = "application/problem+json"
QUERIES = {
    "get_task": "?wait=60",
    "list_tasks": "?status=failed&limit=20",
    "list_deliveries": "?status=pending",
}
"""What a sample asks for, where an empty query shows too little."""
EXAMPLES: dict[str, Json] = {
    "create_task": {"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": "a lighthouse at dusk"}},
    "recover": {"since": "2026-01-01T00:00:00Z", "dry_run": True},
    "change_endpoint": {"enabled": True},
    "create_endpoint": {"url": "http://127.0.0.1:9000/hook", "events": ["task.*"]},
    "create_key": {"name": "the shop", "scopes": ["tasks:write", "tasks:read"]},
}
"""Bodies of samples; without one it is the document's own example."""


@cache
def document() -> Json:
    return json.loads(json.dumps(build_document(OPERATIONS)))  # type: ignore[no-any-return]


def operations() -> Iterator[tuple[str, str, Json]]:
    """Each as method, path and description."""
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def render_operations() -> str:
    groups = "\n\n".join(_group(tag["name"], tag["description"]) for tag in document()["tags"])
    schemas = document()["components"]["schemas"]
    types = "\n\n".join(render_schema(name, schemas[name]) for name in sorted(schemas))
    return f"{groups}\n\n## Types\n\n{types}"


def _group(name: str, description: str) -> str:
    found = [operation for operation in operations() if name in operation[2]["tags"]]
    return "\n\n".join([f"## {name}", description, *(_operation(*operation) for operation in found)])


def _operation(method: str, path: str, operation: Json) -> str:
    parts = [
        f"### {operation['summary']} {{ #{operation['operationId']} }}",
        f'<p class="call"><b class="{method.lower()}">{method}</b> <code>{path}</code> {_right(operation)}</p>',
        _parameters(operation["parameters"]),
        _body(operation.get("requestBody")),
        _sample(method, path, operation),
        _answers(operation["responses"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _right(operation: Json) -> str:
    rights = [right for need in operation["security"] for right in need["key"]]
    return f'<span class="right">needs {rights[0]}</span>' if rights else '<span class="right open">no key</span>'


def _parameters(parameters: list[Json]) -> str:
    rows = (
        (code(one["name"]), one["in"], render_type(one["schema"]), render_limits(one["schema"], one))
        for one in parameters
    )
    return render_table(("Parameter", "In", "Type", ""), rows) if parameters else ""


def _body(body: Json | None) -> str:
    if body is None:
        return ""
    name = name_of(body["content"]["application/json"]["schema"])
    schemas = document()["components"]["schemas"]
    return f"Body, [{name}](#type-{name.lower()}):\n\n{render_fields(schemas[name], schemas)}"


def _sample(method: str, path: str, operation: Json) -> str:
    """The call with curl; a callback is made by providers alone."""
    if path.startswith("/callbacks"):
        return ""
    lines = [f'curl -s{"N" if path.endswith("/stream") else ""} "$TASKHOOK_URL{_address(path, operation)}"']
    if method != "GET":
        lines[0] = lines[0].replace("curl -s", f"curl -s -X {method}")
    if operation["security"]:
        lines.append('-H "Authorization: Bearer $TASKHOOK_API_KEY"')
    if body := _example(operation):
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(body, ensure_ascii=False)}'"]
    return "```bash\n" + " \\\n  ".join(lines) + "\n```"


def _address(path: str, operation: Json) -> str:
    kind = "FAULT" if "faults" in path else IDS.get(operation["tags"][0], "")
    return re.sub(r"{id}", f"${kind}_ID", path) + QUERIES.get(operation["operationId"], "")


def _example(operation: Json) -> Any:
    if "requestBody" not in operation:
        return None
    own = operation["requestBody"]["content"]["application/json"].get("example")
    return EXAMPLES.get(operation["operationId"], own)


def _answers(responses: Json) -> str:
    """The good ones with their types; the refusals, which are all alike, in one row."""
    rows, refusals = [], []
    for status, answer in responses.items():
        if PROBLEM in answer.get("content", {}):
            refusals.append(f"{status} {answer['description'].rstrip('.').lower()}")
        else:
            rows.append((code(status), _content(answer), answer["description"]))
    if refusals:
        rows.append(("refused", "[ProblemBody](#type-problembody)", ", ".join(refusals)))
    return render_table(("Answer", "Type", ""), rows)


def _content(answer: Json) -> str:
    kinds = (
        render_type(content["schema"])
        if media_type == "application/json" and "$ref" in content["schema"]
        else media_type
        for media_type, content in answer.get("content", {}).items()
    )
    return ", ".join(kinds)
