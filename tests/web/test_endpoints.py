"""Subscribers and deliveries over HTTP."""

from typing import Any

import httpx
import pytest

from service.core import delivering
from service.core.change import Change
from service.core.times import after, rfc3339
from service.outbound.guard import Guard
from service.store.batch import Batch, Keys
from tests.web.conftest import Site, errors

URL = "http://127.0.0.1:9999/hook"


async def make(client: httpx.AsyncClient, **rest: Any) -> dict[str, Any]:
    reply = await client.post("/v1/endpoints", json={"url": URL} | rest)
    assert reply.status_code == 201, reply.text
    endpoint: dict[str, Any] = reply.json()
    return endpoint


async def attempt(site: Site, delivery_id: str, status_code: int) -> None:
    """Do what a worker does with a due delivery."""
    found = await site.reads.get_delivery(delivery_id)
    received = 200 <= status_code < 300
    error = None if received else f"HTTP {status_code}"
    outcome = delivering.Outcome(
        at=site.env.now(), received=received, status_code=status_code, duration_ms=7, error=error, excerpt="the answer"
    )

    def decide(batch: Batch) -> Change:
        begun = delivering.begin(batch.delivery(delivery_id), site.env, 30)
        endpoint = batch.find_endpoint(found.endpoint_id)
        return delivering.after_attempt(begun, endpoint, outcome, begun.lease, site.env, [5.0])

    keys = Keys(deliveries=(delivery_id,), endpoints=(found.endpoint_id,) if found.endpoint_id else ())
    await site.writer.change(keys, decide)


async def delivery_of(client: httpx.AsyncClient, endpoint: dict[str, Any], **params: Any) -> dict[str, Any]:
    params["endpoint_id"] = endpoint["id"]
    (found,) = (await client.get("/v1/deliveries", params=params)).json()["data"]
    delivery: dict[str, Any] = found
    return delivery


async def test_a_new_endpoint_has_the_defaults_and_shows_its_secret_once(client: httpx.AsyncClient) -> None:
    made = await make(client)
    assert made["secret"].startswith("whsec_")
    assert (made["events"], made["metadata"]) == (["task.*"], {})
    assert made["filter"] == {"providers": [], "models": [], "accounts": [], "metadata": {}}
    assert (made["format"], made["max_in_flight"], made["rate_per_s"]) == ("standard", 10, None)
    assert (made["enabled"], made["failing"], made["held"], made["description"]) == (True, False, 0, "")
    read = await client.get(f"/v1/endpoints/{made['id']}")
    listed = await client.get("/v1/endpoints")
    assert made["secret"] not in read.text + listed.text
    assert listed.json() == {"data": [read.json()], "next_cursor": None}


async def test_an_endpoint_can_be_born_disabled(client: httpx.AsyncClient) -> None:
    made = await make(client, enabled=False)
    assert (made["enabled"], made["disabled_reason"]) == (False, "by request")
    assert made["disabled_at"] == "2026-01-01T00:00:00.000Z"


async def test_header_values_are_never_shown(client: httpx.AsyncClient) -> None:
    made = await make(client, headers={"Authorization": "Bearer of-theirs", "User-Agent": "mine/1", "X-Empty": ""})
    assert made["headers"] == {"Authorization": "(hidden)", "User-Agent": "(hidden)", "X-Empty": "(hidden)"}
    assert "of-theirs" not in (await client.get(f"/v1/endpoints/{made['id']}")).text


OURS = ["Host", "Content-Length", "transfer-encoding", "Connection", "Content-Type", "TE", "Upgrade", "Expect"]
OURS += ["Webhook-Id", "webhook-signature", "Accept-Encoding"]
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a url that is none": ({"url": "nowhere"}, "body.url"),
    "a url that is null": ({"url": None}, "body.url"),
    "a long url": ({"url": "http://a.example/" + "x" * 2_100}, "body.url"),
    "a password in the url": ({"url": "http://user:pass@127.0.0.1:9999/"}, "body.url"),
    "a privileged port": ({"url": "http://127.0.0.1:22/"}, "body.url"),
    "our own callbacks": ({"url": "http://taskhook.test/callbacks/x/y"}, "body.url"),
    "an unknown event": ({"events": ["task.*", "task.exploded"]}, "body.events.1"),
    "the ping": ({"events": ["taskhook.ping"]}, "body.events.0"),
    "no events": ({"events": []}, "body.events"),
    "an unknown provider": ({"filter": {"providers": ["acedata", "midjourney"]}}, "body.filter.providers.1"),
    "a label that is a number": ({"metadata": {"a": 1}}, "body.metadata"),
    "an unknown format": ({"format": "xml"}, "body.format"),
    "nothing in flight": ({"max_in_flight": 0}, "body.max_in_flight"),
    "much in flight": ({"max_in_flight": 1_001}, "body.max_in_flight"),
    "no rate": ({"rate_per_s": 0}, "body.rate_per_s"),
    "a high rate": ({"rate_per_s": 10_001}, "body.rate_per_s"),
    "a long description": ({"description": "x" * 501}, "body.description"),
    "enabled as text": ({"enabled": "yes"}, "body.enabled"),
    "an unknown field": ({"secret": "whsec_x"}, "body.secret"),
    "many headers": ({"headers": {f"x-{n}": "1" for n in range(21)}}, "body.headers"),
    "a line break": ({"headers": {"X-A": "a\r\nX-B: b"}}, "body.headers.X-A"),
    "a NUL": ({"headers": {"X-A": "a\0"}}, "body.headers.X-A"),
    "no ASCII in a value": ({"headers": {"X-A": "ä"}}, "body.headers.X-A"),
    "a space at the end": ({"headers": {"X-A": "a "}}, "body.headers.X-A"),
    "no ASCII in a name": ({"headers": {"X-Ä": "a"}}, "body.headers.X-Ä"),
    "a colon": ({"headers": {"X:A": "a"}}, "body.headers.X:A"),
    "an empty name": ({"headers": {"": "a"}}, "body.headers."),
    "a hidden value": ({"headers": {"X-A": "(hidden)"}}, "body.headers.X-A"),
    "the same twice": ({"headers": {"X-A": "a", "x-a": "b"}}, "body.headers.x-a"),
    **{f"the header {name}": ({"headers": {name: "x"}}, f"body.headers.{name}") for name in OURS},
}


@pytest.mark.parametrize(("change", "place"), WRONG.values(), ids=WRONG)
async def test_what_cannot_work_is_refused_by_its_field_at_creation_and_at_a_change(
    client: httpx.AsyncClient, change: dict[str, Any], place: str
) -> None:
    made = await make(client)
    assert set(errors(await client.post("/v1/endpoints", json={"url": URL} | change))) == {place}
    assert set(errors(await client.patch(f"/v1/endpoints/{made['id']}", json=change))) == {place}
    kept = (await client.get("/v1/endpoints")).json()["data"]
    assert [endpoint | {"secret": made["secret"]} for endpoint in kept] == [made]


async def test_an_endpoint_must_be_at_a_public_address(site: Site) -> None:
    async with site.client(trust__guard=Guard(allow_private=False)) as client:
        for url in ("http://127.0.0.1:9999/", "http://10.0.0.1/", "http://[::1]/", "http://does-not-exist.invalid/"):
            assert set(errors(await client.post("/v1/endpoints", json={"url": url}))) == {"body.url"}


async def test_a_change_leaves_alone_what_it_does_not_name(client: httpx.AsyncClient) -> None:
    made = await make(client, events=["task.failed"], rate_per_s=2.5, metadata={"a": "b"})
    changed = (await client.patch(f"/v1/endpoints/{made['id']}", json={"rate_per_s": None, "max_in_flight": 3})).json()
    assert changed == {k: v for k, v in made.items() if k != "secret"} | {"rate_per_s": None, "max_in_flight": 3}
    assert (await client.patch(f"/v1/endpoints/{made['id']}", json={})).json() == changed


@pytest.mark.parametrize("endpoint_id", ["nonsense", "ep_" + "0" * 32, "task_" + "0" * 32])
async def test_an_endpoint_that_is_not_there_is_not_found(client: httpx.AsyncClient, endpoint_id: str) -> None:
    path = f"/v1/endpoints/{endpoint_id}"
    errors(await client.get(path), 404)
    errors(await client.delete(path), 404)
    errors(await client.patch(path, json={"enabled": True}), 404)
    errors(await client.post(f"{path}/test"), 404)
    errors(await client.post(f"{path}/rotate-secret"), 404)
    errors(await client.post(f"{path}/recover", json={"since": "2025-01-01"}), 404)


async def test_a_list_has_pages_where_a_limit_is_given(client: httpx.AsyncClient) -> None:
    ids = [(await make(client))["id"] for _ in range(3)]
    first = (await client.get("/v1/endpoints?limit=2")).json()
    rest = (await client.get("/v1/endpoints", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [endpoint["id"] for endpoint in first["data"] + rest["data"]] == ids
    assert rest["next_cursor"] is None


async def test_a_deleted_endpoint_is_gone_and_what_waited_for_it_fails(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    await site.succeed(client)
    assert (await client.delete(f"/v1/endpoints/{made['id']}")).status_code == 204
    errors(await client.get(f"/v1/endpoints/{made['id']}"), 404)
    errors(await client.delete(f"/v1/endpoints/{made['id']}"), 404)
    assert (await client.get("/v1/endpoints")).json()["data"] == []
    delivery = await delivery_of(client, made)
    assert delivery["status"] == "failed"
    errors(await client.post(f"/v1/deliveries/{delivery['id']}/retry"), 409)


async def test_a_disabled_endpoint_holds_and_enabling_says_how_many(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    path = f"/v1/endpoints/{made['id']}"
    await site.succeed(client)
    disabled = (await client.patch(path, json={"enabled": False})).json()
    assert (disabled["enabled"], disabled["disabled_reason"], disabled["held"]) == (False, "by request", 1)
    await site.succeed(client)
    assert (await client.patch(path, json={"enabled": False})).json()["held"] == 2
    enabled = (await client.patch(path, json={"enabled": True, "description": "back"})).json()
    assert (enabled["enabled"], enabled["held"], enabled["description"]) == (True, 2, "back")
    assert (enabled["disabled_reason"], enabled["disabled_at"]) == (None, None)


async def test_recover_queues_again_what_was_held(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    path = f"/v1/endpoints/{made['id']}"
    await client.patch(path, json={"enabled": False})
    await site.succeed(client)
    site.env.pass_time(60)
    period = {"since": "2026-01-01T00:00:00Z"}
    assert (await client.post(f"{path}/recover", json=period | {"dry_run": True})).json() == {
        "events": 1,
        "dry_run": True,
    }
    errors(await client.post(f"{path}/recover", json=period), 409)
    await client.patch(path, json={"enabled": True})
    assert (await client.post(f"{path}/recover", json=period)).json() == {"events": 1, "dry_run": False}
    assert (await delivery_of(client, made))["status"] == "pending"
    assert (await client.post(f"{path}/recover", json=period)).json()["events"] == 0
    earlier = {"since": "2025-01-01", "until": "2026-01-01"}
    assert (await client.post(f"{path}/recover", json=earlier)).json()["events"] == 0


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "body.since"),
        ({"since": "yesterday"}, "body.since"),
        ({"since": "2026-01-02"}, "body.since"),
        ({"since": "2025-01-01", "until": "soon"}, "body.until"),
        ({"since": "2025-01-01", "until": "2024-01-01"}, "body.since"),
        ({"since": "2025-01-01", "dry_run": 1}, "body.dry_run"),
        ({"since": "2025-01-01", "colour": 1}, "body.colour"),
    ],
)
async def test_a_time_that_cannot_be_looked_at_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], place: str
) -> None:
    made = await make(client)
    assert set(errors(await client.post(f"/v1/endpoints/{made['id']}/recover", json=body))) == {place}


async def test_a_rotation_shows_the_new_secret_and_keeps_the_old_for_a_day(
    site: Site, client: httpx.AsyncClient
) -> None:
    made = await make(client)
    rotated = (await client.post(f"/v1/endpoints/{made['id']}/rotate-secret")).json()
    assert rotated["secret"] != made["secret"]
    stored = await site.reads.get_endpoint(made["id"])
    opened = [site.vault.open(secret, "secret") for secret in stored.secrets_at(site.env.now())]
    assert opened == [rotated["secret"], made["secret"]]
    assert stored.secrets_at(site.env.pass_time(86_400)) == (stored.secret,)


async def test_rotations_close_together_keep_each_secret_and_the_sixth_is_told_when_to_come_again(
    site: Site, client: httpx.AsyncClient
) -> None:
    made = await make(client)
    path, secrets = f"/v1/endpoints/{made['id']}", [made["secret"]]
    until = rfc3339(after(site.env.now(), 86_400))
    for _ in range(5):
        secrets.insert(0, (await client.post(f"{path}/rotate-secret")).json()["secret"])
    refused = await client.post(f"{path}/rotate-secret")
    assert refused.status_code == 409 and until in refused.json()["detail"]
    stored = await site.reads.get_endpoint(made["id"])
    assert [site.vault.open(secret, "secret") for secret in stored.secrets_at(site.env.now())] == secrets
    await client.delete(path)
    async with site.driver.reading() as session:
        ((doc,),) = await session.fetch("select doc from endpoints")
    assert "sealed" not in doc


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_test_is_one_ping_to_this_endpoint_alone(site: Site, client: httpx.AsyncClient, enabled: bool) -> None:
    made, _ = await make(client, events=["task.failed"], enabled=enabled), await make(client)
    reply = await client.post(f"/v1/endpoints/{made['id']}/test")
    delivery = reply.json()
    assert (reply.status_code, delivery["event_type"], delivery["status"]) == (202, "taskhook.ping", "pending")
    assert (await client.get("/v1/deliveries")).json()["data"] == [delivery]
    assert (await client.get("/v1/events")).json()["data"] == []
    errors(await client.get(f"/v1/events/{delivery['event_id']}"), 404)
    await attempt(site, delivery["id"], 500)
    assert (await client.get(f"/v1/deliveries/{delivery['id']}")).json()["status"] == "failed"


# Deliveries


async def test_a_delivery_is_read_with_its_attempts(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    task = await site.succeed(client)
    delivery = await delivery_of(client, made)
    assert (delivery["status"], delivery["task_id"], delivery["attempts"]) == ("pending", task["id"], [])
    await attempt(site, delivery["id"], 500)
    site.env.pass_time(5)
    await attempt(site, delivery["id"], 204)
    read = (await client.get(f"/v1/deliveries/{delivery['id']}")).json()
    assert (read["status"], read["next_attempt_at"]) == ("succeeded", None)
    assert [(one["number"], one["status_code"], one["error"]) for one in read["attempts"]] == [
        (1, 500, "HTTP 500"),
        (2, 204, None),
    ]
    assert read["attempts"][0]["response"] == "the answer"
    assert await delivery_of(client, made, status="succeeded", task_id=task["id"]) == read
    nothing = {"status": "failed", "endpoint_id": made["id"]}
    assert (await client.get("/v1/deliveries", params=nothing)).json()["data"] == []


async def test_the_body_of_a_delivery_is_read_in_its_endpoints_format(site: Site, client: httpx.AsyncClient) -> None:
    plain, cloud = await make(client), await make(client, format="cloudevents")
    await site.succeed(client)
    delivery, other = await delivery_of(client, plain), await delivery_of(client, cloud)
    event = await client.get(f"/v1/events/{delivery['event_id']}")
    assert (await client.get(f"/v1/deliveries/{delivery['id']}/body")).content == event.content
    told = (await client.get(f"/v1/deliveries/{other['id']}/body")).json()
    assert (told["specversion"], told["id"]) == ("1.0", event.json()["id"])
    assert told["data"] == event.json()["data"]


async def test_deliveries_come_in_pages_newest_first(site: Site, client: httpx.AsyncClient) -> None:
    await make(client)
    tasks = [(await site.succeed(client))["id"] for _ in range(3)]
    first = (await client.get("/v1/deliveries?limit=2")).json()
    rest = (await client.get("/v1/deliveries", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["task_id"] for one in first["data"] + rest["data"]] == tasks[::-1]
    assert rest["next_cursor"] is None


async def test_deliveries_are_listed_by_event_type_and_time(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    await site.succeed(client)
    site.env.pass_time(60)
    middle = rfc3339(site.env.now())
    await client.post(f"/v1/endpoints/{made['id']}/test")
    ping, event = (await client.get("/v1/deliveries")).json()["data"]

    async def found(**params: str) -> list[str]:
        return [one["id"] for one in (await client.get("/v1/deliveries", params=params)).json()["data"]]

    assert await found(event_type="task.succeeded") == [event["id"]]
    assert await found(event_type="taskhook.ping") == [ping["id"]]
    assert await found(event_id=event["event_id"]) == [event["id"]]
    assert await found(created_after=middle) == [ping["id"]]
    assert await found(created_before=middle) == [event["id"]]
    assert await found(created_after=middle, event_type="task.succeeded") == []
    errors(await client.get("/v1/deliveries?created_after=soon"), 422)
    errors(await client.get("/v1/deliveries?event_type=task.done"), 422)


async def test_a_bulk_retry_counts_first_and_queues_each_that_failed_once(
    site: Site, client: httpx.AsyncClient
) -> None:
    made, other, gone = await make(client), await make(client), await make(client)
    for _ in range(3):
        await site.succeed(client)
    listed = (await client.get("/v1/deliveries?limit=200")).json()["data"]
    failing = [one for one in listed if one["endpoint_id"] in (made["id"], gone["id"])]
    for one in failing:
        for _ in range(2):
            await attempt(site, one["id"], 500)
    await client.delete(f"/v1/endpoints/{gone['id']}")

    async def retry(status: int, **body: Any) -> dict[str, Any]:
        reply = await client.post("/v1/deliveries/retry", json=body)
        assert reply.status_code == status, reply.text
        counted: dict[str, Any] = reply.json()
        return counted

    assert await retry(200, dry_run=True) == {"deliveries": 3, "has_more": False}
    assert await retry(200, dry_run=True, endpoint_id=other["id"]) == {"deliveries": 0, "has_more": False}
    assert (await retry(202, endpoint_id=made["id"]))["deliveries"] == 3
    assert (await retry(202, endpoint_id=made["id"]))["deliveries"] == 0
    pending = (await client.get(f"/v1/deliveries?status=pending&endpoint_id={made['id']}")).json()["data"]
    assert {one["next_attempt_at"] for one in pending} == {rfc3339(site.env.now())}
    errors(await client.post("/v1/deliveries/retry", json={"state": "failed"}), 422)
    errors(await client.post("/v1/deliveries/retry", json={"created_before": "soon"}), 422)


async def test_a_bulk_retry_of_very_many_says_that_there_are_more(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.web.deliveries.RETRY_MAX", 2)
    made = await make(client)
    for _ in range(3):
        await site.succeed(client)
    for one in (await client.get("/v1/deliveries")).json()["data"]:
        for _ in range(2):
            await attempt(site, one["id"], 500)
    body = {"endpoint_id": made["id"]}
    assert (await client.post("/v1/deliveries/retry", json=body)).json() == {"deliveries": 2, "has_more": True}
    assert (await client.post("/v1/deliveries/retry", json=body)).json() == {"deliveries": 1, "has_more": False}


async def test_a_retry_is_one_attempt_now(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client)
    await site.succeed(client)
    delivery = await delivery_of(client, made)
    await attempt(site, delivery["id"], 500)
    await attempt(site, delivery["id"], 500)
    assert (await delivery_of(client, made))["status"] == "failed"
    reply = await client.post(f"/v1/deliveries/{delivery['id']}/retry")
    assert (reply.status_code, reply.json()["status"]) == (202, "pending")
    assert reply.json()["next_attempt_at"] == "2026-01-01T00:00:00.000Z"
    assert len(reply.json()["attempts"]) == 2


async def test_the_delivery_to_a_webhook_url_can_be_retried(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client, webhook_url=URL)
    (delivery,) = (await client.get("/v1/deliveries", params={"task_id": task["id"]})).json()["data"]
    assert (await client.post(f"/v1/deliveries/{delivery['id']}/retry")).status_code == 202


@pytest.mark.parametrize("delivery_id", ["nonsense", "dlv_" + "0" * 32])
async def test_a_delivery_that_is_not_there_is_not_found(client: httpx.AsyncClient, delivery_id: str) -> None:
    errors(await client.get(f"/v1/deliveries/{delivery_id}"), 404)
    errors(await client.get(f"/v1/deliveries/{delivery_id}/body"), 404)
    errors(await client.post(f"/v1/deliveries/{delivery_id}/retry"), 404)
