"""Common to all requests: keys, bodies, queries, ids, headers, refusals."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from service.core.problems import InvalidRequest, Problem, Unavailable, UnsupportedType
from service.web.bodies import BODY_MAX, ERRORS_MAX, check_content_type, decode_body
from service.web.queries import decode_query
from service.web.routes import build_app
from service.web.tasks import CreateTask, ListTasks
from tests.web.conftest import DOCUMENT, KEY, MODEL, Site, errors

GOOD = {"model": MODEL, "input": {"prompt": "a lighthouse"}}
CREATE = CreateTask
JSON = {"Content-Type": "application/json"}


def decode(body: bytes) -> CreateTask:
    return decode_body(body, msgspec.json.Decoder(CreateTask))


# Keys


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer é"],
)
async def test_nothing_under_v1_is_open_without_a_key(client: httpx.AsyncClient, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    del client.headers["Authorization"]
    for path, operations in DOCUMENT["paths"].items():
        if path.startswith("/v1/"):
            for method in [*operations, "put"]:
                reply = await client.request(method, path.replace("{id}", "unknown"), headers=headers)
                errors(reply, 401)
                assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["GET", "PUT", "BREW"])
@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/v1/tasks/", "/v1/tasks"])
async def test_a_stranger_is_not_told_what_is_under_v1(client: httpx.AsyncClient, method: str, path: str) -> None:
    status = 404 if path != "/v1/tasks" else 200 if method == "GET" else 405
    assert (await client.request(method, path)).status_code == status
    del client.headers["Authorization"]
    errors(await client.request(method, path), 401)


@pytest.mark.parametrize("key", [KEY, "another-key", f"  {KEY} "])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_each_key_opens(client: httpx.AsyncClient, key: str, scheme: str) -> None:
    assert (await client.get("/v1/tasks", headers={"Authorization": f"{scheme} {key}"})).status_code == 200


# Bodies

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b"  ",
    "a brace": b"{",
    "a form": b"model=x",
    "bad utf-8": b'{"model": "\xff"}',
    "a surrogate as bytes": b'{"model": "\xed\xa0\x80"}',
    "deep": b"[" * 50_000,
    "deep and closed": b"[" * 50_000 + b"]" * 50_000,
    "deep in options": b'{"model":"m","input":{"prompt":"x","options":{"a":' + b"[" * 50_000,
    "not a number": b'{"model":"m","input":{"prompt":"x"},"timeout_s":NaN}',
    "infinity": b'{"model":"m","input":{"prompt":"x"},"timeout_s":-Infinity}',
    "a line break in a string": b'{"model":"a\nb"}',
    "something after it": b"{} x",
    "two byte order marks": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
    "single quotes": b"{'model': 'x'}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_no_json_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    errors(await client.post("/v1/tasks", content=body, headers=JSON), 400)
    errors(await client.post("/v1/endpoints", content=body, headers=JSON), 400)


INVALID: dict[str, tuple[Any, str]] = {
    "a list": ([], "body"),
    "null": (None, "body"),
    "no model": ({"input": {"prompt": "x"}}, "body.model"),
    "no prompt": ({"model": MODEL, "input": {}}, "body.input.prompt"),
    "an empty prompt": ({"model": MODEL, "input": {"prompt": ""}}, "body.input.prompt"),
    "a long prompt": ({"model": MODEL, "input": {"prompt": "x" * 20_001}}, "body.input.prompt"),
    "n as text": (GOOD | {"input": {"prompt": "x", "n": "2"}}, "body.input.n"),
    "n too small": (GOOD | {"input": {"prompt": "x", "n": 0}}, "body.input.n"),
    "an unknown field": (GOOD | {"colour": "red"}, "body.colour"),
    "an unknown field inside": (GOOD | {"input": {"prompt": "x", "colour": 1}}, "body.input.colour"),
    "a field named like an error": (GOOD | {"a`b": 1}, "body.a`b"),
    "a picture from a file": (GOOD | {"input": {"prompt": "x", "image_url": "file:///etc"}}, "body.input.image_url"),
    "no time": (GOOD | {"timeout_s": 0.5}, "body.timeout_s"),
    "too much time": (GOOD | {"timeout_s": 86_401}, "body.timeout_s"),
    "a huge number": (GOOD | {"timeout_s": 10**400}, "body.timeout_s"),
    "another policy": (GOOD | {"on_unconfirmed": "hope"}, "body.on_unconfirmed"),
    "a webhook that is a number": (GOOD | {"webhook_url": 7}, "body.webhook_url"),
    "many labels": (GOOD | {"metadata": {str(n): "x" for n in range(51)}}, "body.metadata"),
    "a long label": (GOOD | {"metadata": {"k" * 65: "x"}}, "body.metadata"),
    "an empty label": (GOOD | {"metadata": {"": "x"}}, "body.metadata"),
    "a long value": (GOOD | {"metadata": {"k": "x" * 513}}, "body.metadata"),
    "a value that is a number": (GOOD | {"metadata": {"k": 1}}, "body.metadata"),
    "a NUL in the prompt": (GOOD | {"input": {"prompt": "a\0b"}}, "body.input.prompt"),
    "a NUL in a name": (GOOD | {"metadata": {"a\0": "x"}}, "body.metadata.a?"),
    "half a character": (GOOD | {"input": {"prompt": "a\ud800b"}}, "body.input.prompt"),
    "half a character deep inside": (
        GOOD | {"input": {"prompt": "x", "options": {"a": ["\udc00"]}}},
        "body.input.options.a.0",
    ),
}


@pytest.mark.parametrize(("body", "place"), INVALID.values(), ids=INVALID)
async def test_what_is_of_another_shape_is_refused_by_its_place(
    client: httpx.AsyncClient, body: Any, place: str
) -> None:
    found = errors(await client.post("/v1/tasks", content=json.dumps(body), headers=JSON))
    assert set(found) == {place}
    assert found[place][0].islower()
    assert "`" not in found[place]
    assert (await client.get("/v1/tasks")).json()["data"] == []


SEVERAL: dict[str, tuple[str, Any, set[str]]] = {
    "nothing": ("/v1/tasks", {}, {"body.model", "body.input"}),
    "of each kind": (
        "/v1/tasks",
        {"model": 1, "input": {"prompt": 1, "n": 0, "colour": 1}, "timeout_s": -1, "foo": 1},
        {"body.model", "body.input.prompt", "body.input.n", "body.input.colour", "body.timeout_s", "body.foo"},
    ),
    "an endpoint": (
        "/v1/endpoints",
        {"url": 1, "events": ["task.*", "x"], "format": "xml", "enabled": "yes", "max_in_flight": 0},
        {"body.url", "body.events.1", "body.format", "body.enabled", "body.max_in_flight"},
    ),
    "a key": ("/v1/keys", {"scopes": ["all"], "for": 1}, {"body.name", "body.scopes.0", "body.for"}),
}


@pytest.mark.parametrize(("path", "body", "places"), SEVERAL.values(), ids=SEVERAL)
async def test_every_wrong_field_is_named(client: httpx.AsyncClient, path: str, body: Any, places: set[str]) -> None:
    assert set(errors(await client.post(path, json=body))) == places


async def test_every_wrong_field_of_a_change_is_named(client: httpx.AsyncClient) -> None:
    endpoint = (await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:9999/"})).json()
    wrong = {"format": "xml", "rate_per_s": "many", "description": 1, "url": None}
    found = errors(await client.patch(f"/v1/endpoints/{endpoint['id']}", json=wrong))
    assert set(found) == {f"body.{name}" for name in wrong}
    assert found["body.format"] == "must be one of cloudevents, standard"


async def test_the_wrong_fields_that_are_named_are_bounded(client: httpx.AsyncClient) -> None:
    body = {"model": 1} | {f"field{n}": n for n in range(1_000)}
    assert len(errors(await client.post("/v1/tasks", json=body))) == ERRORS_MAX


async def test_a_field_that_is_given_twice_is_wrong_by_either_value(client: httpx.AsyncClient) -> None:
    body = b'{"model": 1, "model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": "x"}}'
    assert set(errors(await client.post("/v1/tasks", content=body, headers=JSON))) == {"body.model"}


async def test_an_enumeration_is_told_in_full(client: httpx.AsyncClient) -> None:
    found = errors(await client.post("/v1/tasks", json=GOOD | {"on_unconfirmed": "hope"}))
    assert found == {"body.on_unconfirmed": "must be one of resubmit, wait"}
    found = errors(await client.post("/v1/endpoints", json={"url": "http://a.example/", "events": ["task.*", "x"]}))
    assert "task.late_result" in found["body.events.1"]
    assert "succeeded" in errors(await client.get("/v1/tasks?status=done"))["query.status"]


async def test_an_escaped_character_that_can_be_stored_is_fine(client: httpx.AsyncClient) -> None:
    body = b'{"model":"fluxapi-ai/flux-kontext-pro","input":{"prompt":"\\ud83d\\ude00 \\\\u0000"}}'
    reply = await client.post("/v1/tasks", content=body, headers=JSON)
    assert reply.json()["input"]["prompt"] == "\N{GRINNING FACE} \\u0000"


@given(st.binary(max_size=100) | st.text(max_size=50).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    try:
        decode(body)
    except Problem as problem:
        assert problem.detail


JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(CREATE.__struct_fields__) | st.text(), JSONISH))
@settings(max_examples=100, deadline=None)
def test_no_json_does_more_than_be_refused(value: Any) -> None:
    try:
        decode(json.dumps(value).encode())
    except InvalidRequest as problem:
        assert all(error.loc[0] == "body" and error.msg for error in problem.errors)
        json.dumps(problem.detail).encode()
    except Problem:
        pass


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/vnd.x+json",
    ],
)
def test_json_is_json_in_any_spelling(value: str) -> None:
    check_content_type(value)


@pytest.mark.parametrize(
    "value",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json", "application/json; charset=latin-1"],
)
def test_another_content_type_is_unsupported(value: str | None) -> None:
    with pytest.raises(UnsupportedType):
        check_content_type(value)


async def test_another_content_type_is_told_before_the_body_is_read(client: httpx.AsyncClient) -> None:
    errors(await client.post("/v1/tasks", content=b"{}", headers={"Content-Type": "text/plain"}), 415)


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        yield b" " * 65_536


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "in chunks"])
async def test_a_body_of_two_mebibytes_is_too_large_and_its_sender_is_told(site: Site, declared: bool) -> None:
    async with site.serve() as client:
        content = b" " * (2 << 20) if declared else chunks(2 << 20)
        reply = await client.post("/v1/tasks", content=content, headers=JSON)
        errors(reply, 413)
        assert reply.headers["connection"] == "close"
        assert (await client.get("/v1/tasks")).status_code == 200


async def test_a_body_of_one_mebibyte_is_read(client: httpx.AsyncClient) -> None:
    body = json.dumps(GOOD).encode()
    reply = await client.post("/v1/tasks", content=body + b" " * (BODY_MAX - len(body)), headers=JSON)
    assert reply.status_code == 202


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_nobodys_error(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async with site.serve() as client:
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = (
            f"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        )
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        await writer.drain()
        writer.transport.abort()
        for _ in range(200):
            if b'status="499"' in generate_latest(site.metrics.registry):
                break
            await asyncio.sleep(0.01)
        assert b'method="POST",route="/v1/tasks",status="499"' in generate_latest(site.metrics.registry)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


# Queries


@pytest.mark.parametrize(
    ("path", "places"),
    [
        ("/v1/tasks?limit=0", {"query.limit"}),
        ("/v1/tasks?limit=201", {"query.limit"}),
        ("/v1/tasks?limit=many", {"query.limit"}),
        ("/v1/tasks?limit=", {"query.limit"}),
        ("/v1/tasks?limit=1&limit=2", {"query.limit"}),
        ("/v1/tasks?limit=0&status=done", {"query.limit", "query.status"}),
        ("/v1/tasks?status=null", {"query.status"}),
        ("/v1/tasks?cursor=nonsense", {"query.cursor"}),
        ("/v1/tasks?cursor=%C3%A9", {"query.cursor"}),
        ("/v1/tasks?cursor=", {"query.cursor"}),
        ("/v1/tasks?cursor=ZXZ0XzA", {"query.cursor"}),
        ("/v1/tasks?created_after=yesterday", {"query.created_after"}),
        ("/v1/tasks?created_after=2026-13-01", {"query.created_after"}),
        ("/v1/tasks?created_before=2026-01-01T25:00:00Z", {"query.created_before"}),
        ("/v1/tasks?colour=red&size=big", {"query.colour", "query.size"}),
        ("/v1/tasks?metadata.=x", {"query.metadata."}),
        ("/v1/tasks?metadata[]=x", {"query.metadata[]"}),
        ("/v1/tasks?metadata.a=x&metadata[a]=y", {"query.metadata.a", "query.metadata[a]"}),
        ("/v1/tasks?model=%00", {"query.model"}),
        ("/v1/tasks?model=%FF", {"query"}),
        ("/v1/tasks?" + "&".join(f"metadata.{n}=x" for n in range(101)), {"query"}),
        ("/v1/events?cursor=LTE", {"query.cursor"}),
        ("/v1/events?type=task.exploded", {"query.type"}),
        ("/v1/events?task_id=x", {"query.task_id"}),
        ("/v1/deliveries?status=lost", {"query.status"}),
        ("/v1/deliveries?cursor=x", {"query.cursor"}),
        ("/v1/endpoints?limit=0", {"query.limit"}),
        ("/v1/endpoints?colour=red", {"query.colour"}),
        ("/readyz?exclude=null", {"query.exclude"}),
    ],
)
async def test_a_wrong_query_is_refused_by_its_parameters(
    client: httpx.AsyncClient, path: str, places: set[str]
) -> None:
    assert set(errors(await client.get(path))) == places


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01",
        "2026-01-01T00:00Z",
        "2026-01-01t00:00:00.123456789z",
        "2026-01-01T00:00:00%2B02:00",
        "2026-01-01T00:00:00+02:00",
    ],
)
async def test_a_time_is_taken_in_each_usual_form(client: httpx.AsyncClient, text: str) -> None:
    assert (await client.get(f"/v1/tasks?created_after={text}")).status_code == 200


@given(st.binary(max_size=100) | st.text("abcdefimstu.=&%+_0123", max_size=60).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_no_query_does_more_than_be_refused(query: bytes) -> None:
    try:
        decode_query(query, ListTasks)
    except InvalidRequest as problem:
        assert all(error.loc[0] == "query" and error.msg for error in problem.errors)


# Ids, headers, refusals


@pytest.mark.parametrize("given_id", ["abc-123", "a" * 128, "trace:1.2_3"])
async def test_a_request_id_that_is_given_comes_back(client: httpx.AsyncClient, given_id: str) -> None:
    reply = await client.get("/v1/tasks/nonsense", headers={"X-Request-ID": given_id})
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == given_id


@pytest.mark.parametrize("given_id", [None, "", "a" * 129, "a b", "a\tb", "<script>"])
async def test_another_one_is_made_instead(client: httpx.AsyncClient, given_id: str | None) -> None:
    headers = {} if given_id is None else {"X-Request-ID": given_id}
    made = (await client.get("/healthz", headers=headers)).headers["x-request-id"]
    assert made.startswith("req_")


@pytest.mark.parametrize("path", ["/healthz", "/v1/tasks", "/v1/nothing", "/docs", "/nothing"])
async def test_every_answer_carries_the_security_headers(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"].startswith("default-src 'none';")
    assert len(headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/tasks/", "/callbacks", "/healthz/x", "//v1/tasks"])
async def test_an_address_with_nothing_at_it_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    errors(await client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/tasks", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/events", {"GET", "HEAD"}),
        ("PUT", "/v1/endpoints/x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("GET", "/v1/tasks/x/cancel", {"POST"}),
        ("GET", "/callbacks/fluxapi-ai/x", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_is_not_there_is_refused_with_those_that_are(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    reply = await client.request(method, path)
    errors(reply, 405)
    assert set(reply.headers["allow"].split(", ")) == allowed


async def test_head_is_get_without_a_body(site: Site) -> None:
    async with site.serve() as client:
        for path in ("/healthz", "/v1/tasks", "/docs", "/v1/events/stream"):
            reply = await client.head(path)
            assert (reply.status_code, reply.content) == (200, b"")


async def test_a_mistake_of_ours_tells_its_request_id_alone_and_is_logged_once(site: Site) -> None:
    def fail() -> str:
        raise RuntimeError("a detail that is nobody's business")

    async with site.client(trust__new_secret=fail) as client:
        with structlog.testing.capture_logs() as logs:
            reply = await client.post("/v1/endpoints", json={"url": "http://a.example/"})
    errors(reply, 500)
    assert "business" not in reply.text
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["event"], line["route"]) == ("request.failed", "/v1/endpoints")


async def test_a_store_that_is_away_is_told_with_a_time_to_come_again(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise Unavailable("The database can't be used right now.", retry_after_s=7, cause="BUSY")

    monkeypatch.setattr(site.reads, "get_task", away)
    with structlog.testing.capture_logs() as logs:
        reply = await client.get("/v1/tasks/task_" + "0" * 32)
    errors(reply, 503)
    assert reply.headers["retry-after"] == "7"
    assert "BUSY" not in reply.text
    told = [(line["event"], line["cause"]) for line in logs if line["log_level"] != "debug"]
    assert told == [("request.unavailable", "BUSY")]


async def test_metrics_name_the_route_and_never_the_path(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.create(client)
    await client.get(f"/v1/tasks/{task['id']}")
    await client.get("/some/where")
    text = generate_latest(site.metrics.registry).decode()
    assert 'taskhook_http_requests_total{method="GET",route="/v1/tasks/{id}",status="200"} 1.0' in text
    assert 'taskhook_http_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert 'taskhook_http_request_duration_seconds_count{method="POST",route="/v1/tasks"} 1.0' in text
    assert task["id"] not in text


async def test_a_mounted_application_stands_behind_the_same_gate(site: Site) -> None:
    async def hello(_: Any) -> PlainTextResponse:
        return PlainTextResponse("hello", headers={"Content-Security-Policy": "default-src 'self'"})

    app = build_app(site.context, [Mount("/other", routes=[Route("/hello", hello)])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://taskhook.test") as client:
        reply = await client.get("/other/hello")
        assert (reply.status_code, reply.text) == (200, "hello")
        assert reply.headers["content-security-policy"] == "default-src 'self'"
        assert reply.headers["x-request-id"].startswith("req_")
