"""Events on their way to subscribers: signed, filtered, tried again, held, counted and never held up by another."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import pytest_asyncio
from standardwebhooks import WebhookVerificationError

from tests.flows.conftest import World
from tests.support.api import new_prompt, numbers, ok
from tests.support.receiver import Subscriber, redirect, status
from tests.support.server import Answer, Drip, Endless, Hang, Raw, Reply, Reset
from tests.support.service import SIGNING_SECRET, Service, free_port
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("delivery")]

_groups = (f"group {number}" for number in itertools.count(1))


class Group:
    """An endpoint and its own tasks, which are selected by their metadata."""

    def __init__(self, world: World, service: Service) -> None:
        self.world = world
        self.api = service.api
        self.client = service.client
        self.name = next(_groups)
        self.endpoint: dict[str, Any] = {}

    async def subscribe(
        self, answers: Iterable[Answer] = (), then: Answer | None = None, **settings: Any
    ) -> Subscriber:
        subscriber = self.world.receiver.subscriber(self.name.replace(" ", "-"), answers, then)
        settings["filter"] = {"metadata": {"group": self.name}} | settings.get("filter", {})
        self.endpoint = await self.api.endpoint(subscriber.url, **settings)
        return subscriber

    @property
    def id(self) -> str:
        return self.endpoint["id"]

    @property
    def secret(self) -> str:
        return self.endpoint["secret"]

    async def run(self, outcome: str = "success", model: str = "fluxapi-ai/flux-kontext-pro", **rest: Any) -> Any:
        """A task that has ended."""
        prompt = new_prompt()
        fake = self.world.fakes[model.split("/", maxsplit=1)[0]]
        fake.script(prompt, callback=outcome, callback_delay=rest.pop("callback_delay", 0))
        metadata = {"group": self.name} | rest.pop("metadata", {})
        task = await self.api.submit(model, prompt, metadata=metadata, **rest)
        return await self.api.finished(task["id"])

    async def delivery(self, task: dict[str, Any]) -> dict[str, Any]:
        (found,) = await self.api.deliveries(endpoint_id=self.id, task_id=task["id"])
        return await self.api.delivery(found["id"])

    async def attempts(self, task: dict[str, Any], count: int) -> list[dict[str, Any]]:
        """The attempts, once there are so many."""

        async def there() -> list[dict[str, Any]] | None:
            found = await self.api.deliveries(endpoint_id=self.id, task_id=task["id"])
            attempts = found[0]["attempts"] if found else []
            return attempts if len(attempts) >= count else None

        return await until(there, what=f"{count} attempts")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    settings = {"TASKHOOK_CALLBACK_GRACE_S": "60", "TASKHOOK_RETRY_SCHEDULE": "0.2,0.2,0.2,0.2,0.2,0.2"}
    yield await world.start(settings)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def about_endpoints(world: World, service: Service) -> Subscriber:
    """Hears of the other endpoints."""
    subscriber = world.receiver.subscriber("about-endpoints")
    await service.api.endpoint(subscriber.url, events=["endpoint.*"])
    return subscriber


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def dripping(world: World, service: Service) -> tuple[Group, dict[str, Any]]:
    """An attempt that is answered a byte a second; its time runs while the other tests do."""
    group = Group(world, service)
    await group.subscribe([Drip(Reply(500, "x" * 5000), 1)])
    return group, await group.run()


@pytest.fixture
def group(world: World, service: Service) -> Group:
    return Group(world, service)


# What is sent


async def test_an_event_is_signed_as_standard_webhooks_ask(group: Group) -> None:
    subscriber = await group.subscribe()
    task = await group.run()
    await until(lambda: subscriber.received)
    (one,) = subscriber.received
    body = one.verify(group.secret)
    assert one.id == body["id"]
    assert abs(datetime.now(UTC).timestamp() - one.timestamp) < 20
    assert body["type"] == "task.succeeded"
    assert body["data"] == task
    assert isinstance(body["sequence"], int)
    assert datetime.fromisoformat(body["timestamp"])
    assert one.request.method == "POST"
    assert one.request.headers["content-type"].startswith("application/json")
    assert one.request.headers["user-agent"]
    with pytest.raises(WebhookVerificationError):
        one.verify("whsec_" + "A" * 32)


async def test_an_altered_body_does_not_verify(group: Group) -> None:
    subscriber = await group.subscribe()
    await group.run()
    await until(lambda: subscriber.received)
    received = subscriber.received[0]
    altered = replace(received.request, raw_body=received.request.raw_body.replace(b"succeeded", b"failed"))
    with pytest.raises(WebhookVerificationError):
        replace(received, request=altered).verify(group.secret)


async def test_a_webhook_url_is_a_subscriber_for_its_task_alone(world: World, group: Group) -> None:
    subscriber = world.receiver.subscriber("task-alone")
    task = await group.run("moderated", webhook_url=subscriber.url)
    await group.run()
    await until(lambda: subscriber.received)
    body = subscriber.received[0].verify(SIGNING_SECRET)
    assert (body["type"], body["data"]["id"]) == ("task.failed", task["id"])
    assert [one.task_id for one in subscriber.received] == [task["id"]]


async def test_a_cloudevents_endpoint_gets_signed_cloudevents(group: Group) -> None:
    subscriber = await group.subscribe(format="cloudevents")
    task = await group.run()
    await until(lambda: subscriber.received)
    (one,) = subscriber.received
    body = one.verify(group.secret)
    assert one.request.headers["content-type"].startswith("application/cloudevents+json")
    assert body["specversion"] == "1.0"
    assert body["id"] == one.id
    assert body["source"]
    assert body["type"].endswith("task.succeeded")
    assert datetime.fromisoformat(body["time"])
    assert body["data"]["id"] == task["id"]
    kept = await group.client.get(f"/v1/deliveries/{(await group.delivery(task))['id']}/body")
    assert kept.content == one.request.raw_body, "what can be read again is what was sent, byte for byte"
    assert all(name.isalnum() and name.islower() for name in body if name != "data"), "CloudEvents 1.0, 3.1"


async def test_an_endpoint_gets_its_own_headers_sent(group: Group) -> None:
    subscriber = await group.subscribe(headers={"X-Team": "blue", "Authorization": "Bearer theirs"})
    await group.run()
    await until(lambda: subscriber.received)
    headers = subscriber.received[0].request.headers
    assert (headers["x-team"], headers["authorization"]) == ("blue", "Bearer theirs")


# What goes where


async def test_events_are_filtered_by_type(world: World, group: Group) -> None:
    failures = await group.subscribe(events=["task.failed"])
    good, bad = await group.run(), await group.run("failed")
    await until(lambda: failures.of(bad["id"]))
    assert await group.api.deliveries(endpoint_id=group.id, task_id=good["id"]) == []
    assert failures.types() == ["task.failed"]


async def test_events_are_filtered_by_provider(group: Group) -> None:
    subscriber = await group.subscribe(filter={"providers": ["acedata"]})
    ours, other = await group.run(model="acedata/flux-dev"), await group.run()
    await until(lambda: subscriber.of(ours["id"]))
    assert await group.api.deliveries(endpoint_id=group.id, task_id=other["id"]) == []


async def test_events_are_filtered_by_model(group: Group) -> None:
    subscriber = await group.subscribe(filter={"models": ["acedata/flux-dev"]})
    ours, other = await group.run(model="acedata/flux-dev"), await group.run()
    await until(lambda: subscriber.of(ours["id"]))
    assert await group.api.deliveries(endpoint_id=group.id, task_id=other["id"]) == []


async def test_metadata_of_an_endpoint_filters_nothing(group: Group) -> None:
    subscriber = await group.subscribe(metadata={"team": "data"})
    task = await group.run()
    await until(lambda: subscriber.of(task["id"]))
    assert (await group.api.get_endpoint(group.id))["metadata"] == {"team": "data"}


async def test_events_are_filtered_by_metadata(group: Group) -> None:
    subscriber = await group.subscribe(filter={"metadata": {"group": group.name, "team": "blue"}})
    blue, red = await group.run(metadata={"team": "blue"}), await group.run(metadata={"team": "red"})
    none = await group.run()
    await until(lambda: subscriber.of(blue["id"]))
    for task in (red, none):
        assert await group.api.deliveries(endpoint_id=group.id, task_id=task["id"]) == []


async def test_running_is_told_to_those_who_ask_for_it_alone(world: World, service: Service, group: Group) -> None:
    asking, other = await group.subscribe(events=["task.running", "task.*"]), Group(world, service)
    usual = await other.subscribe(filter={"metadata": {"group": group.name}})
    task = await group.run(callback_delay=0.3)
    await until(lambda: asking.of(task["id"], "task.running") and asking.of(task["id"], "task.succeeded"))
    await until(lambda: usual.of(task["id"], "task.succeeded"))
    assert usual.types() == ["task.succeeded"]


async def test_sequences_grow_in_the_order_of_the_events(group: Group) -> None:
    subscriber = await group.subscribe()
    tasks = [await group.run() for _ in range(5)]
    await until(lambda: len(subscriber.received) == 5)
    sequences = [subscriber.of(task["id"])[0].body["sequence"] for task in tasks]
    assert sequences == sorted(set(sequences))


# What is tried again


async def test_a_failed_attempt_is_repeated_under_the_same_id_with_a_fresh_signature(group: Group) -> None:
    subscriber = await group.subscribe([status(500, body=b"try later"), status(503, headers={"Retry-After": "2"})])
    task = await group.run()
    await until(lambda: len(subscriber.received) == 3)
    assert len({one.id for one in subscriber.received}) == 1
    for one in subscriber.received:
        one.verify(group.secret)
    first, second, third = subscriber.received
    assert second.at - first.at > 0.05
    assert third.at - second.at > 1.8, "Retry-After was not honoured"
    assert third.timestamp > second.timestamp
    assert third.signatures != second.signatures
    attempts = await group.attempts(task, 3)
    assert [attempt["status_code"] for attempt in attempts] == [500, 503, 204]
    assert "try later" in json.dumps(attempts[0])
    delivery = await group.delivery(task)
    listed = await group.api.deliveries(endpoint_id=group.id, status=delivery["status"])
    assert delivery["id"] in [one["id"] for one in listed]


@pytest.mark.parametrize("code", [300, 304, 400, 401, 404, 422, 429, 500, 502])
async def test_any_answer_but_a_2xx_is_tried_again(group: Group, code: int) -> None:
    subscriber = await group.subscribe([status(code)])
    task = await group.run()
    await until(lambda: len(subscriber.of(task["id"])) == 2)
    attempts = await group.attempts(task, 2)
    assert attempts[-1]["status_code"] == 204


async def test_an_interim_answer_alone_is_tried_again(group: Group) -> None:
    subscriber = await group.subscribe([Raw(b"HTTP/1.1 103 Early Hints\r\n\r\n")])
    task = await group.run()
    await until(lambda: len(subscriber.of(task["id"])) == 2)
    assert (await group.attempts(task, 2))[0]["error"]


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
async def test_any_2xx_is_received(group: Group, code: int) -> None:
    subscriber = await group.subscribe([status(code)], then=status(500))
    task = await group.run()
    (attempt,) = await group.attempts(task, 1)
    assert (attempt["status_code"], attempt["error"]) == (code, None)
    assert len(subscriber.received) == 1


async def test_a_broken_connection_is_tried_again_and_named(group: Group) -> None:
    subscriber = await group.subscribe([Reset(), Reset(rst=False)])
    task = await group.run()
    await until(lambda: len(subscriber.received) >= 3)
    attempts = await group.attempts(task, 3)
    assert all(attempt["error"] and attempt["status_code"] is None for attempt in attempts[:2])
    assert attempts[2]["status_code"] == 204


async def test_retry_after_may_be_a_date(group: Group) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    subscriber = await group.subscribe([status(503, headers={"Retry-After": later})])
    await group.run()
    await until(lambda: len(subscriber.received) == 2)
    assert datetime.now(UTC) >= datetime.strptime(later, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)


@pytest.mark.parametrize("value", ["-5", "soon", "", "nan", "1e400x"])
async def test_a_senseless_retry_after_leaves_the_schedule_alone(group: Group, value: str) -> None:
    subscriber = await group.subscribe([status(503, headers={"Retry-After": value})])
    await group.run()
    await until(lambda: len(subscriber.received) == 2)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed_and_its_target_named(world: World, group: Group, code: int) -> None:
    target = world.receiver.server.url + f"/elsewhere-{code}"
    subscriber = await group.subscribe([redirect(target, code)])
    task = await group.run()
    await until(lambda: len(subscriber.received) == 2)
    attempts = await group.attempts(task, 2)
    assert attempts[0]["status_code"] == code
    assert target in json.dumps(attempts[0])
    assert [stray.path for stray in world.receiver.strays if stray.path == f"/elsewhere-{code}"] == []


async def test_a_used_up_schedule_ends_the_delivery_which_one_retry_can_still_save(group: Group) -> None:
    subscriber = await group.subscribe([status(500)] * 7)
    task = await group.run()
    await group.attempts(task, 7)
    delivery = await group.delivery(task)
    assert delivery["status"] == "failed"
    assert len(subscriber.received) == 7, "one attempt and six from the schedule"
    ok(await group.client.post(f"/v1/deliveries/{delivery['id']}/retry"))
    await group.attempts(task, 8)
    assert len({one.id for one in subscriber.received}) == 1
    assert (await group.delivery(task))["status"] == "succeeded"


async def test_a_retry_goes_to_the_present_url_under_the_present_secret(world: World, group: Group) -> None:
    old = await group.subscribe(then=status(500))
    new = world.receiver.subscriber("moved")
    task = await group.run()
    await group.attempts(task, 7)
    await group.api.patch_endpoint(group.id, url=new.url)
    secret = ok(await group.client.post(f"/v1/endpoints/{group.id}/rotate-secret"))["secret"]
    seen = len(old.received)
    ok(await group.client.post(f"/v1/deliveries/{(await group.delivery(task))['id']}/retry"))
    await until(lambda: new.received)
    assert new.received[0].verify(secret)["data"]["id"] == task["id"]
    assert new.received[0].id == old.received[0].id
    assert len(old.received) == seen


async def test_a_subscriber_that_is_away_gets_its_event_when_it_is_back(world: World, group: Group) -> None:
    port = free_port()
    group.endpoint = await group.api.endpoint(
        f"http://127.0.0.1:{port}/back", filter={"metadata": {"group": group.name}}
    )
    task = await group.run()
    attempts = await group.attempts(task, 2)
    assert attempts[0]["error"]
    assert attempts[0]["status_code"] is None
    back = world.receiver.subscriber("back")
    await group.api.patch_endpoint(group.id, url=back.url)
    await until(lambda: back.of(task["id"]))


# Endpoints that fail


async def test_gone_disables_the_endpoint_and_says_so(about_endpoints: Subscriber, group: Group) -> None:
    subscriber = await group.subscribe([status(410)])
    await group.run()

    async def disabled() -> bool:
        return (await group.api.get_endpoint(group.id))["enabled"] is False

    await until(disabled, what="the endpoint disabled")
    await until(lambda: about_endpoints.of(group.id, "endpoint.disabled"))
    held = await group.run()
    assert len(subscriber.received) == 1
    assert (await group.delivery(held))["attempts"] == []


async def test_gone_ends_the_delivery_to_a_webhook_url(world: World, group: Group) -> None:
    subscriber = world.receiver.subscriber("gone-url", [status(410)])
    task = await group.run(webhook_url=subscriber.url)

    async def ended() -> bool:
        (delivery,) = await group.api.deliveries(task_id=task["id"])
        return delivery["status"] == "failed"

    await until(ended, what="the delivery failed")
    assert len(subscriber.received) == 1


async def test_four_failures_in_a_row_are_told_and_so_is_the_recovery(
    about_endpoints: Subscriber, group: Group
) -> None:
    subscriber = await group.subscribe([status(500)] * 4)
    task = await group.run()
    await until(lambda: len(subscriber.of(task["id"])) == 5)
    await until(lambda: len(about_endpoints.of(group.id)) == 2, what="endpoint.failing and endpoint.recovered")
    told = sorted(about_endpoints.of(group.id), key=lambda one: one.body["sequence"])
    assert [one.type for one in told] == ["endpoint.failing", "endpoint.recovered"]


async def test_three_failures_are_not_told(about_endpoints: Subscriber, group: Group) -> None:
    subscriber = await group.subscribe([status(500)] * 3)
    task = await group.run()
    await until(lambda: len(subscriber.of(task["id"])) == 4)
    await group.attempts(task, 4)
    events = await group.api.events(group.id)
    assert events == []
    assert about_endpoints.of(group.id) == []


async def test_a_disabled_endpoint_holds_its_events_and_recover_sends_each_once(group: Group) -> None:
    subscriber = await group.subscribe()
    before = await group.run()
    await until(lambda: subscriber.of(before["id"]))
    since = datetime.now(UTC) - timedelta(minutes=1)
    await group.api.patch_endpoint(group.id, enabled=False)
    missed = [await group.run() for _ in range(3)]
    assert [one.task_id for one in subscriber.received] == [before["id"]]
    enabled = await group.api.patch_endpoint(group.id, enabled=True)
    assert 3 in numbers(enabled), f"enabling does not say that 3 events are held: {enabled}"
    period = {"since": since.isoformat(), "until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}
    dry = ok(await group.client.post(f"/v1/endpoints/{group.id}/recover", json={**period, "dry_run": True}))
    assert 3 in numbers(dry)
    assert len(subscriber.received) == 1, "a dry run sent something"
    done = ok(await group.client.post(f"/v1/endpoints/{group.id}/recover", json={**period, "dry_run": False}))
    assert 3 in numbers(done)
    await until(lambda: len(subscriber.received) == 4)
    assert {one.task_id for one in subscriber.received[1:]} == {task["id"] for task in missed}
    for one in subscriber.received:
        one.verify(group.secret)
    again = ok(await group.client.post(f"/v1/endpoints/{group.id}/recover", json={**period, "dry_run": True}))
    assert 0 in numbers(again)


async def test_recover_sends_what_was_given_up(group: Group) -> None:
    subscriber = await group.subscribe([status(500)] * 7)
    task = await group.run()
    await group.attempts(task, 7)
    received = await group.run()
    await until(lambda: subscriber.of(received["id"]))
    await group.attempts(received, 1)
    period = {
        "since": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
        "until": (datetime.now(UTC) + timedelta(minutes=1)).isoformat(),
    }
    done = ok(await group.client.post(f"/v1/endpoints/{group.id}/recover", json=period))
    assert 1 in numbers(done)
    await until(lambda: len(subscriber.of(task["id"])) == 8)
    assert len(subscriber.of(received["id"])) == 1
    assert len({one.id for one in subscriber.of(task["id"])}) == 1


# Secrets and the ping


async def test_after_a_rotation_both_secrets_verify(group: Group) -> None:
    subscriber = await group.subscribe()
    rotated = ok(await group.client.post(f"/v1/endpoints/{group.id}/rotate-secret"))
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != group.secret
    await group.run()
    await until(lambda: subscriber.received)
    (one,) = subscriber.received
    assert len(one.signatures) == 2
    assert one.verify(rotated["secret"]) == one.verify(group.secret)
    assert rotated["secret"] not in str(await group.api.get_endpoint(group.id))


async def test_after_two_rotations_all_three_secrets_verify(group: Group) -> None:
    subscriber = await group.subscribe()
    path = f"/v1/endpoints/{group.id}/rotate-secret"
    second, third = [ok(await group.client.post(path))["secret"] for _ in range(2)]
    await group.run()
    await until(lambda: subscriber.received)
    (one,) = subscriber.received
    assert len(one.signatures) == 3
    assert one.verify(third) == one.verify(second) == one.verify(group.secret)


async def test_a_ping_is_sent_at_once_and_signed(group: Group) -> None:
    subscriber = await group.subscribe(events=["task.failed"])
    ok(await group.client.post(f"/v1/endpoints/{group.id}/test"))
    await until(lambda: subscriber.received)
    assert subscriber.received[0].verify(group.secret)["type"] == "taskhook.ping"


# Slow ones


async def test_an_endpoint_has_its_own_time_for_an_attempt_and_its_own_schedule(group: Group) -> None:
    subscriber = await group.subscribe(then=Hang(), timeout_s=1, retry_schedule_s=[1])
    task = await group.run()
    first, second = await group.attempts(task, 2)
    assert first["error"] == second["error"] == "timed out after 1 s"
    assert (await group.delivery(task))["status"] == "failed"
    assert len(subscriber.received) == 2


async def test_an_endpoint_that_hangs_delays_no_other(world: World, service: Service, group: Group) -> None:
    stuck = await group.subscribe(then=Hang())
    other = Group(world, service)
    other.name = group.name
    fast = world.receiver.subscriber("fast")
    await service.api.endpoint(fast.url, filter={"metadata": {"group": group.name}})
    tasks = await asyncio.gather(*(group.run() for _ in range(30)))
    await until(lambda: len(fast.received) == 30)
    assert {one.task_id for one in fast.received} == {task["id"] for task in tasks}
    assert 1 <= stuck.in_flight <= 10
    ok(await service.client.delete(f"/v1/endpoints/{group.id}"))


async def test_no_more_are_in_flight_than_the_endpoint_allows(group: Group) -> None:
    subscriber = await group.subscribe(then=Reply(204, delay=0.2), max_in_flight=2)
    await asyncio.gather(*(group.run() for _ in range(10)))
    await until(lambda: len(subscriber.received) == 10)
    assert subscriber.most_in_flight == 2


async def test_an_endpoint_with_a_rate_is_not_sent_more(group: Group) -> None:
    subscriber = await group.subscribe(rate_per_s=5)
    await asyncio.gather(*(group.run() for _ in range(12)))
    await until(lambda: len(subscriber.received) == 12)
    times = sorted(one.at for one in subscriber.received)
    assert times[-1] - times[0] > 1.0
    assert max(sum(1 for at in times if start <= at < start + 0.9) for start in times) <= 10


@pytest.mark.parametrize("endless", [Endless(200), Endless(500)], ids=["200", "500"])
async def test_an_answer_without_end_is_cut_and_at_most_a_kibibyte_of_it_kept(group: Group, endless: Answer) -> None:
    await group.subscribe([endless])
    task = await group.run()
    attempts = await group.attempts(task, 1)
    assert len(attempts[0]["response"].encode()) <= 1024


async def test_an_answer_of_a_byte_a_second_is_cut_after_fifteen(dripping: tuple[Group, dict[str, Any]]) -> None:
    group, task = dripping
    attempt = (await group.attempts(task, 1))[0]
    assert attempt["duration_ms"] > 14_900
    assert 5 < len(attempt["response"]) < 20
    assert "timed out" in attempt["error"]


async def test_a_compressed_answer_is_not_unpacked(group: Group) -> None:
    subscriber = await group.subscribe([status(200, headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b not gzip")])
    task = await group.run()
    attempts = await group.attempts(task, 1)
    assert attempts[0]["status_code"] == 200
    assert len(subscriber.received) == 1
