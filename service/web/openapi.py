"""OpenAPI 3.1 of the routes, from the same declarations and types that decode and encode."""

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from service.web import webhooks
from service.web.calls import Operation
from service.web.errors import TITLES, ProblemBody
from service.web.schemas import REF, describe_types, tidy

Json = dict[str, Any]

TAGS = {
    "Tasks": "One task is one job for one provider.",
    "Events": "What happened, in one order for everybody: as a list, and as a stream.",
    "Endpoints": "Subscribers: each gets the events it asked for, signed after Standard Webhooks.",
    "Deliveries": "One event on its way to one endpoint, with every attempt.",
    "Providers": "What the upstream APIs can do, and where they call back.",
    "Keys": "Who may call this service, and what for.",
    "Operation": "For whoever runs the service; without a key.",
    webhooks.TAG: webhooks.ABOUT,
}
ABOUT = """Submit an image-generation task once; Taskhook submits it to the provider, takes the callback, polls where
none comes, and forwards one normalized, signed event to each subscriber.

Every call under `/v1` needs a key: `Authorization: Bearer KEY`. Refusals are `application/problem+json` (RFC 9457); a
422 names each wrong field in `errors`. Every answer carries `X-Request-ID`, which is in the service's log too."""
ABOUT_KEYS = "A key of this service. Each operation names the scope it needs; `admin` has them all."
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_PARAMETERS = {
    "id": "The id of the thing.",
    "provider": "The provider's id.",
    "account": "The id of one of its accounts.",
    "token": "The signed token of the task, a secret.",
}
_HEADERS: dict[str, Json] = {
    "Idempotency-Key": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    "Last-Event-ID": {"type": "string", "pattern": "^evt_[0-9a-f]{32}$"},
}


def build_document(operations: Sequence[Operation[Any, Any]], server_url: str = "/") -> Json:
    bodies = [operation.body for operation in operations if operation.body is not None]
    queries = [operation.query for operation in operations if operation.query is not None]
    answers = [kind for operation in operations for kind in operation.answers.values() if isinstance(kind, type)]
    schemas, read = describe_types(bodies, [*answers, ProblemBody, *webhooks.TYPES], queries)
    paths: Json = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _describe(operation, read)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Taskhook",
            "version": version("taskhook"),
            "summary": "One signed event for every image-generation task, whatever the provider.",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url, "description": "This service"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "webhooks": webhooks.describe_webhooks(),
        "components": {
            "schemas": schemas | webhooks.describe_events(schemas),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": ABOUT_KEYS}},
        },
    }


def _describe(operation: Operation[Any, Any], queries: Json) -> Json:
    described: Json = {
        "operationId": operation.endpoint.__name__,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, queries), *_headers(operation)],
        "responses": {str(status): _answer(status, kind) for status, kind in operation.answers.items()},
    }
    described["responses"] |= {str(status): _problem(status) for status in problems_of(operation)}
    described["security"] = [] if operation.right is None else [{"key": [operation.right]}]
    if operation.body is not None:
        described["requestBody"] = _request_body(operation.body)
    return described


def problems_of(operation: Operation[Any, Any]) -> list[int]:
    """Every status with which the operation can refuse."""
    found = {*operation.problems, 500, 503} - set(operation.answers)
    if operation.right is not None:
        found |= {401, 403, 429}
    if operation.body is not None:
        found |= {400, 413, 415, 422}
    if operation.query is not None:
        found.add(422)
    if "{" in operation.path:
        found.add(404)
    return sorted(found)


def _path_parameters(operation: Operation[Any, Any]) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "description": _PARAMETERS[name], "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]


def _query_parameters(operation: Operation[Any, Any], queries: Json) -> list[Json]:
    if operation.query is None:
        return []
    properties = queries[operation.query.__name__]["properties"]
    return [_query_parameter(name, dict(schema)) for name, schema in properties.items()]


def _query_parameter(name: str, schema: Json) -> Json:
    """Describe a query parameter; optional ones have no null, since a query can't express it."""
    branches = [branch for branch in schema.pop("anyOf", []) if branch != {"type": "null"}]
    for branch in branches:
        schema |= branch
    if schema.get("default", 0) is None:
        del schema["default"]
    parameter: Json = {"name": name, "in": "query", "required": False}
    if "description" in schema:
        parameter["description"] = schema.pop("description")
    if schema.get("type") == "object":
        parameter |= {"style": "deepObject", "explode": True}
        del schema["default"]
    return parameter | {"schema": tidy(schema)}


def _headers(operation: Operation[Any, Any]) -> list[Json]:
    return [
        {"name": name, "in": "header", "required": False, "description": text, "schema": _HEADERS[name]}
        for name, text in operation.headers.items()
    ]


def _request_body(kind: type[Any]) -> Json:
    content: Json = {"schema": {"$ref": REF.format(name=kind.__name__)}}
    if hasattr(kind, "example"):
        content["example"] = kind.example
    return {"required": True, "content": {"application/json": content}}


def _answer(status: int, kind: Any) -> Json:
    words = {200: "Done.", 201: "Created.", 202: "Accepted.", 204: "Done; there is nothing to tell."}
    described: Json = {"description": words.get(status, TITLES.get(status, "") + ".")}
    if isinstance(kind, str):
        described["content"] = {
            media_type: {"schema": {"type": "object" if media_type.endswith("json") else "string"}}
            for media_type in kind.split(", ")
        }
    elif kind is not None:
        described["content"] = {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}}}
    return described


def _problem(status: int) -> Json:
    schema = {"$ref": REF.format(name=ProblemBody.__name__)}
    described: Json = {
        "description": f"{TITLES[status]}.",
        "content": {"application/problem+json": {"schema": schema}},
    }
    if status in (429, 503):
        described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return described
