"""Erasing, recovering and deleting."""

from datetime import timedelta
from functools import partial

import msgspec
import pytest

from service.core import delivering, lifecycle
from service.core.change import Change
from service.core.delivery import EndpointFilter
from service.core.observation import Accepted
from service.core.problems import Conflict, NotFound
from service.core.task import TaskInput
from service.core.times import after
from service.store import upkeep
from service.store.batch import Batch, Keys
from service.store.claims import Parcel
from service.store.queries import DeliveryFilter, TaskFilter
from tests.store.conftest import Store
from tests.store.test_claims import claim_deliveries, publish, put, subscribe
from tests.support.factory import CALLS_BACK, make_endpoint, make_task, picture, refusal

TABLES = ("tasks", "labels", "timeline", "idempotency_keys", "events", "endpoints", "deliveries", "attempts", "limits")


async def dump(store: Store) -> str:
    async with store.driver.reading() as session:
        return str([await session.fetch(f"select * from {table}") for table in TABLES])


async def test_an_erased_task_leaves_no_word_of_it_in_any_table(store: Store) -> None:
    await subscribe(store)
    task = make_task(store.env, metadata={"who": "unmistakable"}, provider_task_id="p", step="tracking")
    task = msgspec.structs.replace(task, input=msgspec.structs.replace(task.input, prompt="unmistakable"))
    await put(store, lifecycle.create(task, store.env))
    with pytest.raises(Conflict):
        await upkeep.erase_task(store.writer, task.id)
    result = picture("https://cdn/unmistakable.png")
    await store.writer.change_task(
        task.id, lambda found: lifecycle.advance(found, result, "poll", store.env, CALLS_BACK)
    )
    assert "unmistakable" in await dump(store)
    await upkeep.erase_task(store.writer, task.id)
    assert "unmistakable" not in await dump(store)
    (event,) = await store.reads.events_after(0, 10)
    assert msgspec.json.decode(event.body)["data"]["status"] == "succeeded"
    assert (await store.reads.list_tasks(TaskFilter(metadata={"who": "unmistakable"}), 10, None)).items == []


async def test_the_events_of_an_erased_task_tell_its_states_as_they_were(store: Store) -> None:
    await subscribe(store, events=("task.running", "task.*"))
    env, labels = store.env, {"who": "unmistakable"}
    for end in (picture("https://cdn/unmistakable.png"), refusal()):
        task = make_task(env, metadata=labels, input=TaskInput(prompt="unmistakable"), step="sending", lease=1)
        await put(store, lifecycle.create(task, env))
        for learned in (Accepted(provider_task_id="p"), end):
            decide = partial(lifecycle.advance, observation=learned, via="submit", env=env, policy=CALLS_BACK, lease=1)
            await store.writer.change_task(task.id, decide)
        await upkeep.erase_task(store.writer, task.id)
    assert "unmistakable" not in await dump(store)
    told = [msgspec.json.decode(event.body) for event in await store.reads.events_after(0, 10)]
    assert [(one["type"], one["data"]["status"], one["data"]["error"] is None) for one in told] == [
        ("task.running", "running", True),
        ("task.succeeded", "succeeded", True),
        ("task.running", "running", True),
        ("task.failed", "failed", False),
    ]
    assert all(one["data"]["input"] == one["data"]["metadata"] == {} for one in told)


async def test_recover_sends_what_was_not_received_and_nothing_twice(store: Store) -> None:
    await publish(store, 3)
    endpoint_id = await subscribe(store)
    await publish(store, 3)
    outcome = delivering.Outcome(at=store.env.now(), received=True, status_code=200, duration_ms=1)
    for parcel in (await claim_deliveries(store)).parcels[:2]:
        await store.writer.change(
            Keys(deliveries=(parcel.delivery.id,)),
            lambda batch, key=parcel.delivery.id: delivering.after_attempt(
                batch.delivery(key), None, outcome, 1, store.env, ()
            ),
        )
    since, until = store.env.now(), after(store.env.now(), 1)
    assert await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=True) == 3
    assert await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=False) == 3
    assert await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=False) == 0
    assert len((await claim_deliveries(store)).parcels) == 3


async def test_recover_goes_through_more_than_one_step(store: Store) -> None:
    endpoint = make_endpoint(store.env, enabled=False)
    await put(store, Change(endpoints=(endpoint,)))
    await publish(store, 10)
    await put(store, Change(endpoints=(delivering.enable(endpoint),)))
    since, until = store.env.now() - timedelta(days=1), after(store.env.now(), 1)
    assert await upkeep.recover(store.writer, endpoint.id, since, until, dry_run=False, step_max=4) == 10


async def fail(store: Store, parcel: Parcel) -> None:
    """As a subscriber does that is overloaded, and says for how long."""
    delivery = parcel.delivery
    outcome = delivering.Outcome(
        at=store.env.now(), received=False, status_code=503, duration_ms=1, error="HTTP 503", retry_after="3600"
    )
    await store.writer.change(
        Keys(deliveries=(delivery.id,), endpoints=(delivery.lane,)),
        lambda batch: delivering.after_attempt(
            batch.delivery(delivery.id), batch.endpoint(delivery.lane), outcome, delivery.lease, store.env, (5.0, 20.0)
        ),
    )


async def test_recover_sends_at_once_what_waits_for_its_next_attempt(
    store: Store,
) -> None:
    endpoint_id = await subscribe(store)
    await publish(store, 7)
    failing = (await claim_deliveries(store, 5)).parcels
    for parcel in failing[:4]:
        await fail(store, parcel)
    waiting, sending = {parcel.delivery.id for parcel in failing[:4]}, failing[4].delivery
    since, until = store.env.now(), after(store.env.now(), 1)
    recover = partial(upkeep.recover, store.writer, endpoint_id, since, until, step_max=2)
    before = await dump(store)
    assert await recover(dry_run=True) == 4
    assert await dump(store) == before
    assert await recover(dry_run=False) == 4
    assert await recover(dry_run=False) == await recover(dry_run=True) == 0
    queued = (
        await store.reads.list_deliveries(DeliveryFilter(status="pending", endpoint_id=endpoint_id), 10, None)
    ).items
    assert {delivery.id for delivery in queued if delivery.attempts} == waiting
    assert {(delivery.failures, delivery.due_at) for delivery in queued} == {(0, store.env.now())}
    assert await store.reads.get_delivery(sending.id) == sending
    assert len((await claim_deliveries(store)).parcels) == 6


async def test_what_waited_is_held_with_its_endpoint_and_recover_sends_as_many_as_enabling_says(store: Store) -> None:
    endpoint_id = await subscribe(store)
    await publish(store, 3)
    for parcel in (await claim_deliveries(store, 2)).parcels:
        await fail(store, parcel)
    since, until = store.env.now(), after(store.env.now(), 1)
    recover = partial(upkeep.recover, store.writer, endpoint_id, since, until, step_max=2)

    def disable(batch: Batch) -> Change:
        disabled = delivering.disable(batch.endpoint(endpoint_id), "by request", store.env)
        return Change(endpoints=(disabled,), holds=(endpoint_id,))

    await store.writer.change(Keys(endpoints=(endpoint_id,)), disable)
    assert (await store.reads.count_held())[endpoint_id].count == await recover(dry_run=True) == 3
    await store.writer.change(
        Keys(endpoints=(endpoint_id,)),
        lambda batch: Change(endpoints=(delivering.enable(batch.endpoint(endpoint_id)),)),
    )
    assert (await store.reads.count_held())[endpoint_id].count == await recover(dry_run=False) == 3


async def test_recover_keeps_to_the_filter(store: Store) -> None:
    await publish(store, 2)
    endpoint = make_endpoint(store.env, filter=EndpointFilter(providers=("acedata",)))
    await put(store, Change(endpoints=(endpoint,)))
    since, until = store.env.now(), after(store.env.now(), 1)
    assert await upkeep.recover(store.writer, endpoint.id, since, until, dry_run=True) == 0


async def test_retention_deletes_what_is_old_final_and_delivered(store: Store) -> None:
    await publish(store, 1)
    old = (await store.reads.list_tasks(TaskFilter(), 10, None)).items[0]
    await subscribe(store)
    await publish(store, 1)
    waiting = (await store.reads.list_tasks(TaskFilter(), 10, None)).items[0]
    open_task = make_task(store.env)
    await put(store, lifecycle.create(open_task, store.env))
    store.env.pass_time(31 * 86_400)
    assert await upkeep.delete_old(store.writer, store.env.now(), 30) == 1
    with pytest.raises(NotFound):
        await store.reads.get_task(old.id)
    assert {task.id for task in (await store.reads.list_tasks(TaskFilter(), 10, None)).items} == {
        waiting.id,
        open_task.id,
    }
    assert len(await store.reads.events_after(0, 10)) == 1
