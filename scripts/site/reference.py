"""The API reference as Markdown, made from the OpenAPI document that the service itself serves."""

import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from scripts.site.schemas import Json, name_of, render_fields, render_limits, render_schema, render_type
from scripts.site.tables import code, codes, render_table
from service.web.errors import TITLES
from service.web.openapi import build_document
from service.web.routes import OPERATIONS

IDS = {"Tasks": "TASK", "Events": "EVENT", "Endpoints": "ENDPOINT", "Deliveries": "DELIVERY", "Keys": "KEY"}
PROBLEM = "application/problem+json"
EVERYWHERE = {"401", "403", "405", "429", "500", "503"}
"""Refusals that any call may give; the page tells of them once."""
REFUSALS = {
    400: "the request can't be read: its JSON is broken, or it is not what HTTP asks for",
    401: "no key, or none that is known",
    403: "the key lacks the scope; of a callback: its token or signature is not genuine",
    404: "no such thing",
    405: "this address has other methods; `Allow` names them",
    408: "headers or body took too long to arrive; the connection is closed",
    409: "at odds with the state it is in, or another request under that `Idempotency-Key`",
    413: "the body is over 1 MiB",
    415: "the body is something other than JSON",
    422: "fields are wrong; `errors` names each, with what is allowed instead",
    429: "too many failed attempts from this address; come again after `Retry-After`",
    431: "headers or address are too many or too large, over 32 KiB; the connection is closed",
    500: "a mistake of ours; the log has it under `request_id`",
    503: "it can't be kept or done right now; nothing was done, come again after `Retry-After`",
}
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
    found = [_operation(*operation) for operation in operations() if name in operation[2]["tags"]]
    return "\n\n".join([f"## {name}", description, *(found or [_webhooks()])])


def _webhooks() -> str:
    rows = []
    for kind, methods in document()["webhooks"].items():
        media = methods["post"]["requestBody"]["content"]
        rows.append((code(kind), render_type(media["application/json"]["schema"]), methods["post"]["summary"]))
    return render_table(("Event", "Body", ""), rows)


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
    """The id in a path says itself what it is."""
    rows = [
        (code(one["name"]), one["in"], render_type(one["schema"]), render_limits(one["schema"], one))
        for one in parameters
        if one["name"] != "id"
    ]
    return render_table(("Parameter", "In", "Type", ""), rows) if rows else ""


def _body(body: Json | None) -> str:
    if body is None:
        return ""
    name = name_of(body["content"]["application/json"]["schema"])
    schemas = document()["components"]["schemas"]
    about = inspect.cleandoc(schemas[name].get("description", ""))
    return f"Body, [{name}](#type-{name.lower()}): {about}\n\n{render_fields(schemas[name], schemas)}"


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
    runs_on = '<!-- sample: runs on, ready at "id:" -->\n' if path.endswith("/stream") else ""
    return f"{runs_on}```bash\n" + " \\\n  ".join(lines) + "\n```"


def _address(path: str, operation: Json) -> str:
    kind = "FAULT" if "faults" in path else IDS.get(operation["tags"][0], "")
    return re.sub(r"{id}", f"${kind}_ID", path) + QUERIES.get(operation["operationId"], "")


def _example(operation: Json) -> Any:
    if "requestBody" not in operation:
        return None
    own = operation["requestBody"]["content"]["application/json"].get("example")
    return EXAMPLES.get(operation["operationId"], own)


def render_problems() -> str:
    """Every status of a refusal, with its title; a new one has to be explained above."""
    return render_table(
        ("Status", "Title", ""), ((code(status), TITLES[status], REFUSALS[status]) for status in TITLES)
    )


def _answers(responses: Json) -> str:
    """The good ones with their types; the refusals that this call has beyond those of every call."""
    good = {status: answer for status, answer in responses.items() if PROBLEM not in answer.get("content", {})}
    rows = ((code(status), _content(answer), answer["description"]) for status, answer in good.items())
    refusals = codes(status for status in responses if status not in good and status not in EVERYWHERE)
    table = render_table(("Answer", "Type", ""), rows)
    return f"{table}\n\nRefused with {refusals} ([why](#refusals))." if refusals else table


def _content(answer: Json) -> str:
    kinds = (
        render_type(content["schema"])
        if media_type == "application/json" and "$ref" in content["schema"]
        else media_type
        for media_type, content in answer.get("content", {}).items()
    )
    return ", ".join(kinds)
