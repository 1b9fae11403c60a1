"""The HTTP API as its callers see it: tasks, events, the stream, endpoints, and what is open to all."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.flows.conftest import World
from tests.support.api import FINAL, new_prompt, ok, problem
from tests.support.service import Service
from tests.support.tables import statement, tables
from tests.support.upstream import Plan, hang
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("api")]

MODEL = "fluxapi-ai/flux-kontext-pro"
HELD_S, WOKEN_S = 55, 45
"""A wait that ends much later than anything that should end it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_CALLBACK_GRACE_S": "60"})


async def running(world: World, service: Service, **rest: Any) -> tuple[dict[str, Any], Plan]:
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt)
    task = await service.api.submit(MODEL, prompt, **rest)
    return await service.api.accepted(task["id"]), plan


async def succeeded(world: World, service: Service, **rest: Any) -> dict[str, Any]:
    prompt = new_prompt()
    world.fluxapi_ai.script(prompt, callback="success", callback_delay=0)
    task = await service.api.submit(MODEL, prompt, **rest)
    return await service.api.finished(task["id"])


# Creating


async def test_a_new_task_is_answered_with_its_place_and_its_defaults(world: World, service: Service) -> None:
    prompt, asked_at = new_prompt(), datetime.now(UTC)
    reply = await service.api.post_task(MODEL, prompt, metadata={"order": "7"})
    assert reply.status_code == 202
    task = reply.json()
    assert re.fullmatch(r"task_[0-9a-f-]{32,36}", task["id"])
    assert reply.headers["location"].endswith(f"/v1/tasks/{task['id']}")
    assert task["object"] == "task"
    assert task["status"] in ("queued", "running")
    assert (task["provider"], task["model"]) == ("fluxapi-ai", "flux-kontext-pro")
    assert task["input"]["prompt"] == prompt
    assert task["tracking"] == {
        "via": None,
        "polls": 0,
        "callbacks": 0,
        "progress": None,
        "queue_position": None,
        "provider_cancel": None,
    }
    assert (task["result"], task["error"], task["finished_at"]) == (None, None, None)
    created, deadline = (datetime.fromisoformat(task[name]) for name in ("created_at", "deadline_at"))
    assert asked_at - timedelta(milliseconds=1) < created <= datetime.now(UTC)
    assert deadline > created
    assert task["created_at"].endswith("Z")


async def test_a_timeout_of_the_request_sets_the_deadline(world: World, service: Service) -> None:
    task, _ = await running(world, service, timeout_s=123)
    created, deadline = (datetime.fromisoformat(task[name]) for name in ("created_at", "deadline_at"))
    assert abs((deadline - created).total_seconds() - 123) < 0.01


async def test_ids_sort_by_creation(world: World, service: Service) -> None:
    ids = [(await service.api.submit(MODEL, new_prompt()))["id"] for _ in range(5)]
    assert ids == sorted(ids)


# Idempotency


async def test_the_same_key_and_body_give_the_same_task(world: World, service: Service) -> None:
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt)
    first = await service.api.post_task(MODEL, prompt, key="key-same")
    second = await service.api.post_task(MODEL, prompt, key="key-same")
    assert (first.status_code, second.status_code) == (202, 200)
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert first.json()["id"] == second.json()["id"]
    await service.api.accepted(first.json()["id"])
    assert len(plan.submits) == 1


async def test_the_same_key_with_another_body_is_a_conflict(world: World, service: Service) -> None:
    first, second = new_prompt(), new_prompt()
    ok(await service.api.post_task(MODEL, first, key="key-other"), 202)
    problem(await service.api.post_task(MODEL, second, key="key-other"), 409)
    assert second not in world.fluxapi_ai.plans


async def test_a_refused_request_does_not_use_up_its_key(world: World, service: Service) -> None:
    prompt = new_prompt()
    problem(await service.api.post_task(MODEL, prompt, key="key-corrected", input={"n": 5}), 422)
    ok(await service.api.post_task(MODEL, prompt, key="key-corrected"), 202)


async def test_a_hundred_equal_posts_at_once_are_one_task_and_one_submit(world: World, service: Service) -> None:
    prompt = new_prompt()
    plan = world.fluxapi_ai.script(prompt)
    replies = await asyncio.gather(*(service.api.post_task(MODEL, prompt, key="key-hundred") for _ in range(100)))
    assert sorted(reply.status_code for reply in replies) == [200] * 99 + [202]
    (task_id,) = {reply.json()["id"] for reply in replies}
    await service.api.accepted(task_id)
    assert len(plan.submits) == 1


# Reading


async def test_a_list_is_filtered_by_each_field(world: World, service: Service) -> None:
    done = await succeeded(world, service, metadata={"list": "one", "team": "blue"})
    open_, _ = await running(world, service, metadata={"list": "one", "team": "red"})
    other = await service.api.submit("acedata/flux-dev", new_prompt(), metadata={"list": "one", "team": "red"})

    async def ids(**params: Any) -> list[str]:
        return [task["id"] for task in await service.api.pages("/v1/tasks", **{"metadata.list": "one"}, **params)]

    assert await ids() == [other["id"], open_["id"], done["id"]], "not newest first"
    assert await ids(status="succeeded") == [done["id"]]
    assert done["id"] not in await ids(status="running")
    assert await ids(provider="acedata") == [other["id"]]
    assert await ids(model="flux-dev") == [other["id"]]
    assert await ids(provider_task_id=open_["provider_task_id"]) == [open_["id"]]
    assert await ids(**{"metadata.team": "red"}) == [other["id"], open_["id"]]
    assert await ids(**{"metadata.team": "red"}, provider="fluxapi-ai") == [open_["id"]]
    assert await ids(**{"metadata.team": "green"}) == []
    assert await ids(created_after=open_["created_at"], provider="acedata") == [other["id"]]
    assert await ids(created_before=open_["created_at"], status="succeeded") == [done["id"]]
    assert done["id"] not in await ids(created_after=open_["created_at"])


async def test_pages_follow_each_other_without_a_gap_while_tasks_arrive(world: World, service: Service) -> None:
    mine = [(await service.api.submit(MODEL, new_prompt(), metadata={"page": "x"}))["id"] for _ in range(7)]
    seen: list[str] = []
    params: dict[str, Any] = {"metadata.page": "x", "limit": 2}
    while True:
        page = ok(await service.client.get("/v1/tasks", params=params))
        assert len(page["data"]) <= 2
        seen += [task["id"] for task in page["data"]]
        await service.api.submit(MODEL, new_prompt(), metadata={"page": "x"})
        if not page["next_cursor"]:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == mine[::-1]


async def test_a_waiting_get_is_held_until_the_task_is_final(world: World, service: Service) -> None:
    task, plan = await running(world, service)
    waiting = asyncio.create_task(service.api.task(task["id"], wait=HELD_S))
    await asyncio.wait([waiting], timeout=0.4)
    assert not waiting.done()
    begun = time.monotonic()
    await world.fluxapi_ai.callback(plan.job)
    assert (await waiting)["status"] == "succeeded"
    assert time.monotonic() - begun < WOKEN_S, "held until its time was over"


async def test_a_waiting_get_ends_with_its_time(world: World, service: Service) -> None:
    task, _ = await running(world, service)
    begun = time.monotonic()
    assert (await service.api.task(task["id"], wait=1))["status"] == "running"
    assert time.monotonic() - begun > 0.9


async def test_a_waiting_get_of_a_final_task_is_answered_at_once(world: World, service: Service) -> None:
    task = await succeeded(world, service)
    begun = time.monotonic()
    await service.api.task(task["id"], wait=HELD_S)
    assert time.monotonic() - begun < WOKEN_S, "held although nothing can change"


async def test_the_timeline_tells_what_happened_in_order(world: World, service: Service) -> None:
    subscriber = world.receiver.subscriber("timeline")
    prompt = new_prompt()
    world.fluxapi_ai.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt, webhook_url=subscriber.url)
    await service.api.finished(task["id"])
    await until(lambda: subscriber.received)

    async def told() -> list[dict[str, Any]] | None:
        lines = await service.api.timeline(task["id"])
        text = " ".join(line["type"] for line in lines)
        return lines if all(word in text for word in ("submit", "callback", "deliver")) else None

    lines = await until(told, what="submit, callback and delivery in the timeline")
    times = [line["at"] for line in lines]
    assert times == sorted(times)
    assert all(datetime.fromisoformat(at) for at in times)


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "canceled"])
async def test_why_explains_every_state_in_sentences(world: World, service: Service, state: str) -> None:
    task, plan = await running(world, service)
    if state == "canceled":
        await service.client.post(f"/v1/tasks/{task['id']}/cancel")
    elif state != "running":
        await world.fluxapi_ai.callback(plan.job, "success" if state == "succeeded" else "moderated")
    why = ok(await service.client.get(f"/v1/tasks/{task['id']}/why"))
    sentences = [text for text in why.values() if isinstance(text, str) and " " in text]
    assert len(sentences) >= 3, why
    assert all(text[0].isupper() or text[0].isdigit() for text in sentences), why


# Ending


async def test_a_canceled_task_stays_canceled_and_a_later_result_is_late(world: World, service: Service) -> None:
    late = world.receiver.subscriber("late-after-cancel")
    await service.api.endpoint(late.url, events=["task.late_result", "task.canceled"])
    task, plan = await running(world, service)
    canceled = ok(await service.client.post(f"/v1/tasks/{task['id']}/cancel"))
    assert (canceled["status"], canceled["tracking"]["via"]) == ("canceled", "cancel")
    assert (await world.fluxapi_ai.callback(plan.job)).status == 200
    assert (await service.api.task(task["id"]))["status"] == "canceled"
    await until(lambda: len(late.of(task["id"])) == 2, what="task.canceled and task.late_result")
    assert set(late.types()) == {"task.canceled", "task.late_result"}


async def test_a_queued_task_can_be_canceled_and_is_then_never_sent(world: World, service: Service) -> None:
    prompt = new_prompt()
    await world.acedata.server.close()
    task = await service.api.submit("acedata/flux-dev", prompt)
    await service.api.not_sent(task["id"])  # else its first submit may be on its way
    canceled = ok(await service.client.post(f"/v1/tasks/{task['id']}/cancel"))
    assert canceled["status"] == "canceled"
    await world.acedata.server.listen()
    marker = new_prompt()
    world.acedata.script(marker, callback="success")
    other = await service.api.submit("acedata/flux-dev", marker)
    assert (await service.api.finished(other["id"]))["status"] == "succeeded"
    assert prompt not in world.acedata.plans


async def test_a_final_task_cannot_be_canceled(world: World, service: Service) -> None:
    task = await succeeded(world, service)
    reply = await service.client.post(f"/v1/tasks/{task['id']}/cancel")
    assert reply.status_code in (200, 409)
    assert (await service.api.task(task["id"]))["status"] == "succeeded"
    assert len(await service.api.finals(task["id"])) == 1


async def test_erasing_leaves_ids_states_and_times_and_no_word_of_the_rest(world: World, service: Service) -> None:
    subscriber = world.receiver.subscriber("erased")
    prompt = new_prompt("a very private wish")
    plan = world.fluxapi_ai.script(prompt, callback="success")
    task = await service.api.submit(MODEL, prompt, webhook_url=subscriber.url)
    task = await service.api.finished(task["id"])
    await until(lambda: subscriber.received)
    picture = world.fluxapi_ai.image_url(plan.job)
    assert any(picture in row for row in await stored(service))
    assert (await service.client.delete(f"/v1/tasks/{task['id']}")).status_code in (200, 204)
    left = await service.api.task(task["id"])
    for name in ("id", "status", "provider", "model", "provider_task_id", "created_at", "finished_at"):
        assert left[name] == task[name]
    seen = str(left) + str(await service.api.timeline(task["id"])) + str(await service.api.finals(task["id"]))
    seen += str(await service.api.deliveries(task_id=task["id"]))
    assert prompt not in seen
    assert picture not in seen
    assert [row for row in await stored(service) if prompt in row or picture in row] == []


async def stored(service: Service) -> list[str]:
    """Every row of the database, as text."""
    rows = [row for name in await tables(service) for row in await statement(service, f'select * from "{name}"')]
    return [str([v.decode(errors="replace") if isinstance(v, bytes) else v for v in row]) for row in rows]


async def test_a_task_that_is_not_final_is_not_erased(world: World, service: Service) -> None:
    task, _ = await running(world, service)
    problem(await service.client.delete(f"/v1/tasks/{task['id']}"), 409)
    assert (await service.api.task(task["id"]))["input"] == task["input"]


# Events and their stream


async def test_events_are_listed_oldest_first_and_read_one_by_one(world: World, service: Service) -> None:
    first, second = await succeeded(world, service), await succeeded(world, service)
    events = await service.api.pages("/v1/events", limit=3)
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences))
    order = [event["data"].get("id") for event in events]
    assert order.index(first["id"]) < order.index(second["id"])
    one = next(event for event in events if event["data"].get("id") == second["id"])
    assert set(one) >= {"id", "type", "timestamp", "sequence", "data"}
    assert re.fullmatch(r"evt_[0-9a-f-]{32,36}", one["id"])
    assert ok(await service.client.get(f"/v1/events/{one['id']}")) == one


async def test_the_stream_tells_of_an_event_as_it_happens(world: World, service: Service) -> None:
    task, plan = await running(world, service)
    async with service.api.stream() as stream:
        await world.fluxapi_ai.callback(plan.job)
        event = await stream.next_final()
    assert event.type == event.data["type"] == "task.succeeded"
    assert event.id == event.data["id"]
    (stored_event,) = await service.api.events(task["id"], "task.succeeded")
    assert stored_event["id"] == event.id
    assert stored_event["sequence"] == event.data["sequence"]


async def test_the_stream_resumes_after_the_last_event_without_a_gap_or_a_repeat(
    world: World, service: Service
) -> None:
    before = await succeeded(world, service)
    (known,) = await service.api.events(before["id"], "task.succeeded")
    missed = [(await succeeded(world, service))["id"] for _ in range(5)]
    async with service.api.stream(known["id"]) as stream:
        seen = [(await stream.next_final()).data for _ in range(5)]
        task, plan = await running(world, service)
        await world.fluxapi_ai.callback(plan.job)
        seen.append((await stream.next_final()).data)
    assert [event["data"]["id"] for event in seen] == [*missed, task["id"]]
    assert [event["sequence"] for event in seen] == sorted({event["sequence"] for event in seen})


async def test_the_stream_is_narrowed_to_one_task(world: World, service: Service) -> None:
    task, plan = await running(world, service)
    async with service.api.stream(task_id=task["id"]) as stream:
        await succeeded(world, service)
        await world.fluxapi_ai.callback(plan.job)
        assert (await stream.next_final()).data["data"]["id"] == task["id"]


async def test_many_streams_see_the_same_events_in_the_same_order(world: World, service: Service) -> None:
    async def follow(started: asyncio.Event) -> list[str]:
        async with service.api.stream() as stream:
            started.set()
            return [(await stream.next_final()).id for _ in range(10)]

    marks = [asyncio.Event() for _ in range(20)]
    followers = [asyncio.create_task(follow(mark)) for mark in marks]
    await asyncio.gather(*(mark.wait() for mark in marks))
    await asyncio.gather(*(succeeded(world, service) for _ in range(10)))
    seen = await asyncio.gather(*followers)
    assert len({tuple(ids) for ids in seen}) == 1
    assert len(set(seen[0])) == 10


# Endpoints


async def test_an_endpoint_is_made_read_changed_and_deleted(world: World, service: Service) -> None:
    url = world.receiver.subscriber("crud").url
    made = await service.api.endpoint(url, events=["task.failed"], description="mine", metadata={"a": "b"})
    assert re.fullmatch(r"ep_[0-9a-f-]{32,36}", made["id"])
    assert made["secret"].startswith("whsec_")
    assert (made["url"], made["events"], made["enabled"]) == (url, ["task.failed"], True)
    assert (made["format"], made["max_in_flight"], made["rate_per_s"]) == ("standard", 10, None)
    read = await service.api.get_endpoint(made["id"])
    assert made["secret"] not in str(read)
    assert read["metadata"] == {"a": "b"}
    listed = await service.api.pages("/v1/endpoints")
    assert made["id"] in [endpoint["id"] for endpoint in listed]
    assert made["secret"] not in str(listed)
    changed = await service.api.patch_endpoint(made["id"], description="yours", max_in_flight=3)
    assert (changed["description"], changed["max_in_flight"]) == ("yours", 3)
    assert changed["events"] == ["task.failed"]
    assert made["secret"] not in str(changed)
    assert (await service.client.delete(f"/v1/endpoints/{made['id']}")).status_code in (200, 204)
    problem(await service.client.get(f"/v1/endpoints/{made['id']}"), 404)
    assert made["id"] not in [endpoint["id"] for endpoint in await service.api.pages("/v1/endpoints")]


async def test_a_deleted_endpoint_gets_no_more_events(world: World, service: Service) -> None:
    gone, stays = world.receiver.subscriber("gone"), world.receiver.subscriber("stays")
    endpoint = await service.api.endpoint(gone.url)
    await service.api.endpoint(stays.url)
    await service.client.delete(f"/v1/endpoints/{endpoint['id']}")
    task = await succeeded(world, service)
    await until(lambda: stays.of(task["id"]))
    assert gone.received == []


# What is open to all, and what is not


async def test_health_readiness_metrics_and_documentation_need_no_key(service: Service) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
        reply = await service.client.get(path, headers={"Authorization": ""})
        assert reply.status_code == 200, (path, reply.text)


async def test_metrics_are_in_the_prometheus_text_format(world: World, service: Service) -> None:
    await succeeded(world, service)
    reply = await service.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = list(text_string_to_metric_families(reply.text))
    names = {family.name for family in families}
    assert any("task" in name for name in names), names
    assert any("callback" in name for name in names), names
    values = [value for family in families for sample in family.samples for value in sample.labels.values()]
    assert [value for value in values if re.match(r"(task|evt|ep|dlv)_[0-9a-f]{8}", value)] == []


async def test_the_openapi_document_is_valid_and_has_every_call(service: Service) -> None:
    from openapi_spec_validator import validate  # noqa: PLC0415 - takes long to load, and this test alone needs it

    document = ok(await service.client.get("/openapi.json"))
    validate(document)
    calls = {
        (method.upper(), re.sub(r"\{[^}]+\}", "{}", path)) for path, ops in document["paths"].items() for method in ops
    }
    assert calls >= {
        ("POST", "/v1/tasks"),
        ("GET", "/v1/tasks"),
        ("GET", "/v1/tasks/{}"),
        ("DELETE", "/v1/tasks/{}"),
        ("GET", "/v1/tasks/{}/timeline"),
        ("GET", "/v1/tasks/{}/why"),
        ("POST", "/v1/tasks/{}/cancel"),
        ("GET", "/v1/events"),
        ("GET", "/v1/events/{}"),
        ("GET", "/v1/events/stream"),
        ("POST", "/v1/endpoints"),
        ("GET", "/v1/endpoints"),
        ("GET", "/v1/endpoints/{}"),
        ("PATCH", "/v1/endpoints/{}"),
        ("DELETE", "/v1/endpoints/{}"),
        ("POST", "/v1/endpoints/{}/rotate-secret"),
        ("POST", "/v1/endpoints/{}/test"),
        ("POST", "/v1/endpoints/{}/recover"),
        ("GET", "/v1/deliveries"),
        ("GET", "/v1/deliveries/{}"),
        ("POST", "/v1/deliveries/{}/retry"),
        ("GET", "/v1/providers"),
    }


async def test_the_documentation_loads_nothing_from_elsewhere(service: Service) -> None:
    reply = await service.client.get("/docs")
    assert reply.headers["content-type"].startswith("text/html")
    loaded = re.findall(r"""(?:src|href|action)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""", reply.text)
    loaded += re.findall(r"""(?:@import|url\()\s*["']?((?:https?:)?//[^"')\s]+)""", reply.text)
    assert loaded == []
    scripts = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)\s*=\s*["']([^"']+)""", reply.text)
    for path in scripts:
        assert path.startswith("data:") or (await service.client.get(path)).status_code == 200


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz"])
async def test_nothing_under_v1_is_open_without_a_key(service: Service, authorization: str) -> None:
    document = ok(await service.client.get("/openapi.json"))
    calls = [(method, path) for path, ops in document["paths"].items() for method in ops if path.startswith("/v1")]
    assert len(calls) >= 20
    for method, path in calls:
        if method not in ("get", "post", "patch", "put", "delete"):
            continue
        reply = await service.client.request(
            method.upper(),
            re.sub(r"\{[^}]+\}", "unknown", path),
            headers={"Authorization": authorization},
            json={} if method in ("post", "patch", "put") else None,
        )
        problem(reply, 401)
        assert "bearer" in reply.headers["www-authenticate"].lower()


async def test_a_callback_address_is_not_opened_by_a_bearer_key(service: Service) -> None:
    reply = await service.client.post("/callbacks/fluxapi-ai/forged", json={"code": 200})
    assert reply.status_code == 403


async def test_a_client_is_not_held_by_a_provider_that_hangs(world: World, service: Service) -> None:
    prompt = new_prompt()
    plan = world.fluxapi_org.script(prompt, submit=[hang()])
    task = await service.api.submit("fluxapi-org/flux-dev", prompt)
    assert task["status"] not in FINAL
    await until(lambda: plan.submits, what="the submit that hangs")
    assert (await service.api.task(task["id"]))["status"] not in FINAL
