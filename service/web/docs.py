"""The API reference for people: one page, made from the OpenAPI document on the server, that loads nothing else."""

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from typing import Any

from service.web.calls import Answer

Json = dict[str, Any]
ANY = "application/json"
MEDIA_TYPE = b"text/html; charset=utf-8"


def render_page(document: Json) -> Answer:
    """The style's hash stands in the policy, so that no other style and no script at all would run."""
    style = (files("service.web") / "docs.css").read_text()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
    body = _page(document, style).encode()
    headers = ((b"content-security-policy", policy.encode()), (b"cache-control", b"no-cache"))
    return Answer(200, body, MEDIA_TYPE, headers)


def _page(document: Json, style: str) -> str:
    info, groups = document["info"], _groups(document)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(info["title"])} API</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<nav aria-label="Operations">
<p class="brand">{escape(info["title"])} <small>{escape(info["version"])}</small></p>
{"".join(_menu(name, operations) for name, _, operations in groups)}
<h2><a href="#schemas">Schemas</a></h2>
</nav>
<main>
<header>
<h1>{escape(info["title"])} API</h1>
<p class="lead">{escape(info["summary"])}</p>
{_paragraphs(info["description"])}
<p>The same for programs: <a href="openapi.json">openapi.json</a> (OpenAPI {escape(document["openapi"])}).</p>
</header>
{"".join(_group(*group) for group in groups)}
{_schemas(document["components"]["schemas"])}
</main>
</body>
</html>
"""


def _groups(document: Json) -> list[tuple[str, str, list[tuple[str, str, Json]]]]:
    """Each tag with its description and its operations, as method, path and description."""
    found = [
        (method.upper(), path, operation)
        for path, operations in (*document["paths"].items(), *document["webhooks"].items())
        for method, operation in operations.items()
    ]
    return [
        (tag["name"], tag["description"], [one for one in found if tag["name"] in one[2]["tags"]])
        for tag in document["tags"]
    ]


def _menu(name: str, operations: list[tuple[str, str, Json]]) -> str:
    links = "".join(
        f'<li><a href="#{operation["operationId"]}">{_badge(method)}<span>{escape(_short(path))}</span></a></li>'
        for method, path, operation in operations
    )
    return f'<h2><a href="#{name}">{escape(name)}</a></h2><ul>{links}</ul>'


def _short(path: str) -> str:
    return path.removeprefix("/v1")


def _group(name: str, description: str, operations: list[tuple[str, str, Json]]) -> str:
    sections = "".join(_operation(*operation) for operation in operations)
    return f'<section><h2 id="{name}">{escape(name)}</h2><p>{_marked(description)}</p>{sections}</section>'


def _operation(method: str, path: str, operation: Json) -> str:
    lock = "" if operation["security"] == [] else '<span class="key">needs a key</span>'
    return f"""<article id="{operation["operationId"]}">
<h3>{escape(operation["summary"])}</h3>
<p class="line">{_badge(method)} <code>{_path(path)}</code> {lock}</p>
{_parameters(operation["parameters"])}
{_body(operation.get("requestBody"))}
{_answers(operation["responses"])}
</article>
"""


def _badge(method: str) -> str:
    return f'<b class="method {method.lower()}">{method}</b>'


def _path(path: str) -> str:
    """With its parameters set apart."""
    return escape(path).replace("{", '<i class="parameter">{').replace("}", "}</i>")


def _parameters(parameters: list[Json]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{one['in']}</td><td>{_type(one['schema'])}</td>"
        f"<td>{_marked(one.get('description', ''))}</td></tr>"
        for one in parameters
    )
    head = "<tr><th>Name</th><th>In</th><th>Type</th><th>Meaning</th></tr>"
    return f'<h4>Parameters</h4><div class="wide"><table>{head}{rows}</table></div>'


def _body(body: Json | None) -> str:
    if body is None:
        return ""
    content = body["content"]["application/json"]
    heading = f"<h4>Body: {_type(content['schema'])}</h4>"
    if "example" not in content:
        return heading
    return f"{heading}<pre><code>{escape(json.dumps(content['example'], indent=2))}</code></pre>"


def _answers(responses: Json) -> str:
    """The good ones with their types, the refusals as one line."""
    good, refusals = [], []
    for status, response in responses.items():
        for media_type, content in response.get("content", {"": {"schema": {}}}).items():
            if media_type == "application/problem+json":
                refusals.append(f'<abbr title="{escape(response["description"])}">{status}</abbr>')
            else:
                what = _type(content["schema"]) if media_type == "application/json" else escape(media_type)
                good.append(f"<li><b>{status}</b> {escape(response['description'])} {what}</li>")
    refused = f"<li>Refused with {_type({'$ref': '#/ProblemBody'})}: {', '.join(refusals)}</li>" if refusals else ""
    return f"<h4>Answers</h4><ul>{''.join(good)}{refused}</ul>"


def _schemas(schemas: Json) -> str:
    sections = "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))
    return f'<section><h2 id="schemas">Schemas</h2>{sections}</section>'


def _schema(name: str, schema: Json) -> str:
    required = schema.get("required", [])
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' <em>required</em>' if field in required else ''}</td>"
        f"<td>{_type(value)}</td><td>{_limits(value)}</td></tr>"
        for field, value in schema.get("properties", {}).items()
    )
    head = "<tr><th>Field</th><th>Type</th><th>Limits</th></tr>"
    table = f'<div class="wide"><table>{head}{rows}</table></div>' if rows else ""
    described = _paragraphs(schema.get("description", ""))
    return f'<details id="schema-{name}" open><summary>{name}</summary>{described}{table}</details>'


def _type(schema: Json) -> str:
    """A type in words, with a link to each schema that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(json.dumps(value))}</code>" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    kind = str(schema.get("type", "any"))
    return escape(schema.get("format", kind) if kind == "string" else kind)


LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "maxProperties": "at most {} keys",
}


def _limits(schema: Json) -> str:
    branches = [schema, *schema.get("anyOf", [])]
    found = [
        words.format(f"<code>{escape(json.dumps(branch[name]))}</code>")
        for branch in branches
        for name, words in LIMITS.items()
        if name in branch
    ]
    return ", ".join([*found, *([_marked(schema["description"])] if "description" in schema else [])])


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_marked(part)}</p>" for part in text.split("\n\n"))


def _marked(text: str) -> str:
    """Escaped, with `code` set as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
