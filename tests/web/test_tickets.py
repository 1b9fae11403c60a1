"""Tickets: a browser reads and follows one task with a token that grants nothing else."""

import json
from typing import Any

import httpx
import pytest

from tests.support.factory import picture
from tests.web.conftest import KEY, Site
from tests.web.test_keys import bearing, make

ORIGIN = {"Origin": "https://shop.example.com"}


async def issue(client: httpx.AsyncClient, task_id: str, **given: Any) -> str:
    reply = await client.post(f"/v1/tasks/{task_id}/ticket", json=given)
    assert reply.status_code == 201, reply.text
    ticket: str = reply.json()["ticket"]
    return ticket


async def read(site: Site, task_id: str, ticket: str, path: str = "", **more: Any) -> httpx.Response:
    """As a browser does: with a ticket and without a key."""
    async with site.client() as client:
        del client.headers["Authorization"]
        return await client.get(f"/v1/tasks/{task_id}{path}", params={"ticket": ticket}, **more)


async def test_a_ticket_reads_its_task_without_metadata_and_raw(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client, metadata={"order": "1234"})
    ticket = await issue(client, task["id"])
    reply = await read(site, task["id"], ticket, headers=ORIGIN)
    seen = reply.json()
    assert reply.status_code == 200 and seen["status"] == "succeeded"
    assert "metadata" not in seen and "raw" not in seen["result"]
    assert reply.headers["cache-control"] == "no-store" and reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_a_ticket_grants_nothing_else(site: Site, client: httpx.AsyncClient) -> None:
    task, other = await site.succeed(client), await site.run(client, "job-2")
    ticket = await issue(client, task["id"])
    assert (await read(site, other["id"], ticket)).status_code == 401
    for path in ("/timeline", "/why"):
        assert (await read(site, task["id"], ticket, path)).status_code == 401
    async with site.client() as stranger:
        del stranger.headers["Authorization"]
        for method, path in (("POST", f"{task['id']}/cancel"), ("DELETE", task["id"]), ("POST", f"{task['id']}/poll")):
            reply = await stranger.request(method, f"/v1/tasks/{path}", params={"ticket": ticket})
            assert reply.status_code == 401, path
        assert (await stranger.get("/v1/tasks", headers=bearing(ticket))).status_code == 401


async def test_a_ticket_expires(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    ticket = await issue(client, task["id"], ttl_s=60)
    site.env.pass_time(59)
    assert (await read(site, task["id"], ticket)).status_code == 200
    site.env.pass_time(1)
    refused = await read(site, task["id"], ticket, headers=ORIGIN)
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(("ttl_s", "seconds"), [(None, 900), (86_400, 86_400)])
async def test_a_ticket_lasts_15_minutes_or_as_long_as_asked(
    site: Site, client: httpx.AsyncClient, ttl_s: int | None, seconds: int
) -> None:
    task = await site.run(client)
    ticket = await issue(client, task["id"], ttl_s=ttl_s)
    site.env.pass_time(seconds - 2)
    assert (await read(site, task["id"], ticket)).status_code == 200
    site.env.pass_time(2)
    assert (await read(site, task["id"], ticket)).status_code == 401


@pytest.mark.parametrize("ttl_s", [0, -1, 86_401, "900", 1.5])
async def test_a_ticket_of_more_than_a_day_or_none_is_refused(
    client: httpx.AsyncClient, site: Site, ttl_s: Any
) -> None:
    task = await site.run(client)
    reply = await client.post(f"/v1/tasks/{task['id']}/ticket", json={"ttl_s": ttl_s})
    assert reply.status_code == 422 and "ttl_s" in reply.text


async def test_a_ticket_dies_with_its_key(site: Site, client: httpx.AsyncClient) -> None:
    task, made = await site.run(client), await make(client, "tasks:read")
    async with site.client() as owner:
        owner.headers.update(bearing(made["key"]))
        ticket = await issue(owner, task["id"])
    assert (await read(site, task["id"], ticket)).status_code == 200
    assert (await client.delete(f"/v1/keys/{made['id']}")).status_code == 204
    assert (await read(site, task["id"], ticket)).status_code == 401


async def test_a_ticket_of_a_key_that_left_the_settings_is_refused(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    ticket = await issue(client, task["id"])
    for keys, status in ((("new", KEY), 200), (("new",), 401)):
        async with site.client(trust__api_keys=keys) as after:
            del after.headers["Authorization"]
            reply = await after.get(f"/v1/tasks/{task['id']}", params={"ticket": ticket})
            assert reply.status_code == status


async def test_a_ticket_dies_when_its_task_is_erased(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client)
    ticket = await issue(client, task["id"])
    assert (await client.delete(f"/v1/tasks/{task['id']}")).status_code == 204
    assert (await read(site, task["id"], ticket)).status_code == 401
    assert (await client.post(f"/v1/tasks/{task['id']}/ticket", json={})).status_code == 409


async def test_an_altered_ticket_is_refused(site: Site, client: httpx.AsyncClient) -> None:
    task, other = await site.run(client), await site.run(client, "job-2")
    ticket = await issue(client, task["id"])
    later = ticket.split(".")
    later[1] = f"{int(later[1], 16) + 86_400:x}"
    moved = ticket.replace(task["id"][5:], other["id"][5:])
    for altered in (
        ticket[:-1],
        ticket + "A",
        ".".join(later),
        ticket.upper(),
        "",
        "tkt_",
        "\u00e9",
        ticket[:-1] + "%",
    ):
        assert (await read(site, task["id"], altered)).status_code == 401, altered
    assert (await read(site, other["id"], moved)).status_code == 401


async def test_a_ticket_needs_the_scope_to_read_tasks(site: Site, client: httpx.AsyncClient) -> None:
    task, made = await site.run(client), await make(client, "tasks:write")
    reply = await client.post(f"/v1/tasks/{task['id']}/ticket", json={}, headers=bearing(made["key"]))
    assert reply.status_code == 403


# The stream of one task


def frames(text: str) -> list[dict[str, str]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("id: ")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def test_the_stream_of_a_task_ends_with_its_final_state(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    ticket, seen = await issue(client, task["id"]), ""
    async with site.serve() as served:
        del served.headers["Authorization"]
        async with served.stream("GET", f"/v1/tasks/{task['id']}/stream", params={"ticket": ticket}) as reply:
            async for piece in reply.aiter_text():
                seen += piece
                if "task.running" in seen and "task.succeeded" not in seen:
                    await site.learn(task["id"], picture(), "poll")
        kinds = [frame["event"] for frame in frames(seen)]
        assert (kinds[0], kinds[-1]) == ("task.running", "task.succeeded")
        last = json.loads(frames(seen)[-1]["data"])
        assert last["type"] == "task.succeeded" and last["data"]["status"] == "succeeded"
        assert "raw" not in last["data"]["result"] and "metadata" not in last["data"]


async def test_a_client_that_has_seen_the_end_is_told_to_stop(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.succeed(client)
    ticket = await issue(client, task["id"])
    first = await read(site, task["id"], ticket, "/stream")
    (frame,) = frames(first.text)
    again = await read(site, task["id"], ticket, "/stream", headers={"Last-Event-ID": frame["id"]})
    assert again.status_code == 204
    changed = await read(site, task["id"], ticket, "/stream", headers={"Last-Event-ID": "running-00000000"})
    assert frames(changed.text) == [frame | {"data": frames(changed.text)[0]["data"]}]


# Other origins


async def test_a_preflight_request_is_answered_for_tickets_of_any_origin(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    ticket = await issue(client, task["id"])
    asked = ORIGIN | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "last-event-id"}
    reply = await client.options(f"/v1/tasks/{task['id']}/stream", params={"ticket": ticket}, headers=asked)
    assert reply.status_code == 204 and reply.headers["access-control-allow-origin"] == "*"
    assert "last-event-id" in reply.headers["access-control-allow-headers"]


async def test_only_listed_origins_may_use_keys(site: Site) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with site.client(running__cors_origins=frozenset({ORIGIN["Origin"]})) as client:
        allowed = await client.get("/v1/tasks", headers=ORIGIN)
        assert allowed.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert (await client.options("/v1/tasks", headers=ORIGIN | asked)).status_code == 204
        other = {"Origin": "https://evil.example.com"}
        refused = await client.get("/v1/tasks", headers=other)
        assert "access-control-allow-origin" not in refused.headers
        assert (await client.options("/v1/tasks", headers=other | asked)).status_code == 405
