"""Both clients against the real service and its sandbox: what a user does with them."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio
from taskhook import (
    AsyncTaskhook,
    AuthenticationError,
    ConflictError,
    EndpointEvent,
    NotFoundError,
    PermissionDeniedError,
    TaskEvent,
    TaskFailedError,
    Taskhook,
    TaskhookError,
    UnprocessableError,
    WaitTimeoutError,
    webhooks,
)

from tests.client_python.conftest import MODEL
from tests.support.receiver import Receiver
from tests.support.service import API_KEY, Service
from tests.support.wait import PATIENCE_S, until


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


def test_a_task_is_created_waited_for_and_explained(client: Taskhook) -> None:
    task = client.tasks.create_and_wait(model=MODEL, prompt="a lighthouse", aspect_ratio="16:9", metadata={"a": "1"})
    assert (task.status, task.input.aspect_ratio, task.metadata) == ("succeeded", "16:9", {"a": "1"})
    assert httpx.get(task.outputs[0].url, trust_env=False).headers["content-type"].startswith("image/")
    assert task.outputs[0].expires_at and task.outputs[0].expires_at > datetime.now(UTC)
    assert client.tasks.retrieve(task.id) == task.raise_for_status()
    assert "task.succeeded" in [item.type for item in client.tasks.timeline(task.id)]
    assert client.tasks.why(task.id).status == "succeeded"
    client.tasks.erase(task.id)
    erased = client.tasks.retrieve(task.id)
    assert (erased.input.prompt, erased.result) == ("", None) and erased.erased_at


async def test_the_same_with_asyncio(async_client: AsyncTaskhook) -> None:
    task = await async_client.tasks.create_and_wait(model=MODEL, prompt="a mill", timeout=PATIENCE_S)
    assert task.outputs
    assert [item.type async for item in async_client.tasks.timeline(task.id)]


def test_a_failed_task_is_an_error_that_has_the_task(client: Taskhook) -> None:
    with pytest.raises(TaskFailedError, match="failed with content_policy") as caught:
        client.tasks.create_and_wait(model=MODEL, prompt="a sandbox:moderated cat")
    assert caught.value.task.error and caught.value.task.error.code == "content_policy"
    with pytest.raises(TaskFailedError):
        caught.value.task.raise_for_status()


def test_a_wait_ends_with_its_time_and_a_canceled_task_ends_it(client: Taskhook) -> None:
    task = client.tasks.create(model=MODEL, prompt="a sandbox:stuck cat")
    with pytest.raises(WaitTimeoutError, match=r"not final after 0\.3 s") as caught:
        client.tasks.wait(task.id, timeout=0.3)
    assert isinstance(caught.value, TimeoutError) and caught.value.task and caught.value.task.id == task.id
    assert client.tasks.cancel(task.id).status == "canceled"
    assert client.tasks.wait(task.id).status == "canceled"


async def test_a_list_goes_on_through_its_pages(client: Taskhook, async_client: AsyncTaskhook) -> None:
    label = {"batch": "pages"}
    made = [
        client.tasks.create(model=MODEL, prompt="a tree", metadata=label, idempotency_key=f"p{n}") for n in range(5)
    ]
    again = client.tasks.create(model=MODEL, prompt="a tree", metadata=label, idempotency_key="p0")
    assert again.id == made[0].id
    newest_first = [task.id for task in reversed(made)]
    page = client.tasks.list(metadata=label, limit=2)
    assert [task.id for task in page.data] == newest_first[:2]
    assert [len(one.data) for one in page.pages()] == [2, 2, 1]
    assert [task.id for task in page] == newest_first
    found = async_client.tasks.list(metadata=label, limit=2, created_after=datetime.now(UTC) - timedelta(hours=1))
    assert [task.id async for task in found] == newest_first
    assert (await found).has_next_page
    assert list(client.tasks.list(created_before=made[0].created_at, metadata=label)) == []


def test_refusals_are_typed(client: Taskhook, service: Service) -> None:
    with pytest.raises(UnprocessableError) as invalid:
        client.tasks.create(model=MODEL, prompt="x", n=9)
    assert [error.loc for error in invalid.value.errors] == [("body", "input", "n")]
    assert invalid.value.request_id and invalid.value.request_id in str(invalid.value)
    with pytest.raises(NotFoundError):
        client.tasks.retrieve("task_" + "0" * 32)
    with pytest.raises(AuthenticationError):
        client.with_options(api_key="wrong").tasks.list()
    client.tasks.create(model=MODEL, prompt="one", idempotency_key="once")
    with pytest.raises(ConflictError):
        client.tasks.create(model=MODEL, prompt="another", idempotency_key="once")
    key = client.keys.create(name="a reader", scopes=["tasks:read"])
    assert key.key and key.key not in repr(key)
    reader = client.with_options(api_key=key.key)
    assert reader.providers.list().data
    with pytest.raises(PermissionDeniedError):
        reader.tasks.create(model=MODEL, prompt="x")
    client.keys.revoke(key.id)
    assert {one.id: one.revoked_at is not None for one in client.keys.list()}[key.id]
    assert client.faults.list().data == []
    with pytest.raises(NotFoundError):
        client.faults.retry("task_" + "0" * 32)


async def test_an_endpoint_from_creation_to_deletion(async_client: AsyncTaskhook, receiver: Receiver) -> None:
    subscriber = receiver.subscriber("life")
    endpoint = await async_client.endpoints.create(
        url=subscriber.url, filter={"metadata": {"for": "life"}}, rate_per_s=50
    )
    assert endpoint.secret and endpoint.secret not in repr(endpoint)
    delivery = await async_client.endpoints.test(endpoint.id)
    task = await async_client.tasks.create_and_wait(model=MODEL, prompt="a bridge", metadata={"for": "life"})
    await until(lambda: len(subscriber.received) == 2)
    ping, done = (webhooks.verify(r.request.raw_body, r.request.headers, endpoint.secret) for r in subscriber.received)
    assert isinstance(ping, EndpointEvent) and (ping.type, ping.data.id) == ("taskhook.ping", endpoint.id)
    assert isinstance(done, TaskEvent) and done.data == task
    assert await async_client.events.retrieve(done.id) == done
    assert await async_client.deliveries.body(delivery.id) == subscriber.received[0].request.raw_body
    assert [one.event_type async for one in async_client.deliveries.list(endpoint_id=endpoint.id)] == [
        "task.succeeded",
        "taskhook.ping",
    ]
    assert (await async_client.deliveries.retry(delivery.id)).id == delivery.id
    counted = await async_client.deliveries.retry_all(endpoint_id=endpoint.id, dry_run=True)
    assert (counted.deliveries, counted.has_more) == (0, False)
    await until(lambda: len(subscriber.received) == 3)
    changed = await async_client.endpoints.update(endpoint.id, rate_per_s=None, format="cloudevents")
    assert (changed.rate_per_s, changed.format) == (None, "cloudevents")
    rotated = await async_client.endpoints.rotate_secret(endpoint.id)
    assert rotated.secret
    counted = await async_client.endpoints.recover(endpoint.id, since=task.created_at, dry_run=True)
    assert counted.dry_run
    await async_client.endpoints.test(endpoint.id)
    await until(lambda: len(subscriber.received) == 4)
    last = subscriber.received[3].request
    for secret in (endpoint.secret, rotated.secret):
        assert isinstance(webhooks.verify(last.raw_body, last.headers, secret), EndpointEvent), "as a CloudEvent"
    await async_client.endpoints.delete(endpoint.id)
    assert [one.id async for one in async_client.endpoints.list()] == []


def test_the_stream_tells_events_as_they_happen_and_from_any_place(client: Taskhook) -> None:
    first, second = (client.tasks.cancel(client.tasks.create(model=MODEL, prompt="a mill").id) for _ in range(2))
    (event,) = client.events.list(task_id=first.id)
    with client.events.stream(last_event_id=event.id, types=["task.canceled", "task.failed"]) as events:
        told = next(event for event in events if isinstance(event, TaskEvent) and event.data.id == second.id)
        assert (told.type, events.last_event_id) == ("task.canceled", told.id)
    with pytest.raises(StopIteration):
        next(events)


def test_the_key_comes_from_the_environment_and_never_shows(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TASKHOOK_API_KEY", raising=False)
    with pytest.raises(TaskhookError, match="TASKHOOK_API_KEY"):
        Taskhook()
    monkeypatch.setenv("TASKHOOK_API_KEY", API_KEY)
    monkeypatch.setenv("TASKHOOK_URL", service.url + "/")
    with Taskhook() as client:
        assert client.base_url == service.url
        assert client.providers.list().data
        assert API_KEY not in repr(client) + repr(client._options) + repr(vars(client))
