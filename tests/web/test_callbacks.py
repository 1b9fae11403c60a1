"""Every row of the callback table, and nothing of a token anywhere."""

import asyncio
import json
import string
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import generate_latest

from service.core.account import Account
from service.core.foreign_json import repair_json
from service.core.observation import Accepted
from service.core.task import Task
from service.core.tokens import CallbackTokens
from tests.support.factory import refusal
from tests.support.upstream import kie_signature
from tests.web.conftest import MODEL, Site, errors, make_access

HMAC_KEY = "a key of the vendor"


def body_of(provider_task_id: str = "job-1", **rest: Any) -> dict[str, Any]:
    links = {"resultImageUrl": "https://cdn.example/a.jpg", "originImageUrl": ""}
    return {"code": 200, "msg": "ok", "data": {"taskId": provider_task_id, "info": links}} | rest


def url_of(site: Site, task: dict[str, Any], provider: str = "fluxapi-ai") -> str:
    return f"/callbacks/{provider}/{site.tokens.sign(provider, task['id'])}"


async def call(client: httpx.AsyncClient, url: str, body: Any = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body or body_of()).encode()
    return await client.post(url, content=content, headers={"Authorization": ""})


def counted(site: Site, outcome: str, provider: str = "fluxapi-ai") -> float:
    value = site.metrics.registry.get_sample_value(
        "taskhook_callbacks_total", {"provider": provider, "outcome": outcome}
    )
    return value or 0.0


async def entries(site: Site, task: dict[str, Any]) -> list[str]:
    return [entry.type for entry in await site.reads.list_entries(task["id"])]


async def test_a_good_callback_is_stored_before_it_is_answered(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    reply = await call(client, url_of(site, task))
    assert (reply.status_code, reply.json()) == (200, {"status": "received"})
    after = (await client.get(f"/v1/tasks/{task['id']}")).json()
    tracking = {name: after["tracking"][name] for name in ("via", "polls", "callbacks")}
    assert (after["status"], tracking) == ("succeeded", {"via": "callback", "polls": 0, "callbacks": 1})
    assert after["result"]["raw"] == body_of()
    assert counted(site, "accepted") == 1
    assert b'taskhook_tasks_finished_total{account="default",outcome="succeeded"' in generate_latest(
        site.metrics.registry
    )


async def test_a_callback_before_the_submit_is_answered_finds_its_task(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.create(client)
    assert (await call(client, url_of(site, task))).status_code == 200
    await site.learn(task["id"], Accepted(provider_task_id="job-1"))
    after = (await client.get(f"/v1/tasks/{task['id']}")).json()
    assert (after["status"], after["provider_task_id"]) == ("succeeded", "job-1")


async def test_the_same_again_is_received_and_a_line_in_the_timeline(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    replies = await asyncio.gather(*(call(client, url_of(site, task)) for _ in range(20)))
    assert [reply.status_code for reply in replies] == [200] * 20
    assert (await entries(site, task)).count("callback.duplicate") == 19
    assert len((await client.get("/v1/events")).json()["data"]) == 1
    assert (counted(site, "accepted"), counted(site, "duplicate")) == (1, 19)


async def test_a_result_after_the_end_is_late(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    await client.post(f"/v1/tasks/{task['id']}/cancel")
    assert (await call(client, url_of(site, task))).status_code == 200
    after = (await client.get(f"/v1/tasks/{task['id']}")).json()
    assert after["status"] == "canceled"
    assert after["late_result"]["outputs"][0]["url"] == "https://cdn.example/a.jpg"
    assert counted(site, "late") == 1


async def test_every_altered_token_is_forged(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    base, token = url_of(site, task).rsplit("/", 1)
    before = await entries(site, task)
    alphabet = string.ascii_letters + string.digits + "-_."
    altered = {token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))}
    altered |= {token[:-1] + last for last in alphabet if last != token[-1]}
    altered |= {token[:40], token[:-1], token + "A", token + "=", token + "/", token.swapcase(), "x", "", "a/b"}
    altered |= {
        "%74" + token[1:],
        token[:10] + "%" + f"{ord(token[10]):02x}" + token[11:],
        token + "%0a",
        token + "%00",
    }
    for one in altered:
        errors(await call(client, f"{base}/{one}"), 403)
    assert await entries(site, task) == before
    assert counted(site, "forged") == len(altered)


async def test_a_token_of_another_provider_or_key_is_forged(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    foreign = CallbackTokens(["another key"], ["fluxapi-ai"]).sign("fluxapi-ai", task["id"])
    other = site.tokens.sign("acedata", task["id"])
    for token in (foreign, other):
        errors(await call(client, f"/callbacks/fluxapi-ai/{token}"), 403)


@pytest.mark.parametrize("provider", ["unknown", "fluxapi_ai", "FLUXAPI-AI", "%66luxapi-ai2"])
async def test_a_provider_that_is_unknown_is_not_found(site: Site, client: httpx.AsyncClient, provider: str) -> None:
    task = await site.run(client)
    token = site.tokens.sign("fluxapi-ai", task["id"])
    errors(await call(client, f"/callbacks/{provider}/{token}"), 404)
    assert counted(site, "no_provider", "unknown") == 1


@pytest.mark.parametrize("provider", ["flux-context", "fluxapi-org"])
async def test_no_token_holds_for_a_provider_that_never_calls_back(
    site: Site, client: httpx.AsyncClient, provider: str
) -> None:
    task = await site.run(client)
    token = site.tokens.sign("fluxapi-ai", task["id"])
    errors(await call(client, f"/callbacks/{provider}/{token}"), 403)
    assert counted(site, "forged", provider) == 1


async def test_no_token_holds_for_a_provider_that_is_not_configured(site: Site) -> None:
    async with site.client() as client:
        task = await site.run(client)
    providers = dict(site.context.providers) | {"fluxapi-ai": make_access("fluxapi-ai", accounts={})}
    async with site.client(providers=providers) as client:
        errors(await call(client, url_of(site, task)), 403)


async def test_a_token_whose_task_is_gone_is_not_found(site: Site, client: httpx.AsyncClient) -> None:
    errors(await call(client, url_of(site, {"id": "task_" + "0" * 32})), 404)
    assert counted(site, "gone") == 1


UNREADABLE = {
    "no bytes": b"",
    "no json": b"status=done",
    "bad utf-8": b'{"msg": "\xff\xfe"}',
    "a list": b"[]",
    "another shape": b'{"hello": "world"}',
    "very deep": b"[" * 100_000,
    "a NUL": b'{"msg": "a\0"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_an_unreadable_callback_is_kept_and_the_task_polled_at_once(
    site: Site, client: httpx.AsyncClient, body: bytes
) -> None:
    task = await site.run(client)
    reply = await client.post(url_of(site, task), content=body)
    errors(reply, 400)
    stored = await site.reads.get_task(task["id"])
    assert (stored.status, stored.due_at) == ("running", site.env.now())
    (item,) = [i for i in (await timeline(client, task)) if i["type"] == "callback.unreadable"]
    assert item["detail"].get("body", "") == repair_json(body)[: 16 * 1024].decode("utf-8", "replace")
    assert counted(site, "unreadable") == 1


async def timeline(client: httpx.AsyncClient, task: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await client.get(f"/v1/tasks/{task['id']}/timeline")).json()["data"]
    return items


async def test_another_tasks_id_is_a_conflict_kept_and_the_task_polled_at_once(
    site: Site, client: httpx.AsyncClient
) -> None:
    task = await site.run(client)
    errors(await call(client, url_of(site, task), body_of("job-2")), 409)
    stored = await site.reads.get_task(task["id"])
    assert (stored.status, stored.due_at) == ("running", site.env.now())
    (item,) = [i for i in (await timeline(client, task)) if i["type"] == "callback.mismatched"]
    assert json.loads(item["detail"]["body"]) == body_of("job-2")
    assert counted(site, "mismatch") == 1


async def test_what_is_kept_of_a_body_has_no_token_in_it_and_ends(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    url = url_of(site, task)
    await call(client, url, {"callBackUrl": f"http://taskhook.test{url}", "padding": "é" * 20_000})
    await call(client, url, body_of("job-2", callBackUrl=url))
    await call(client, url, body_of(callBackUrl=url))
    after = (await client.get(f"/v1/tasks/{task['id']}")).json()
    assert after["status"] == "succeeded"
    kept = [item["detail"]["body"] for item in await timeline(client, task) if "body" in item["detail"]]
    assert len(kept) == 2
    assert all(len(text) <= 16 * 1024 for text in kept)
    assert url.rsplit("/", 1)[1] not in json.dumps([after, await timeline(client, task)])


async def test_an_erased_task_keeps_no_body(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    await site.learn(task["id"], refusal(), "poll")
    await client.delete(f"/v1/tasks/{task['id']}")
    errors(await call(client, url_of(site, task), body_of("job-2")), 409)
    assert "cdn.example" not in json.dumps(await timeline(client, task))


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "in chunks"])
async def test_a_body_over_one_mebibyte_is_too_large_and_leaves_nothing(site: Site, declared: bool) -> None:
    async def chunks() -> Any:
        for _ in range(17):
            yield b"x" * 65_536

    async with site.serve() as client:
        task = await site.run(client)
        before = await entries(site, task)
        content = b"x" * ((1 << 20) + 1) if declared else chunks()
        errors(await client.post(url_of(site, task), content=content), 413)
        assert await entries(site, task) == before
        assert counted(site, "too_large") == 1


async def test_a_body_just_under_it_is_read(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    assert (await call(client, url_of(site, task), body_of(padding="x" * ((1 << 20) - 500)))).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_callback_is_a_post(site: Site, client: httpx.AsyncClient, method: str) -> None:
    task = await site.run(client)
    assert (await client.request(method, url_of(site, task))).status_code == 405


async def test_where_signatures_are_asked_for_only_a_good_one_is_taken(site: Site) -> None:
    secrets = {"key": "k", "webhook_secret": HMAC_KEY}
    account = Account(provider="fluxapi-ai", base_url="http://x", secrets=secrets)
    signing = make_access("fluxapi-ai", accounts={"default": account})
    now = int(site.env.now().timestamp())
    async with site.client(providers=dict(site.context.providers) | {"fluxapi-ai": signing}) as client:
        task = await site.run(client)
        url = url_of(site, task)
        bad: list[dict[str, str]] = [
            {},
            kie_signature(HMAC_KEY, "job-1", now - 301),
            kie_signature(HMAC_KEY, "job-1", now + 301),
            kie_signature(HMAC_KEY, "job-2", now),
            kie_signature("another key", "job-1", now),
        ]
        for headers in bad:
            errors(await client.post(url, json=body_of(), headers=headers), 403)
        assert counted(site, "unsigned") == len(bad)
        good = kie_signature(HMAC_KEY, "job-1", now)
        assert (await client.post(url, json=body_of(), headers=good)).status_code == 200


async def test_where_callbacks_are_hints_the_task_is_polled_instead(site: Site) -> None:
    access = make_access("fluxapi-ai")
    confirming = make_access(
        "fluxapi-ai", policy=type(access.policy)(callbacks=True, polling=True, blocking=False, confirm=True)
    )
    async with site.client(providers=dict(site.context.providers) | {"fluxapi-ai": confirming}) as client:
        task = await site.run(client)
        assert (await call(client, url_of(site, task))).status_code == 200
    stored: Task = await site.reads.get_task(task["id"])
    assert (stored.status, stored.due_at, counted(site, "hint")) == ("running", site.env.now(), 1)


async def test_each_callback_is_one_log_line_without_token_or_body(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    url = url_of(site, task)
    with structlog.testing.capture_logs() as logs:
        await call(client, url)
        await call(client, url[:-1] + ("A" if url[-1] != "A" else "B"))
        await call(client, url, body_of("job-2"))
    lines = [line for line in logs if line["event"].startswith("callback.")]
    assert [(line["event"], line["outcome"], line["task_id"]) for line in lines] == [
        ("callback.accepted", "accepted", task["id"]),
        ("callback.refused", "forged", None),
        ("callback.refused", "mismatch", task["id"]),
    ]
    assert all(url.rsplit("/", 1)[1][40:] not in str(line) and "cdn.example" not in str(line) for line in logs)


async def test_a_bearer_key_opens_no_callback(site: Site, client: httpx.AsyncClient) -> None:
    errors(await client.post("/callbacks/fluxapi-ai/forged", json=body_of()), 403)
    assert MODEL.startswith("fluxapi-ai/")
