"""Events as a list and as a stream that has neither gaps nor repeats."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from service.core.change import Change
from service.core.event import Event, render_cloudevent
from service.store.batch import Keys
from service.store.bus import EVENTS
from service.store.reads import NO_EVENT
from service.web import stream, tail
from tests.support.api import Stream
from tests.support.factory import refusal
from tests.support.wait import patience, soon, until
from tests.web.conftest import Site, errors


async def test_events_are_listed_oldest_first_and_read_as_they_were_published(
    site: Site, client: httpx.AsyncClient
) -> None:
    tasks = [await site.succeed(client) for _ in range(3)]
    first = (await client.get("/v1/events?limit=2")).json()
    rest = (await client.get("/v1/events", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    events = first["data"] + rest["data"]
    assert [event["data"]["id"] for event in events] == [task["id"] for task in tasks]
    assert [event["sequence"] for event in events] == [1, 2, 3]
    assert rest["next_cursor"] is None
    one = await client.get(f"/v1/events/{events[1]['id']}")
    assert one.json() == events[1]
    (stored,) = await site.reads.events_after(1, 1)
    assert one.content == stored.body
    assert render_cloudevent(one.content, "x", None)


async def test_who_has_reached_the_end_of_the_list_goes_on_behind_the_last_event(
    site: Site, client: httpx.AsyncClient
) -> None:
    async def sequences(cursor: str) -> list[int]:
        page = (await client.get("/v1/events", params={"cursor": cursor})).json()
        assert page["next_cursor"] is None
        return [event["sequence"] for event in page["data"]]

    tasks = [await site.succeed(client) for _ in range(2)]
    first, last = (await client.get("/v1/events")).json()["data"]
    assert await sequences(last["id"]) == []
    await site.succeed(client)
    assert await sequences(last["id"]) == [3]
    assert await sequences(first["id"]) == [2, 3]
    assert await sequences(NO_EVENT) == [1, 2, 3]
    await site.driver.write(lambda session: session.execute("delete from tasks where id = ?", (tasks[1]["id"],)))
    assert await sequences(last["id"]) == [3]
    assert await sequences(first["id"]) == [3]


async def test_events_are_narrowed_by_task_and_type(site: Site, client: httpx.AsyncClient) -> None:
    good, bad = await site.succeed(client), await site.run(client)
    await site.learn(bad["id"], refusal(), "poll")

    async def ids(**params: Any) -> list[str]:
        return [event["data"]["id"] for event in (await client.get("/v1/events", params=params)).json()["data"]]

    assert await ids(task_id=good["id"]) == [good["id"]]
    assert await ids(type="task.failed") == [bad["id"]]
    assert await ids(type="task.failed", task_id=good["id"]) == []


@pytest.mark.parametrize("event_id", ["nonsense", "evt_" + "0" * 32])
async def test_an_event_that_is_not_there_is_not_found(client: httpx.AsyncClient, event_id: str) -> None:
    errors(await client.get(f"/v1/events/{event_id}"), 404)


# The stream


class Followed:
    """An open stream."""

    def __init__(self, client: httpx.AsyncClient, last_id: str | None = None, **params: Any) -> None:
        headers = {"Last-Event-ID": last_id} if last_id is not None else {}
        self._opened = client.stream("GET", "/v1/events/stream", params=params, headers=headers)

    async def __aenter__(self) -> Stream:
        reply = await self._opened.__aenter__()
        assert reply.status_code == 200, await reply.aread()
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        return Stream(reply)

    async def __aexit__(self, *error: Any) -> None:
        await self._opened.__aexit__(*error)


async def test_an_event_is_told_as_it_happens(site: Site) -> None:
    async with site.serve() as client:
        await site.succeed(client)
        async with Followed(client) as events:
            task = await site.succeed(client)
            event = await events.next()
    (stored,) = await site.reads.events_after(1, 1)
    assert (event.id, event.type, event.data["data"]["id"]) == (stored.id, "task.succeeded", task["id"])
    assert event.data == json.loads(stored.body)


@pytest.mark.parametrize("before", [0, 2])
async def test_a_stream_that_was_cut_before_its_first_event_resumes_where_it_began(site: Site, before: int) -> None:
    async with site.serve() as client:
        for _ in range(before):
            await site.succeed(client)
        async with client.stream("GET", "/v1/events/stream") as reply:
            began = reply.headers["last-event-id"]
        await site.succeed(client)
        async with Followed(client, began) as events:
            assert (await events.next()).data["sequence"] == before + 1


@pytest.mark.parametrize("by_query", [True, False])
async def test_a_stream_that_resumes_does_not_repeat_the_place_it_was_given(site: Site, by_query: bool) -> None:
    async with site.serve() as client:
        await site.succeed(client)
        known = (await site.reads.events_after(0, 1))[0].id
        sent: dict[str, Any] = (
            {"params": {"last_event_id": known}} if by_query else {"headers": {"Last-Event-ID": known}}
        )
        async with client.stream("GET", "/v1/events/stream", **sent) as reply:
            lines = reply.aiter_lines()
            assert [await anext(lines), await anext(lines)] == [": connected", ""]
            assert "last-event-id" not in reply.headers


@pytest.mark.parametrize("by_query", [True, False])
async def test_a_stream_resumes_without_a_gap_or_a_repeat(
    site: Site, by_query: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PAGE", 2)
    async with site.serve() as client:
        for _ in range(6):
            await site.succeed(client)
        known = (await site.reads.events_after(0, 1))[0].id
        followed = Followed(client, last_event_id=known) if by_query else Followed(client, known)
        async with followed as events:
            seen = [(await events.next()).data["sequence"] for _ in range(5)]
            await site.succeed(client)
            seen.append((await events.next()).data["sequence"])
    assert seen == [2, 3, 4, 5, 6, 7]


async def test_a_stream_is_narrowed_by_task_and_type_in_what_was_and_in_what_comes(site: Site) -> None:
    async with site.serve() as client:
        first = await site.succeed(client)
        known = (await site.reads.events_after(0, 1))[0].id
        good, bad = await site.run(client), await site.run(client)
        other = await site.run(client)
        await site.learn(other["id"], refusal(), "poll")
        async with (
            Followed(client, known, task_id=bad["id"]) as about_bad,
            Followed(client, known, types="task.failed, task.canceled") as failures,
        ):
            await client.post(f"/v1/tasks/{good['id']}/cancel")
            await site.learn(bad["id"], refusal(), "poll")
            await site.succeed(client)
            assert (await about_bad.next()).data["data"]["id"] == bad["id"]
            told = [(await failures.next()).data["data"]["id"] for _ in range(3)]
    assert told == [other["id"], good["id"], bad["id"]]
    assert first["id"] not in told


async def test_many_clients_see_the_same_and_the_store_is_read_once_for_all(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    events_after = site.reads.events_after

    async def counting(*args: Any, **more: Any) -> Any:
        nonlocal reads
        reads += 1
        return await events_after(*args, **more)

    async with site.serve() as client:
        monkeypatch.setattr(site.reads, "events_after", counting)
        streams = [Followed(client) for _ in range(30)]
        opened = [await one.__aenter__() for one in streams]
        for _ in range(10):
            await site.succeed(client)
        seen = await asyncio.gather(*(follow(events, 10) for events in opened))
        assert all(one == list(range(1, 11)) for one in seen)
        assert reads <= 12
        assert metric(site) == 30
        for one in streams:
            await one.__aexit__(None, None, None)
        await until(lambda: metric(site) == 0 and not site.bus._told)


async def follow(events: Stream, count: int) -> list[int]:
    return [(await events.next()).data["sequence"] for _ in range(count)]


def metric(site: Site) -> float | None:
    return site.metrics.registry.get_sample_value("taskhook_stream_clients")


async def test_a_client_that_was_left_behind_reads_the_rest_from_the_store(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "TAIL_BYTES", 1)
    async with site.serve() as client, Followed(client) as events:
        for _ in range(50):
            await site.succeed(client)
        assert await follow(events, 50) == list(range(1, 51))


async def test_a_slow_client_is_waited_for_and_misses_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "TAIL_BYTES", 1_000_000)
    data = json.dumps({"padding": "x" * 100_000}).encode()
    events = tuple(
        Event(id=site.env.new_id("event"), type="endpoint.failing", at=site.env.now(), data=data) for _ in range(120)
    )
    async with site.serve() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, limit=4096)
        key = client.headers["authorization"]
        writer.write(f"GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\n\r\n".encode())
        await reader.readuntil(b": connected")
        for start in range(0, 120, 30):
            await site.writer.change(Keys(), lambda _, start=start: Change(events=events[start : start + 30]))
        seen: list[str] = []
        text = b""
        while len(seen) < 120:
            text += await soon(reader.read(65_536))
            *lines, text = text.split(b"\n")
            seen += [line[4:].decode() for line in lines if line.startswith(b"id: ")]
        assert seen == [event.id for event in events]
        writer.transport.abort()


async def test_a_quiet_stream_says_that_it_is_still_here(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "QUIET_S", 0.05)
    async with site.serve() as client, client.stream("GET", "/v1/events/stream") as reply:
        lines = reply.aiter_lines()
        seen = [await anext(lines) for _ in range(4)]
    assert seen == [": connected", "", ": still here", ": still here"]


async def test_no_frame_is_an_empty_event_to_a_client_that_makes_one_of_each(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As httpx-sse does: it dispatches at an empty line whatever it has, and an id is kept for the next frames."""
    monkeypatch.setattr(stream, "QUIET_S", 0.05)
    async with site.serve() as client, client.stream("GET", "/v1/events/stream") as reply:
        fields, last_id, seen = dict[str, str](), "", list[Any]()
        async for line in reply.aiter_lines():
            name, _, value = line.partition(":")
            if name:
                fields[name] = value
                last_id = fields.get("id", last_id)
            elif not line and (fields or last_id):
                seen.append((fields["event"], json.loads(fields["data"])["sequence"], fields.get("retry")))
                fields = {}
            if line == ": connected" or (seen and line.startswith(": still here") and len(seen) < 3):
                await site.succeed(client)
            if len(seen) == 3:
                break
    assert seen == [(" task.succeeded", 1, " 2000"), (" task.succeeded", 2, None), (" task.succeeded", 3, None)]


async def test_a_bell_that_was_not_heard_is_made_up_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LOOK_AGAIN_S", 0.05)
    ring = site.bus.ring
    monkeypatch.setattr(site.bus, "ring", lambda topics: ring(set(topics) - {EVENTS}))
    async with site.serve() as client, Followed(client) as events:
        await site.succeed(client)
        assert (await events.next()).data["sequence"] == 1


async def test_a_store_that_is_away_for_a_moment_costs_no_event(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LOOK_AGAIN_S", 0.05)
    events_after, failures = site.reads.events_after, [RuntimeError("a mistake"), RuntimeError("another")]

    async def failing(*args: Any, **more: Any) -> Any:
        if failures:
            raise failures.pop()
        return await events_after(*args, **more)

    async with site.serve() as client, Followed(client) as events:
        monkeypatch.setattr(site.reads, "events_after", failing)
        await site.succeed(client)
        assert (await events.next()).data["sequence"] == 1
    assert failures == []


async def test_streams_end_when_the_service_stops(site: Site) -> None:
    async with site.serve() as client, client.stream("GET", "/v1/events/stream") as reply:
        site.stopping.set()
        async with patience():
            assert [chunk async for chunk in reply.aiter_bytes()] == [b": connected\n\n"]


async def test_more_clients_than_allowed_are_asked_to_come_again(site: Site) -> None:
    async with site.serve(stream_max=1) as client:
        async with Followed(client):
            reply = await client.get("/v1/events/stream")
            errors(reply, 503)
            assert reply.headers["retry-after"] == "10"
        await until(lambda: metric(site) == 0)
        async with Followed(client):
            pass


@pytest.mark.parametrize(
    ("params", "last_id", "place"),
    [
        ({"types": "task.succeeded,task.exploded"}, None, "query.types"),
        ({"task_id": "x"}, None, "query.task_id"),
        ({"last_event_id": "17"}, None, "query.last_event_id"),
        ({}, "17", "header.Last-Event-ID"),
        ({"colour": "red"}, None, "query.colour"),
    ],
)
async def test_a_stream_that_cannot_be_is_refused(
    client: httpx.AsyncClient, params: dict[str, str], last_id: str | None, place: str
) -> None:
    headers = {"Last-Event-ID": last_id} if last_id else {}
    assert set(errors(await client.get("/v1/events/stream", params=params, headers=headers))) == {place}
