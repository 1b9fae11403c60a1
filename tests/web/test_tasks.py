"""Tasks over HTTP: created once, held until their end, listed, canceled and erased."""

import asyncio
import time
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import generate_latest

from service.core import delivering
from service.core.account import Account, Limits
from service.core.breaker import AccountCall
from service.core.change import Change
from service.core.observation import Accepted, Unreadable
from service.outbound.guard import Guard
from service.providers.base import Access
from service.store.batch import Keys
from service.store.queries import DeliveryFilter
from service.web import context, tasks
from tests.support.factory import picture, refusal
from tests.support.registry import PROVIDERS
from tests.support.wait import soon, until
from tests.web.conftest import MODEL, Site, errors, make_access

INPUT = {"prompt": "a lighthouse"}


async def test_a_new_task_is_queued_stored_and_answered_with_its_place(site: Site, client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": INPUT, "metadata": {"order": "7"}, "timeout_s": 60}
    reply = await client.post("/v1/tasks", json=body)
    task = reply.json()
    assert reply.status_code == 202
    assert reply.headers["location"] == f"/v1/tasks/{task['id']}"
    assert "idempotent-replayed" not in reply.headers
    assert (task["status"], task["provider"], task["model"]) == ("queued", "fluxapi-ai", "flux-kontext-pro")
    assert (task["created_at"], task["deadline_at"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z")
    assert (await client.get(f"/v1/tasks/{task['id']}")).json() == task
    assert b'taskhook_tasks_created_total{account="default",provider="fluxapi-ai"} 1.0' in generate_latest(
        site.metrics.registry
    )


async def test_the_deadline_is_900_seconds_away_by_default(site: Site, client: httpx.AsyncClient) -> None:
    assert (await site.create(client))["deadline_at"] == "2026-01-01T00:15:00.000Z"


async def test_a_bare_model_goes_to_the_first_configured_provider_that_has_it(site: Site) -> None:
    async with site.client() as client:
        assert (await site.create(client, model="flux-kontext-pro"))["provider"] == "flux-context"
    providers = dict(site.context.providers) | {"flux-context": make_access("flux-context", accounts={})}
    async with site.client(providers=providers) as client:
        assert (await site.create(client, model="flux-kontext-pro"))["provider"] == "fluxapi-ai"


@pytest.mark.parametrize("model", ["fluxapi-ai/flux-kontext-max", "flux-kontext-max"])
async def test_a_provider_without_a_key_is_refused_by_the_name_of_its_setting(site: Site, model: str) -> None:
    providers = {name: make_access(name, accounts={}) for name in PROVIDERS}
    async with site.client(providers=providers) as client:
        found = errors(await client.post("/v1/tasks", json={"model": model, "input": INPUT}))
    setting = "TASKHOOK_FLUXAPI_AI_API_KEY" if "/" in model else "TASKHOOK_FLUX_CONTEXT_API_KEY"
    assert setting in found["body.model"]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("fluxapi-ai/flux-kontext-por", "fluxapi-ai/flux-kontext-pro"),
        ("flux-kontekst-max", "flux-kontext-max"),
        ("fluxapi-ai/", "fluxapi-ai"),
        ("/flux-kontext-pro", "flux-kontext-pro"),
        ("zzz", "fluxapi-org/flux-dev"),
    ],
)
async def test_an_unknown_model_is_refused_with_those_near_it(
    client: httpx.AsyncClient, model: str, names: str
) -> None:
    assert names in errors(await client.post("/v1/tasks", json={"model": model, "input": INPUT}))["body.model"]


async def test_everything_that_is_wrong_is_told_at_once(client: httpx.AsyncClient) -> None:
    body = {
        "model": MODEL,
        "input": {"prompt": "x", "aspect_ratio": "7:5", "n": 2, "output_format": "tiff"},
        "webhook_url": "http://taskhook.test/callbacks/x/y",
    }
    found = errors(await client.post("/v1/tasks", json=body))
    assert set(found) == {"body.input.aspect_ratio", "body.input.n", "body.input.output_format", "body.webhook_url"}
    assert "16:9" in found["body.input.aspect_ratio"]
    assert (await client.get("/v1/tasks")).json()["data"] == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://169.254.169.254/", "ftp://example.com/", "http://u:p@e.com/"]
)
async def test_a_webhook_that_is_no_public_address_is_refused(site: Site, url: str) -> None:
    async with site.client(trust__guard=Guard(allow_private=False)) as client:
        body = {"model": MODEL, "input": INPUT, "webhook_url": url}
        assert set(errors(await client.post("/v1/tasks", json=body))) == {"body.webhook_url"}


async def test_a_webhook_gets_the_end_of_its_task(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client, webhook_url="http://127.0.0.1:9999/hook")
    (delivery,) = (await client.get("/v1/deliveries", params={"task_id": task["id"]})).json()["data"]
    assert (delivery["url"], delivery["endpoint_id"]) == ("http://127.0.0.1:9999/hook", None)


# Idempotency


async def post(client: httpx.AsyncClient, key: str | bytes, **rest: Any) -> httpx.Response:
    body = {"model": MODEL, "input": INPUT} | rest
    return await client.post("/v1/tasks", json=body, headers={"Idempotency-Key": key})


async def test_the_same_key_and_request_give_the_task_as_it_is_now(site: Site, client: httpx.AsyncClient) -> None:
    first = await post(client, "k")
    await site.learn(first.json()["id"], Accepted(provider_task_id="job"))
    again = await post(client, "k", metadata={}, timeout_s=900.0)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.json()["id"], again.json()["status"]) == (first.json()["id"], "running")


async def test_the_same_key_with_another_request_is_a_conflict(client: httpx.AsyncClient) -> None:
    await post(client, "k")
    errors(await post(client, "k", timeout_s=30), 409)
    assert len((await client.get("/v1/tasks")).json()["data"]) == 1


async def test_another_request_under_the_same_key_is_a_conflict_also_when_it_could_not_work(
    client: httpx.AsyncClient,
) -> None:
    await post(client, "k")
    errors(await post(client, "k", input={"prompt": "x", "n": 9}), 409)
    errors(await post(client, "another", input={"prompt": "x", "n": 9}))


async def test_the_same_request_gives_its_task_also_when_it_would_be_refused_by_now(
    site: Site, client: httpx.AsyncClient
) -> None:
    first = await post(client, "k", webhook_url="http://127.0.0.1/hook")
    async with site.client(trust__guard=Guard(allow_private=False)) as stricter:
        again = await post(stricter, "k", webhook_url="http://127.0.0.1/hook")
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        errors(await post(stricter, "another", webhook_url="http://127.0.0.1/hook"))


async def test_a_refused_request_leaves_its_key_free(client: httpx.AsyncClient) -> None:
    errors(await post(client, "k", input={"prompt": "x", "n": 9}))
    assert (await post(client, "k")).status_code == 202


async def test_a_hundred_equal_requests_at_once_are_one_task(client: httpx.AsyncClient) -> None:
    replies = await asyncio.gather(*(post(client, "k") for _ in range(100)))
    assert sorted(reply.status_code for reply in replies) == [200] * 99 + [202]
    assert len({reply.json()["id"] for reply in replies}) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, b"caf\xe9", "a\tb"])
async def test_a_key_that_is_no_short_printable_text_is_refused(client: httpx.AsyncClient, key: str | bytes) -> None:
    assert set(errors(await post(client, key))) == {"header.Idempotency-Key"}


# Reading


@pytest.mark.parametrize("task_id", ["nonsense", "task_", "task_" + "0" * 32, "evt_" + "0" * 32, "task_%00", "TASK_X"])
async def test_an_id_that_names_nothing_is_not_found(client: httpx.AsyncClient, task_id: str) -> None:
    for path in ("", "/timeline", "/why"):
        errors(await client.get(f"/v1/tasks/{task_id}{path}"), 404)
    errors(await client.post(f"/v1/tasks/{task_id}/cancel"), 404)
    errors(await client.delete(f"/v1/tasks/{task_id}"), 404)


async def test_a_waiting_get_is_answered_when_the_task_ends(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    waiting = asyncio.create_task(client.get(f"/v1/tasks/{task['id']}", params={"wait": 30}))
    await until(lambda: site.bus._told)
    await site.learn(task["id"], picture(), "poll")
    assert (await soon(waiting)).json()["status"] == "succeeded"
    assert not site.bus._told


async def test_a_waiting_get_ends_with_its_time(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    begun = time.monotonic()
    reply = await client.get(f"/v1/tasks/{task['id']}", params={"wait": 0.1})
    assert reply.json()["status"] == "running"
    assert time.monotonic() - begun >= 0.1


async def test_an_answer_is_held_for_less_than_a_proxy_waits(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tasks.HOLD_MAX_S == 55
    monkeypatch.setattr(tasks, "HOLD_MAX_S", 0.1)
    task = await site.run(client)
    assert (await soon(client.get(f"/v1/tasks/{task['id']}", params={"wait": 60}))).json()["status"] == "running"


async def test_a_waiting_get_that_ends_with_its_time_tells_what_happened_meanwhile(
    site: Site, client: httpx.AsyncClient
) -> None:
    task = await site.create(client)
    waiting = asyncio.create_task(client.get(f"/v1/tasks/{task['id']}", params={"wait": 0.3}))
    await until(lambda: site.bus._told)
    await site.learn(task["id"], Accepted(provider_task_id="job"))
    assert (await waiting).json()["status"] == "running"


async def test_more_waiting_gets_than_there_are_places_for_are_told_to_come_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "WAITS_MAX", 1)
    async with site.client() as client:
        task = await site.run(client)
        path = f"/v1/tasks/{task['id']}"
        waiting = asyncio.create_task(client.get(path, params={"wait": 60}))
        await until(lambda: site.bus._told and site.reads._tasks._reading is None)
        refused = await client.get(path, params={"wait": 60})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        await client.post(f"{path}/cancel")
        assert (await waiting).json()["status"] == "canceled"


async def test_a_waiting_get_ends_when_the_service_stops(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    waiting = asyncio.create_task(client.get(f"/v1/tasks/{task['id']}", params={"wait": 60}))
    await until(lambda: site.bus._told)
    site.stopping.set()
    assert (await soon(waiting)).json()["status"] == "running"


async def test_a_waiting_get_of_a_client_that_left_leaves_nothing_behind(site: Site) -> None:
    async with site.serve() as client:
        task = await site.run(client)
        waiting = asyncio.create_task(client.get(f"/v1/tasks/{task['id']}", params={"wait": 60}))
        await until(lambda: site.bus._told)
        waiting.cancel()
        await until(lambda: not site.bus._told)


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "soon", ""])
async def test_a_wait_beyond_its_bounds_is_refused(site: Site, client: httpx.AsyncClient, wait: str) -> None:
    task = await site.create(client)
    assert set(errors(await client.get(f"/v1/tasks/{task['id']}", params={"wait": wait}))) == {"query.wait"}


async def test_a_list_is_narrowed_by_each_filter(site: Site, client: httpx.AsyncClient) -> None:
    old = await site.succeed(client, metadata={"team": "blue"})
    site.env.pass_time(60)
    new = await site.run(client, provider_task_id="job-2", metadata={"team": "red", "a.b": "c d"})
    other = await site.create(client, model="acedata/flux-dev")

    async def ids(**params: Any) -> list[str]:
        return [task["id"] for task in (await client.get("/v1/tasks", params=params)).json()["data"]]

    assert await ids() == [other["id"], new["id"], old["id"]]
    assert await ids(status="running") == [new["id"]]
    assert await ids(provider="acedata") == [other["id"]]
    assert await ids(model="flux-dev") == [other["id"]]
    assert await ids(model="acedata/flux-dev") == [other["id"]]
    assert await ids(model="acedata/flux-dev", provider="acedata") == [other["id"]]
    assert await ids(model="acedata/flux-dev", provider="fluxapi-ai") == []
    assert await ids(model="fluxapi-org/flux-dev") == []
    assert await ids(model="no-provider/flux-dev") == []
    assert await ids(model="acedata/") == []
    assert await ids(provider_task_id="job-2") == [new["id"]]
    assert await ids(**{"metadata.team": "red", "metadata.a.b": "c d"}) == [new["id"]]
    assert await ids(**{"metadata[team]": "red", "metadata[a.b]": "c d"}) == [new["id"]], "as generated clients ask"
    assert await ids(**{"metadata.team": "green"}) == []
    assert await ids(created_after="2026-01-01T00:01:00Z") == [other["id"], new["id"]]
    assert await ids(created_before="2026-01-01T01:01:00+01:00") == [old["id"]]
    assert await ids(created_after="2026-01-02", created_before="2026-01-03") == []
    assert await ids(created_after="0001-01-01", created_before="9999-12-31") == [other["id"], new["id"], old["id"]]


async def test_pages_follow_each_other_without_a_gap(site: Site, client: httpx.AsyncClient) -> None:
    ids = [(await site.create(client))["id"] for _ in range(5)]
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await client.get("/v1/tasks", params=params)).json()
        seen += [task["id"] for task in page["data"]]
        await site.create(client)
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == ids[::-1]


async def test_the_timeline_has_states_and_deliveries_in_the_order_of_time(
    site: Site, client: httpx.AsyncClient
) -> None:
    task = await site.run(client, webhook_url="http://127.0.0.1:9999/hook")
    site.env.pass_time(5)
    await site.learn(task["id"], Unreadable(reason="an error page"), "poll")
    site.env.pass_time(5)
    await site.learn(task["id"], picture(), "poll")
    (delivery,) = (await site.reads.list_deliveries(DeliveryFilter(task_id=task["id"]), 10, None)).items
    await attempt(site, delivery.id)
    items = (await client.get(f"/v1/tasks/{task['id']}/timeline")).json()["data"]
    types = [item["type"] for item in items]
    assert types[0] == "task.created"
    assert types[-1] == "delivery.attempted"
    assert {"submit.accepted", "poll.unreadable", "task.succeeded"} <= set(types)
    assert items[-1]["detail"]["delivery_id"] == delivery.id
    assert items[-1]["detail"]["status_code"] == 500
    assert [item["at"] for item in items] == sorted(item["at"] for item in items)
    first = (await client.get(f"/v1/tasks/{task['id']}/timeline", params={"limit": 2})).json()
    rest = {"limit": 1000, "cursor": first["next_cursor"]}
    following = (await client.get(f"/v1/tasks/{task['id']}/timeline", params=rest)).json()
    assert first["data"] + following["data"] == items
    assert following["next_cursor"] is None


async def attempt(site: Site, delivery_id: str) -> None:
    failed = delivering.Outcome(at=site.env.now(), received=False, status_code=500, duration_ms=7, error="HTTP 500")

    def decide(batch: Any) -> Any:
        begun = delivering.begin(batch.delivery(delivery_id), site.env, 30)
        return delivering.after_attempt(begun, None, failed, begun.lease, site.env, [5.0])

    await site.writer.change(Keys(deliveries=(delivery_id,)), decide)


async def test_why_has_three_sentences(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    why = (await client.get(f"/v1/tasks/{task['id']}/why")).json()
    assert why == {
        "status": "running",
        "why": "The provider accepted it and is working on it.",
        "next": "A callback is expected; if it does not come, the next poll is in 60 s.",
        "you_can": "Wait, or cancel it.",
    }


# Ending


async def test_a_task_is_canceled_once_and_stays_so(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    for _ in range(2):
        reply = await client.post(f"/v1/tasks/{task['id']}/cancel")
        assert (reply.status_code, reply.json()["status"]) == (200, "canceled")
    assert [event["type"] for event in (await client.get("/v1/events")).json()["data"]] == ["task.canceled"]
    assert b'outcome="canceled"' in generate_latest(site.metrics.registry)


@pytest.mark.parametrize("end", [picture(), refusal()], ids=["succeeded", "failed"])
async def test_a_task_that_ended_otherwise_is_not_canceled(site: Site, client: httpx.AsyncClient, end: Any) -> None:
    task = await site.run(client)
    ended = await site.learn(task["id"], end, "poll")
    reply = await client.post(f"/v1/tasks/{task['id']}/cancel")
    errors(reply, 409)
    assert ended.status in reply.json()["detail"]


async def test_a_final_task_is_erased_and_its_ids_and_states_stay(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client, input={"prompt": "a private wish"}, metadata={"who": "someone"})
    for _ in range(2):
        reply = await client.delete(f"/v1/tasks/{task['id']}")
        assert (reply.status_code, reply.content) == (204, b"")
    left = (await client.get(f"/v1/tasks/{task['id']}")).json()
    assert (left["status"], left["input"], left["metadata"], left["result"]) == ("succeeded", {}, {}, None)
    assert left["erased_at"]
    seen = [await client.get(f"/v1/tasks/{task['id']}/{part}") for part in ("timeline", "why")]
    seen.append(await client.get("/v1/events"))
    assert all("private" not in reply.text and "cdn.example" not in reply.text for reply in seen)


async def test_a_running_task_is_not_erased(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    errors(await client.delete(f"/v1/tasks/{task['id']}"), 409)


async def test_a_poll_on_request_is_due_at_once_and_in_the_timeline(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    reply = await client.post(f"/v1/tasks/{task['id']}/poll")
    assert (reply.status_code, reply.json()["status"]) == (202, "running")
    assert (await site.reads.get_task(task["id"])).due_at == site.env.now()
    timeline = (await client.get(f"/v1/tasks/{task['id']}/timeline")).json()["data"]
    assert [entry["type"] for entry in timeline][-1] == "poll.requested"


async def test_a_poll_on_request_is_refused_where_there_is_nothing_to_poll(
    site: Site, client: httpx.AsyncClient
) -> None:
    waiting = await site.create(client)
    final = await site.succeed(client)
    for task in (waiting, final):
        assert (await client.post(f"/v1/tasks/{task['id']}/poll")).status_code == 409
    async with site.client(
        providers={**site.context.providers, "fluxapi-ai": make_access("fluxapi-ai", accounts={})}
    ) as rest:
        reply = await rest.post(f"/v1/tasks/{waiting['id']}/poll")
        assert reply.status_code == 409
        assert "not configured any more" in reply.json()["detail"]


def two_accounts(site: Site, first: int = 20, second: int = 20) -> dict[str, Access]:
    limits = {"default": first, "batch": second}
    accounts = {
        id: Account(
            provider="fluxapi-ai",
            id=id,
            base_url="http://127.0.0.1:9",
            secrets={"key": f"key-of-{id}"},
            limits=Limits(submits=1_000, window_s=1, max_in_flight=most),
        )
        for id, most in limits.items()
    }
    return {**site.context.providers, "fluxapi-ai": make_access("fluxapi-ai", accounts=accounts)}


async def test_without_an_account_that_with_the_most_room_is_chosen_and_stored(site: Site) -> None:
    async with site.client(providers=two_accounts(site, first=4, second=2)) as client:
        together = await asyncio.gather(*(site.create(client) for _ in range(4)))
        alone = [await site.create(client) for _ in range(2)]
        accounts = [task["account"] for task in (*together, *alone)]
        assert (accounts.count("default"), accounts.count("batch")) == (4, 2)
        for task in (*together, *alone):
            assert (await client.get(f"/v1/tasks/{task['id']}")).json()["account"] == task["account"]
        listed = (await client.get("/v1/tasks", params={"account": "batch"})).json()["data"]
        assert len(listed) == 2 and {task["account"] for task in listed} == {"batch"}
        (provider,) = [one for one in (await client.get("/v1/providers")).json()["data"] if one["id"] == "fluxapi-ai"]
        assert [(one["id"], one["state"], one["waiting"]) for one in provider["accounts"]] == [
            ("default", "ready", 4),
            ("batch", "ready", 2),
        ]


async def test_an_account_can_be_named_and_an_unknown_one_is_refused_with_the_known(site: Site) -> None:
    async with site.client(providers=two_accounts(site)) as client:
        assert (await site.create(client, account="batch"))["account"] == "batch"
        body = {"model": MODEL, "input": INPUT, "account": "night"}
        found = errors(await client.post("/v1/tasks", json=body))
        assert found == {"body.account": "is not known: fluxapi-ai has default, batch"}
        assert list(errors(await client.post("/v1/tasks", json={**body, "account": "No_Id"}))) == ["body.account"]


async def test_a_request_sent_again_is_the_same_whichever_account_was_chosen(site: Site) -> None:
    headers, body = {"Idempotency-Key": "order-1"}, {"model": MODEL, "input": INPUT}
    async with site.client(providers=two_accounts(site)) as client:
        first = await client.post("/v1/tasks", json=body, headers=headers)
        await site.create(client)
        again = await client.post("/v1/tasks", json={**body, "account": None}, headers=headers)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert again.json()["account"] == first.json()["account"]
        other = await client.post("/v1/tasks", json={**body, "account": first.json()["account"]}, headers=headers)
        assert other.status_code == 409


async def test_a_callback_is_verified_with_the_secret_of_its_tasks_account(site: Site) -> None:
    providers = two_accounts(site)
    accounts = dict(providers["fluxapi-ai"].accounts)
    accounts["batch"] = msgspec.structs.replace(
        accounts["batch"], secrets={"key": "k", "webhook_secret": "the secret of batch"}
    )
    providers["fluxapi-ai"] = make_access("fluxapi-ai", accounts=accounts)
    async with site.client(providers=providers) as client:
        for account, status in (("default", 400), ("batch", 403)):
            task = await site.run(client, f"job-{account}", account=account)
            token = site.tokens.sign("fluxapi-ai", task["id"])
            reply = await client.post(f"/callbacks/fluxapi-ai/{token}", content=b"{}")
            assert reply.status_code == status, account


async def test_an_account_whose_key_is_refused_says_so_gets_no_task_and_can_be_enabled(site: Site) -> None:
    refused = AccountCall(account="fluxapi-ai", kind="submit", answered=True, refused="Invalid API key", key="k")
    await site.writer.change(Keys(), lambda _: Change(calls=(refused,)))
    async with site.client(providers=two_accounts(site)) as client:

        async def states() -> list[tuple[str, str | None]]:
            providers = (await client.get("/v1/providers")).json()["data"]
            accounts = next(one["accounts"] for one in providers if one["id"] == "fluxapi-ai")
            return [(one["state"], one["disabled_reason"]) for one in accounts]

        assert await states() == [("disabled", "Invalid API key"), ("ready", None)]
        assert {(await site.create(client))["account"] for _ in range(3)} == {"batch"}
        named = await site.create(client, account="default")
        why = (await client.get(f"/v1/tasks/{named['id']}/why")).json()
        assert "refused the account's key" in why["next"]
        assert (
            'taskhook_account_disabled{account="default",provider="fluxapi-ai"} 1.0'
            in (await client.get("/metrics")).text
        )
        reply = await client.post("/v1/providers/fluxapi-ai/accounts/default/enable")
        assert (reply.status_code, reply.json()["state"]) == (200, "ready")
        assert await states() == [("ready", None), ("ready", None)]
        assert (await client.post("/v1/providers/fluxapi-ai/accounts/night/enable")).status_code == 404
