"""Simultaneous writes share a transaction, and so do reads of many clients."""

import asyncio
from functools import partial
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from service.core import delivering, lifecycle
from service.core.account import Limits
from service.core.change import Change
from service.core.problems import Conflict
from service.core.task import TaskInput
from service.core.times import after
from service.store import upkeep
from service.store.batch import Batch, Keys
from service.store.queries import DeliveryFilter
from service.web import creating
from tests.store.conftest import Store
from tests.store.test_claims import claim, claim_deliveries, create, publish, put, subscribe
from tests.store.test_upkeep import dump
from tests.support.factory import CALLS_BACK, make_endpoint, make_task, picture


def failed(store: Store, status: int = 500) -> delivering.Outcome:
    return delivering.Outcome(at=store.env.now(), received=False, status_code=status, duration_ms=1, error="no")


async def test_a_task_erased_in_the_moment_it_ends_leaves_no_word_in_its_event(store: Store) -> None:
    await subscribe(store)
    task = make_task(store.env, provider_task_id="p", step="tracking", input=TaskInput(prompt="unmistakable"))
    await put(store, lifecycle.create(task, store.env))
    end = partial(lifecycle.advance, observation=picture(), via="poll", env=store.env, policy=CALLS_BACK)
    await asyncio.gather(store.writer.change_task(task.id, end), upkeep.erase_task(store.writer, task.id))
    assert len(await store.reads.events_after(0, 10)) == 1
    assert "unmistakable" not in await dump(store)


async def test_a_retry_by_hand_that_a_disabling_overtakes_can_be_asked_for_again(store: Store) -> None:
    endpoint = make_endpoint(store.env)
    await put(store, Change(endpoints=(endpoint,)))
    await publish(store, 1)
    (delivery,) = (await store.reads.list_deliveries(DeliveryFilter(endpoint_id=endpoint.id), 10, None)).items
    keys = Keys(deliveries=(delivery.id,), endpoints=(endpoint.id,))

    async def retry() -> Change:
        return await store.writer.change(keys, lambda batch: delivering.retry(batch.delivery(delivery.id), store.env))

    assert (await retry()).outcome == "moved"
    disabled = delivering.disable(endpoint, "by request", store.env)
    await store.writer.change(keys, lambda batch: Change(endpoints=(disabled,), holds=(endpoint.id,)))
    held = await store.reads.get_delivery(delivery.id)
    assert (held.status, held.resume) == ("held", None)
    assert (await retry()).outcome == "moved"
    assert len((await claim_deliveries(store)).parcels) == 1


async def test_what_was_received_is_not_held_because_it_was_to_be_sent_again_by_hand(store: Store) -> None:
    endpoint = make_endpoint(store.env)
    await put(store, Change(endpoints=(endpoint,)))
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    done = replace(parcel.delivery, status="succeeded", due_at=None)
    await put(store, Change(deliveries=(done,)))
    await put(store, delivering.retry(done, store.env))
    disabled = delivering.disable(endpoint, "by request", store.env)
    await store.writer.change(
        Keys(endpoints=(endpoint.id,)), lambda batch: Change(endpoints=(disabled,), holds=(endpoint.id,))
    )
    assert (await store.reads.get_delivery(done.id)).status == "succeeded"


@pytest.mark.parametrize(("how", "status"), [("disabled", "held"), ("deleted", "failed")])
async def test_an_attempt_that_died_is_not_made_again_for_an_endpoint_that_was_turned_off(
    store: Store, how: str, status: str
) -> None:
    endpoint = make_endpoint(store.env)
    await put(store, Change(endpoints=(endpoint,)))
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    off = delivering.disable(endpoint, "no", store.env) if how == "disabled" else delivering.remove(endpoint, store.env)
    await store.writer.change(
        Keys(endpoints=(endpoint.id,)), lambda batch: Change(endpoints=(off,), holds=(endpoint.id,))
    )
    store.env.pass_time(40)
    assert (await claim_deliveries(store)).parcels == []
    assert (await store.reads.get_delivery(parcel.delivery.id)).status == status


async def test_recover_sends_an_endpoint_no_event_about_itself(store: Store) -> None:
    endpoint = make_endpoint(store.env, events=("endpoint.*",))
    await put(store, Change(endpoints=(endpoint,)))
    other = make_endpoint(store.env, events=("task.*",))
    await put(store, Change(endpoints=(other,)))
    for about in (endpoint, other):
        disabled = delivering.disable(about, "it answered 410 Gone", store.env)
        event = delivering._about(disabled, "endpoint.disabled", None, store.env)
        await put(store, Change(events=(event,)))
    (sent,) = (await store.reads.list_deliveries(DeliveryFilter(endpoint_id=endpoint.id), 10, None)).items
    since, until = store.env.now(), after(store.env.now(), 1)
    assert await upkeep.recover(store.writer, endpoint.id, since, until, dry_run=True) == 0, sent


async def test_recover_stops_when_the_endpoint_is_disabled_meanwhile(store: Store) -> None:
    endpoint_id = await subscribe(store, enabled=False)
    await publish(store, 3)
    since, until = store.env.now(), after(store.env.now(), 1)
    with pytest.raises(Conflict):
        await upkeep.recover(store.writer, endpoint_id, since, until, dry_run=False)
    assert (await store.reads.count_held())[endpoint_id].count == 3


async def test_a_recovery_that_was_cut_off_goes_on_without_sending_anything_twice(
    store: Store,
) -> None:
    endpoint = make_endpoint(store.env, enabled=False)
    await put(store, Change(endpoints=(endpoint,)))
    await publish(store, 10)
    await put(store, Change(endpoints=(delivering.enable(endpoint),)))
    since, until = store.env.now(), after(store.env.now(), 1)
    recover = partial(upkeep.recover, store.writer, endpoint.id, since, until, step_max=4)
    cut_off = upkeep._RecoverStep(endpoint.id, 0, 0, 2**53, 4, dry_run=False)
    assert await store.writer.run(cut_off.work) == 4
    found = await asyncio.gather(recover(dry_run=False), recover(dry_run=False))
    assert sum(found) == 6
    parcels = (await claim_deliveries(store)).parcels
    assert len({parcel.delivery.event_id for parcel in parcels}) == len(parcels) == 10


async def test_a_hundred_equal_requests_with_one_key_are_one_task(store: Store) -> None:
    """Beside a hundred with another body, which are refused."""
    web = SimpleNamespace(env=store.env, store=store)
    requests = [(make_task(store.env), fingerprint) for fingerprint in ("one", "other") * 100]
    found = await asyncio.gather(
        *(creating.create(web, task, {}, "key", fingerprint) for task, fingerprint in requests), return_exceptions=True
    )
    answers = [answer for answer in found if not isinstance(answer, BaseException)]
    assert len(answers) == 100 and sum(is_new for _, is_new in answers) == 1
    assert len({task.id for task, _ in answers}) == 1
    assert all(isinstance(answer, Conflict) for answer in found if isinstance(answer, BaseException))
    assert len(await store.reads.list_entries(answers[0][0].id)) == 1


async def test_tasks_that_are_late_and_have_room_end_once(store: Store) -> None:
    await create(store, 3, deadline_at=after(store.env.now(), 10))
    store.env.pass_time(11)
    assert (await claim(store, limits=Limits(submits=5, window_s=10, max_in_flight=10))).tasks == []
    assert [event.type for event in await store.reads.events_after(0, 10)] == ["task.failed"] * 3


async def test_an_answer_with_an_absurd_retry_after_is_written_down(store: Store) -> None:
    await subscribe(store)
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    outcome = replace(failed(store, 503), retry_after="Mon, 01 Jan 99999999999999999999 00:00:00 GMT")

    def decide(batch: Batch) -> Change:
        delivery = batch.delivery(parcel.delivery.id)
        return delivering.after_attempt(delivery, None, outcome, delivery.lease, store.env, (5,))

    await store.writer.change(Keys(deliveries=(parcel.delivery.id,)), decide)
    assert (await store.reads.get_delivery(parcel.delivery.id)).due_at == after(store.env.now(), 5)


@pytest.mark.parametrize("rate_per_s", [0.001, 0.5, 3.7, 10_000])
async def test_every_rate_that_may_be_asked_for_has_a_next_time(store: Store, rate_per_s: float) -> None:
    await subscribe(store, rate_per_s=rate_per_s, max_in_flight=1_000)
    await publish(store, 6)
    sent = 0
    for _ in range(6):
        claim = await claim_deliveries(store)
        sent += len(claim.parcels)
        assert len(claim.parcels) <= max(1, rate_per_s)
        if sent < 6:
            assert claim.next_due_at is not None
            store.env.pass_time(max(0.001, (claim.next_due_at - store.env.now()).total_seconds()))
        for parcel in claim.parcels:
            await put(store, Change(deliveries=(replace(parcel.delivery, status="succeeded", due_at=None),)))
    assert sent == 6
