"""Wrong input is refused before anything is stored or sent, and the answer names the field."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import locations, new_prompt, problem
from tests.support.service import API_KEY, Service
from tests.support.wait import patience

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("bad input")]

PICTURE = "https://example.com/in.png"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start()


async def nothing_came_of_it(world: World, service: Service, prompt: str) -> None:
    """No task holds the prompt, and no provider has heard of it."""
    tasks = await service.api.pages("/v1/tasks", limit=100)
    assert [task for task in tasks if task["input"].get("prompt") == prompt] == []
    for fake in world.fakes.values():
        assert all(prompt not in str(request.raw_body) for request in fake.server.requests)


INPUTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a ratio this model lacks": ("flux-context/gpt-4o", {"aspect_ratio": "16:9"}, "aspect_ratio"),
    "a ratio this provider lacks": ("fluxapi-ai/flux-kontext-pro", {"aspect_ratio": "7:5"}, "aspect_ratio"),
    "a ratio that is none": ("fluxapi-ai/flux-kontext-pro", {"aspect_ratio": "wide"}, "aspect_ratio"),
    "a tolerance out of range": ("fluxapi-ai/flux-kontext-pro", {"options": {"safetyTolerance": 7}}, "safetyTolerance"),
    "a tolerance too high for an edit": (
        "fluxapi-ai/flux-kontext-pro",
        {"image_url": PICTURE, "options": {"safetyTolerance": 5}},
        "safetyTolerance",
    ),
    "a format this provider lacks": ("fluxapi-ai/flux-kontext-pro", {"output_format": "tiff"}, "output_format"),
    "two pictures where one is made": ("fluxapi-ai/flux-kontext-pro", {"n": 2}, "n"),
    "two pictures of a poll-only provider": ("flux-context/flux-kontext-pro", {"n": 2}, "n"),
    "no pictures": ("acedata/flux-dev", {"n": 0}, "n"),
    "a count that is text": ("acedata/flux-dev", {"n": "two"}, "n"),
    "a picture to edit for a model that cannot": ("fluxapi-org/flux-dev", {"image_url": PICTURE}, "image_url"),
    "a picture that is no URL": ("fluxapi-ai/flux-kontext-pro", {"image_url": "in.png"}, "image_url"),
    "a picture from a file": ("fluxapi-ai/flux-kontext-pro", {"image_url": "file:///etc/passwd"}, "image_url"),
    "pixels for a model of ratios": ("acedata/flux-kontext-pro", {"size": "1024x1024"}, "size"),
    "pixels that are no multiple of 32": ("acedata/flux-dev", {"size": "1001x1024"}, "size"),
    "a field nobody knows": ("acedata/flux-dev", {"colour": "red"}, "colour"),
    "translate that is no boolean": ("fluxapi-ai/flux-kontext-pro", {"translate": "yes"}, "translate"),
    "options that are a list": ("fluxapi-ai/flux-kontext-pro", {"options": []}, "options"),
}


@pytest.mark.parametrize(("model", "input", "field"), INPUTS.values(), ids=INPUTS)
async def test_an_input_that_cannot_work_is_refused_by_the_fields_name(
    world: World, service: Service, model: str, input: dict[str, Any], field: str
) -> None:
    prompt = new_prompt()
    body = problem(await service.api.post_task(model, prompt, input=input), 422)
    assert f'"{field}"' in locations(body) or field in " ".join(error["msg"] for error in body["errors"])
    assert all(error["msg"] for error in body["errors"])
    await nothing_came_of_it(world, service, prompt)


REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown provider": ({"model": "midjourney/v7"}, "model"),
    "an unknown model": ({"model": "fluxapi-ai/flux-9"}, "model"),
    "an unknown bare model": ({"model": "flux-9"}, "model"),
    "no model": ({"model": None}, "model"),
    "no input": ({"input": None}, "input"),
    "no prompt": ({"input": {}}, "prompt"),
    "an empty prompt": ({"input": {"prompt": ""}}, "prompt"),
    "a prompt that is a number": ({"input": {"prompt": 7}}, "prompt"),
    "an unknown field": ({"callback": "https://example.com/"}, "callback"),
    "metadata that is a list": ({"metadata": ["a"]}, "metadata"),
    "a timeout of nothing": ({"timeout_s": 0}, "timeout_s"),
    "a negative timeout": ({"timeout_s": -5}, "timeout_s"),
    "a webhook that is no URL": ({"webhook_url": "nowhere"}, "webhook_url"),
    "a webhook of another scheme": ({"webhook_url": "ftp://example.com/"}, "webhook_url"),
    "a webhook with a password": ({"webhook_url": "http://user:pass@127.0.0.1:9999/"}, "webhook_url"),
    "an unknown way with unconfirmed submits": ({"on_unconfirmed": "hope"}, "on_unconfirmed"),
}


@pytest.mark.parametrize(("change", "field"), REQUESTS.values(), ids=REQUESTS)
async def test_a_request_that_cannot_work_is_refused_by_the_fields_name(
    world: World, service: Service, change: dict[str, Any], field: str
) -> None:
    prompt = new_prompt()
    request = {"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": prompt}} | change
    if change.get("model", "") is None or change.get("input", "") is None:
        request = {name: value for name, value in request.items() if value is not None}
    body = problem(await service.client.post("/v1/tasks", json=request), 422)
    assert field in locations(body) or field in " ".join(error["msg"] for error in body["errors"])
    await nothing_came_of_it(world, service, prompt)


async def test_our_own_callback_address_is_never_a_subscriber(world: World, service: Service) -> None:
    prompt, url = new_prompt(), f"{service.url}/callbacks/fluxapi-ai/abc"
    problem(await service.api.post_task("fluxapi-ai/flux-kontext-pro", prompt, webhook_url=url), 422)
    problem(await service.client.post("/v1/endpoints", json={"url": url}), 422)
    await nothing_came_of_it(world, service, prompt)


@pytest.mark.parametrize("content", [b"{", b"", b"model=x", b'{"model": "\xff"}', b"[" * 50_000])
async def test_a_body_that_is_no_json_is_malformed(service: Service, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    problem(await service.client.post("/v1/tasks", content=content, headers=headers), 400)


@pytest.mark.parametrize("content", [b"[]", b"7", b'"text"', b"null"])
async def test_a_body_that_is_no_object_is_invalid(service: Service, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    reply = await service.client.post("/v1/tasks", content=content, headers=headers)
    problem(reply, 422 if reply.status_code == 422 else 400)


@pytest.mark.parametrize("type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
async def test_another_content_type_is_unsupported(world: World, service: Service, type: str) -> None:
    prompt = new_prompt()
    content = json.dumps({"model": "acedata/flux-dev", "input": {"prompt": prompt}})
    problem(await service.client.post("/v1/tasks", content=content, headers={"Content-Type": type}), 415)
    await nothing_came_of_it(world, service, prompt)


@pytest.mark.parametrize("type", ["application/json; charset=utf-8", "application/JSON"])
async def test_json_is_json_in_any_spelling(service: Service, type: str) -> None:
    content = json.dumps({"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": new_prompt()}})
    reply = await service.client.post("/v1/tasks", content=content, headers={"Content-Type": type})
    assert reply.status_code == 202, reply.text


async def test_a_body_of_two_mebibytes_is_too_large(service: Service) -> None:
    url = httpx.URL(service.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = f"POST /v1/tasks HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Bearer {API_KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {2 << 20}\r\n\r\n"
    writer.write(head.encode() + b" " * (2 << 20))
    async with patience():
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    assert answer.split()[1] == b"413"
    assert b"application/problem+json" in answer


ENDPOINTS: dict[str, tuple[dict[str, Any], str]] = {
    "no url": ({}, "url"),
    "a url that is none": ({"url": "nowhere"}, "url"),
    "another scheme": ({"url": "ftp://example.com/"}, "url"),
    "a password in the url": ({"url": "http://user:pass@127.0.0.1:9999/"}, "url"),
    "a privileged port": ({"url": "http://127.0.0.1:22/"}, "url"),
    "a port the Fetch standard blocks": ({"url": "http://127.0.0.1:6667/"}, "url"),
    "an unknown field": ({"colour": "red"}, "colour"),
    "an unknown event": ({"events": ["task.exploded"]}, "events"),
    "an unknown provider": ({"filter": {"providers": ["midjourney"]}}, "providers"),
    "an unknown format": ({"format": "xml"}, "format"),
    "nothing in flight": ({"max_in_flight": 0}, "max_in_flight"),
    "a negative rate": ({"rate_per_s": -1}, "rate_per_s"),
    "a header with a line break": ({"headers": {"X-A": "a\r\nX-B: b"}}, "headers"),
    "a header with a NUL": ({"headers": {"X-A": "a\0"}}, "headers"),
    "a header name with a colon": ({"headers": {"X:A": "a"}}, "headers"),
    "a header that is not ASCII": ({"headers": {"X-Ä": "a"}}, "headers"),
    "a Host header": ({"headers": {"Host": "example.com"}}, "headers"),
    "a Content-Length header": ({"headers": {"Content-Length": "1"}}, "headers"),
    "a header of ours": ({"headers": {"Webhook-Id": "evt_1"}}, "headers"),
}


@pytest.mark.parametrize(("change", "field"), ENDPOINTS.values(), ids=ENDPOINTS)
async def test_an_endpoint_that_cannot_work_is_refused_by_the_fields_name(
    world: World, service: Service, change: dict[str, Any], field: str
) -> None:
    good = {"url": world.receiver.server.url + "/unused"}
    request = (good | change) if change else {"events": ["task.*"]}
    body = problem(await service.client.post("/v1/endpoints", json=request), 422)
    assert field in locations(body)
    assert await service.api.pages("/v1/endpoints") == []


async def test_a_change_of_an_endpoint_is_checked_like_a_new_one(world: World, service: Service) -> None:
    endpoint = await service.api.endpoint(world.receiver.server.url + "/changed")
    for change, field in ENDPOINTS.values():
        if change:
            reply = await service.client.patch(f"/v1/endpoints/{endpoint['id']}", json=change)
            assert field in locations(problem(reply, 422))
    kept = await service.api.get_endpoint(endpoint["id"])
    assert kept["url"] == endpoint["url"]
    await service.client.delete(f"/v1/endpoints/{endpoint['id']}")


@pytest.mark.parametrize(
    "params",
    [
        {"status": "done"},
        {"limit": "0"},
        {"limit": "many"},
        {"cursor": "nonsense"},
        {"created_after": "yesterday"},
        {"limit": "-1"},
    ],
    ids=str,
)
async def test_a_list_with_a_wrong_filter_is_refused(service: Service, params: dict[str, str]) -> None:
    reply = await service.client.get("/v1/tasks", params=params)
    body = problem(reply, 400 if reply.status_code == 400 else 422)
    assert next(iter(params)) in json.dumps(body)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/tasks/task_00000000-0000-7000-8000-000000000000",
        "/v1/tasks/nonsense",
        "/v1/tasks/nonsense/timeline",
        "/v1/tasks/nonsense/why",
        "/v1/events/evt_nonsense",
        "/v1/endpoints/ep_nonsense",
        "/v1/deliveries/dlv_nonsense",
        "/v1/nothing",
    ],
)
async def test_what_does_not_exist_is_not_found(service: Service, path: str) -> None:
    problem(await service.client.get(path), 404)


async def test_a_wrong_method_is_not_allowed(service: Service) -> None:
    problem(await service.client.put("/v1/tasks", json={}), 405)
