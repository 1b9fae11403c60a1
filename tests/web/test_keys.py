"""Keys over the API: who may do what, until when, and what a stranger can learn by trying."""

import json
from typing import Any

import httpx
import pytest

from service.core import delivering
from service.core.change import Change
from service.core.keys import _DIGITS, RANDOM_DIGITS, SCOPES, hint_of, is_key, render_key
from service.core.observation import Accepted
from service.store.batch import Keys
from service.web import auth
from service.web.auth import LOOK_S
from service.web.routes import OPERATIONS
from service.web.throttle import ADDRESSES_MAX, FAILURES_MAX, Failures
from tests.support.env import FakeEnv
from tests.support.factory import make_endpoint
from tests.support.wait import patience, until
from tests.web.conftest import Site

CLOSED = [operation for operation in OPERATIONS if operation.right is not None]
UNKNOWN = render_key(7 << 120)


async def make(client: httpx.AsyncClient, *scopes: str, name: str = "a test") -> dict[str, Any]:
    reply = await client.post("/v1/keys", json={"name": name, "scopes": scopes})
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def status_of(client: httpx.AsyncClient, key: str, path: str = "/v1/providers") -> int:
    return (await client.get(path, headers=bearing(key))).status_code


async def ask(client: httpx.AsyncClient, operation: Any, key: str) -> httpx.Response:
    """A request to the operation that can do nothing: ids of no thing, bodies that are no JSON."""
    path = operation.path.replace("{id}", "nothing")
    headers = bearing(key) | {"Content-Type": "application/json"}
    content = b"{" if operation.body else None
    if operation.path.endswith("/stream"):
        path += "?types=none"
    return await client.request(operation.method, path, headers=headers, content=content)


# Rights


async def test_a_key_that_may_only_write_tasks_learns_nothing_of_what_others_asked_for(
    site: Site, client: httpx.AsyncClient
) -> None:
    body = {"model": "acedata/flux-dev", "input": {"prompt": "a secret plan"}, "metadata": {"order": "1234"}}
    task = (await client.post("/v1/tasks", json=body, headers={"Idempotency-Key": "one"})).json()
    await site.learn(task["id"], Accepted(provider_task_id="job-1"))
    key = bearing((await make(client, "tasks:write"))["key"])
    polled = await client.post(f"/v1/tasks/{task['id']}/poll", headers=key)
    replayed = await client.post("/v1/tasks", json=body, headers=key | {"Idempotency-Key": "one"})
    canceled = await client.post(f"/v1/tasks/{task['id']}/cancel", headers=key)
    assert [reply.status_code for reply in (polled, replayed, canceled)] == [202, 200, 200]
    for reply in (polled, replayed, canceled):
        assert reply.json()["id"] == task["id"]
        assert (reply.json()["input"], reply.json()["metadata"], reply.json()["result"]) == ({}, {}, None)
    assert canceled.json()["status"] == "canceled"
    assert (await client.post(f"/v1/tasks/{task['id']}/cancel")).json()["input"]["prompt"] == "a secret plan"


@pytest.mark.parametrize("scope", SCOPES)
async def test_every_route_takes_exactly_the_keys_that_have_its_scope(client: httpx.AsyncClient, scope: str) -> None:
    key = (await make(client, scope))["key"]
    for operation in CLOSED:
        reply = await ask(client, operation, key)
        may = scope in (operation.right, "admin")
        assert (reply.status_code != 403) == may, (operation.method, operation.path, reply.status_code)
        assert reply.status_code not in (401, 429, 500)


async def test_a_key_without_the_right_is_told_the_same_whether_the_thing_exists_or_not(
    site: Site, client: httpx.AsyncClient
) -> None:
    task = await site.create(client)
    endpoint = (await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:9000/"})).json()
    key = (await make(client, "tasks:write"))["key"]
    for there, missing in (
        (f"/v1/tasks/{task['id']}", f"/v1/tasks/task_{'0' * 32}"),
        (f"/v1/endpoints/{endpoint['id']}", f"/v1/endpoints/ep_{'0' * 32}"),
    ):
        bodies = []
        for path in (there, missing):
            reply = await client.get(path, headers=bearing(key))
            assert reply.status_code == 403
            bodies.append({**reply.json(), "request_id": ""})
        assert bodies[0] == bodies[1]


async def test_events_about_endpoints_are_for_those_who_may_see_endpoints(
    site: Site, client: httpx.AsyncClient
) -> None:
    """Without the right they are missing, in the same words as one that never was."""
    endpoint = make_endpoint(site.env, failures=9)
    failing = delivering._about(endpoint, "endpoint.failing", None, site.env)
    await site.writer.change(Keys(), lambda _: Change(endpoints=(endpoint,), events=(failing,)))
    reader, both = (await make(client, "tasks:read"))["key"], (await make(client, "tasks:read", "endpoints"))["key"]

    async def listed(key: str, **params: str) -> list[str]:
        page = (await client.get("/v1/events", headers=bearing(key), params=params)).json()
        return [event["type"] for event in page["data"]]

    assert await listed(both) == ["endpoint.failing"]
    assert await listed(reader) == await listed(reader, type="endpoint.failing") == []
    assert await status_of(client, both, f"/v1/events/{failing.id}") == 200
    hidden = await client.get(f"/v1/events/{failing.id}", headers=bearing(reader))
    missing = await client.get(f"/v1/events/evt_{'0' * 32}", headers=bearing(reader))
    assert hidden.status_code == missing.status_code == 404
    assert {**hidden.json(), "request_id": ""} == {**missing.json(), "request_id": ""}


async def test_the_document_names_the_scope_of_every_operation(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    for operation in OPERATIONS:
        described = paths[operation.path.replace(":path", "")][operation.method.lower()]
        assert described["security"] == ([] if operation.right is None else [{"key": [operation.right]}])


# The life of a key


async def test_a_key_is_shown_once_and_kept_as_a_hash(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client, "tasks:read", "tasks:write", name="the shop's backend")
    listed = (await client.get("/v1/keys")).json()["data"]
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    assert made["key"].startswith(made["hint"])
    async with site.driver.reading() as session:
        assert made["key"][len(made["hint"]) :] not in str(await session.fetch("select * from api_keys"))


async def test_a_new_key_holds_at_once_and_a_revoked_one_for_a_second_at_most(
    site: Site, client: httpx.AsyncClient
) -> None:
    made = await make(client, "tasks:read")
    assert await status_of(client, made["key"]) == 200
    assert (await client.delete(f"/v1/keys/{made['id']}")).status_code == 204
    site.env.pass_time(LOOK_S)
    assert await status_of(client, made["key"]) == 401
    assert (await client.get("/v1/keys")).json()["data"][0]["revoked_at"]


async def test_another_replica_refuses_a_revoked_key_a_second_later(site: Site, client: httpx.AsyncClient) -> None:
    made = await make(client, "tasks:read")
    async with site.client() as replica:
        assert await status_of(replica, made["key"]) == 200
        await client.delete(f"/v1/keys/{made['id']}")
        assert await status_of(replica, made["key"]) == 200
        site.env.pass_time(LOOK_S)
        assert await status_of(replica, made["key"]) == 401


async def test_the_stream_of_a_revoked_key_ends(site: Site) -> None:
    async with site.serve() as client:
        made = await make(client, "tasks:read")
        async with client.stream("GET", "/v1/events/stream", headers=bearing(made["key"])) as reply:
            assert reply.status_code == 200
            await client.delete(f"/v1/keys/{made['id']}")
            site.env.pass_time(LOOK_S)
            async with patience():
                assert [line async for line in reply.aiter_lines() if line.startswith("data")] == []


async def test_the_last_use_is_written_once_a_minute(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "GATHER_S", 0.01)
    made = await make(client, "tasks:read")
    writes: list[Any] = []
    store = site.context.store.keys
    note_uses = store.note_uses

    async def counted(uses: Any) -> None:
        writes.append(dict(uses))
        await note_uses(uses)

    monkeypatch.setattr(store, "note_uses", counted)
    first = site.env.now()
    for _ in range(20):
        assert await status_of(client, made["key"]) == 200

    async def used() -> Any:
        return (await client.get("/v1/keys")).json()["data"][0]["last_used_at"]

    await until(used)
    site.env.pass_time(59)
    await status_of(client, made["key"])
    assert writes == [{made["id"]: first}]
    site.env.pass_time(1)
    await status_of(client, made["key"])
    await until(lambda: len(writes) == 2)
    assert (await used()) > "2026-01-01T00:00:59"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x1b[31mb"}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["tasks"]}, "scopes"),
        ({"colour": "red"}, "colour"),
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_is_refused_by_the_fields_name(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    reply = await client.post("/v1/keys", json={"name": "a", "scopes": ["admin"]} | change)
    assert reply.status_code == 422
    assert field in json.dumps(reply.json()["errors"])


# Strangers


async def test_the_beginning_of_a_key_is_no_key(client: httpx.AsyncClient) -> None:
    """Another key with the same public beginning and a good checksum."""
    key = (await make(client, "tasks:read"))["key"]
    digits = key.removeprefix("tk_live_")[:RANDOM_DIGITS]
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS.index(digit)
    near = render_key(number + 1)
    assert is_key(near)
    assert hint_of(near) == hint_of(key)
    assert await status_of(client, near) == 401


async def test_failed_attempts_are_limited_by_address_and_a_good_key_still_holds(
    site: Site, client: httpx.AsyncClient
) -> None:
    good = (await make(client, "tasks:read"))["key"]
    for _ in range(FAILURES_MAX):
        assert await status_of(client, UNKNOWN) == 401
    refused = await client.get("/v1/providers", headers=bearing(UNKNOWN))
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert await status_of(client, good) == 200
    assert (await client.get("/v1/providers")).status_code == 200


def test_the_window_of_failures_slides() -> None:
    env = FakeEnv()
    failures = Failures(env.monotonic)
    for _ in range(FAILURES_MAX):
        assert failures.note("192.0.2.1") is None
        env.pass_time(0.5)
    assert failures.note("192.0.2.1") == 30
    assert failures.note("192.0.2.2") is None
    env.pass_time(30)
    assert failures.note("192.0.2.1") is None
    assert failures.note("192.0.2.1") is not None


def test_failures_of_any_number_of_addresses_are_held_in_bounded_memory() -> None:
    failures = Failures(FakeEnv().monotonic)
    for number in range(ADDRESSES_MAX + 100):
        failures.note(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(failures._times) == ADDRESSES_MAX
    for number in range(FAILURES_MAX):
        failures.note(f"2001:db8::{number:x}")
        failures.note(f"nonsense {number} " + "x" * 10_000)
    assert failures.is_full("2001:db8::ffff"), "one line has a whole /64"
    assert not failures.is_full("2001:db8:0:1::1")
    assert max(map(len, failures._times)) < 50


async def test_an_unknown_key_is_looked_up_again_only_while_the_address_may_fail(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read_live = site.context.store.keys.read_live

    async def counted(version: int) -> Any:
        reads.append(version)
        return await read_live(version)

    monkeypatch.setattr(site.context.store.keys, "read_live", counted)
    for _ in range(FAILURES_MAX + 50):
        await status_of(client, UNKNOWN)
    assert len(reads) <= FAILURES_MAX + 1
