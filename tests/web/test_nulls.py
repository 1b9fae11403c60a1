"""Null for an optional field of a request body means its default."""

from typing import Any

import httpx
import msgspec
import pytest

from service.web.bodies import decode_body
from service.web.nulls import struct_of
from service.web.routes import OPERATIONS
from tests.web.conftest import DOCUMENT, MODEL, errors

URL = "http://127.0.0.1:9999/hook"
TASK: dict[str, Any] = {"model": MODEL, "input": {"prompt": "a lamp"}}
BODIES = {operation.body.__name__: operation.body for operation in OPERATIONS if operation.body is not None}


def optional_fields(kind: type[msgspec.Struct], *path: str) -> list[tuple[str, ...]]:
    """Every field with a default, nested ones too, as the way to it."""
    found = []
    for field in msgspec.structs.fields(kind):
        if not field.required:
            found.append((*path, field.encode_name))
        if nested := struct_of(field.type):
            found += optional_fields(nested, *path, field.encode_name)
    return found


FIELDS = [(name, path) for name, kind in BODIES.items() if name != "ChangeEndpoint" for path in optional_fields(kind)]


def name_of(value: object) -> str:
    return ".".join(value) if isinstance(value, tuple) else str(value)


def with_null(body: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    return {**body, first: with_null(body.get(first) or {}, tuple(rest)) if rest else None}


def without(body: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    others = {name: value for name, value in body.items() if name != first}
    return {**others, first: without(body.get(first) or {}, tuple(rest))} if rest else others


@pytest.mark.parametrize(("name", "path"), FIELDS, ids=name_of)
def test_null_decodes_as_if_the_field_was_left_out(name: str, path: tuple[str, ...]) -> None:
    kind: Any = BODIES[name]
    decoder = msgspec.json.Decoder(kind)
    left_out, null = (msgspec.json.encode(change(kind.example, path)) for change in (without, with_null))
    assert decode_body(null, decoder) == decode_body(left_out, decoder)


@pytest.mark.parametrize("field", ["metadata", "timeout_s", "on_unconfirmed", "webhook_url"])
async def test_a_task_takes_null_for_its_optional_fields(client: httpx.AsyncClient, field: str) -> None:
    reply = await client.post("/v1/tasks", json=TASK | {field: None})
    assert reply.status_code == 202, reply.text


@pytest.mark.parametrize("field", ["n", "options", "size", "translate"])
async def test_a_tasks_input_takes_null_for_its_optional_fields(client: httpx.AsyncClient, field: str) -> None:
    plain = await client.post("/v1/tasks", json=TASK)
    reply = await client.post("/v1/tasks", json=TASK | {"input": {"prompt": "a lamp", field: None}})
    assert reply.status_code == 202, reply.text
    assert reply.json()["input"] == plain.json()["input"]


async def test_null_is_the_same_request_to_an_idempotency_key(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await client.post("/v1/tasks", json=TASK, headers=headers)
    again = await client.post("/v1/tasks", json=TASK | {"metadata": None, "timeout_s": None}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


async def test_an_endpoint_takes_null_for_every_optional_field(client: httpx.AsyncClient) -> None:
    plain = (await client.post("/v1/endpoints", json={"url": URL})).json()
    optional = {path[0]: None for path in optional_fields(BODIES["CreateEndpoint"])}
    reply = await client.post("/v1/endpoints", json={"url": URL} | optional)
    assert reply.status_code == 201, reply.text
    assert settings_of(reply.json()) == settings_of(plain)


def settings_of(endpoint: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in endpoint.items() if name not in ("id", "secret", "created_at")}


async def test_null_in_a_change_resets_the_field_to_its_default(client: httpx.AsyncClient) -> None:
    made = (
        await client.post(
            "/v1/endpoints",
            json={"url": URL, "max_in_flight": 3, "description": "mine", "format": "cloudevents", "rate_per_s": 2},
        )
    ).json()
    nulls = {"max_in_flight": None, "format": None, "rate_per_s": None}
    changed = (await client.patch(f"/v1/endpoints/{made['id']}", json=nulls)).json()
    assert (changed["max_in_flight"], changed["format"], changed["rate_per_s"]) == (10, "standard", None)
    assert changed["description"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "body", "loc"),
    [
        ("POST", "/v1/tasks", {**TASK, "model": None}, "body.model"),
        ("POST", "/v1/tasks", {**TASK, "metadata": None, "input": {"prompt": "a lamp", "n": "two"}}, "body.input.n"),
        ("POST", "/v1/tasks", {**TASK, "metadata": {"order": None}}, "body.metadata"),
        ("POST", "/v1/endpoints", {"url": None}, "body.url"),
        ("POST", "/v1/keys", {"name": "one", "scopes": None}, "body.scopes"),
    ],
)
async def test_null_stays_wrong_where_there_is_no_default(
    client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any], loc: str
) -> None:
    reply = await client.request(method, path, json=body)
    assert reply.status_code == 422
    assert loc in errors(reply)


def test_a_null_among_the_options_is_kept_for_the_provider() -> None:
    body = {**TASK, "metadata": None, "input": {"prompt": "a lamp", "n": None, "options": {"seed": None}}}
    decoded = decode_body(msgspec.json.encode(body), msgspec.json.Decoder(BODIES["CreateTask"]))
    assert decoded.input.options == {"seed": None}  # type: ignore[attr-defined]


def test_the_document_says_that_null_is_accepted() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {"type": "null"} in schemas["CreateTask"]["properties"]["metadata"]["anyOf"]
    assert {"type": "null"} in schemas["TaskInput"]["properties"]["n"]["anyOf"]
    assert "anyOf" not in schemas["CreateTask"]["properties"]["model"]
