"""Group commit: what was answered is durable, and one caller's failure is its own."""

import asyncio
from functools import partial

import pytest

from service.core import delivering, lifecycle
from service.core.change import Change, IdempotencyKey, Pause
from service.core.problems import Conflict, NotFound, Unavailable
from service.core.times import after, to_ms
from service.store.batch import Batch, Keys
from service.store.queries import DeliveryFilter
from tests.store.conftest import Store
from tests.support.factory import CALLS_BACK, make_endpoint, make_task, picture
from tests.support.wait import soon


async def put(store: Store, change: Change) -> Change:
    return await store.writer.change(Keys(), lambda batch: change)


async def test_a_task_its_event_and_its_deliveries_are_written_together(store: Store) -> None:
    endpoint = make_endpoint(store.env)
    task = make_task(store.env, webhook_url="http://example.com/own")
    await put(store, Change(endpoints=(endpoint,)))
    await put(store, lifecycle.create(task, store.env))
    decide = partial(lifecycle.advance, observation=picture(), via="callback", env=store.env, policy=CALLS_BACK)
    await store.writer.change_task(task.id, decide)
    assert (await store.reads.get_task(task.id)).status == "succeeded"
    (event,) = await store.reads.events_after(0, 10)
    deliveries = (await store.reads.list_deliveries(DeliveryFilter(task_id=task.id), 10, None)).items
    assert {delivery.endpoint_id for delivery in deliveries} == {endpoint.id, None}
    assert {delivery.event_id for delivery in deliveries} == {event.id}


async def test_fifty_decisions_on_one_task_see_each_other(store: Store) -> None:
    task = make_task(store.env, provider_task_id="p1", step="tracking", status="running")
    await put(store, Change(tasks=(task,)))
    decide = partial(
        lifecycle.advance,
        observation=picture(provider_task_id="p1"),
        via="callback",
        env=store.env,
        policy=CALLS_BACK,
    )
    changes = await asyncio.gather(*(store.writer.change_task(task.id, decide) for _ in range(50)))
    assert sorted(change.outcome for change in changes) == ["duplicate"] * 49 + ["moved"]
    assert len(await store.reads.events_after(0, 10)) == 1
    assert (await store.reads.get_task(task.id)).callbacks == 50


async def test_a_decision_that_refuses_fails_alone(store: Store) -> None:
    task = make_task(store.env)

    def refuse(batch: Batch) -> Change:
        raise Conflict("no")

    results = await asyncio.gather(
        store.writer.change(Keys(), refuse),
        put(store, lifecycle.create(task, store.env)),
        store.writer.change_task("task_missing", lambda found: Change(tasks=(found,))),
        return_exceptions=True,
    )
    assert isinstance(results[0], Conflict) and isinstance(results[2], NotFound)
    assert (await store.reads.get_task(task.id)).status == "queued"


async def test_a_bug_in_one_decision_loses_no_other(store: Store) -> None:
    tasks = [make_task(store.env) for _ in range(3)]

    def break_(batch: Batch) -> Change:
        raise ZeroDivisionError

    results = await asyncio.gather(
        put(store, lifecycle.create(tasks[0], store.env)),
        store.writer.change(Keys(), break_),
        *(put(store, lifecycle.create(task, store.env)) for task in tasks[1:]),
        return_exceptions=True,
    )
    assert isinstance(results[1], ZeroDivisionError)
    for task in tasks:
        assert (await store.reads.get_task(task.id)).id == task.id
    assert len(await store.reads.list_entries(tasks[0].id)) == 1


async def test_a_transaction_that_fails_leaves_no_half(store: Store) -> None:
    task = make_task(store.env)

    async def work(batch: Batch) -> None:
        batch.apply(lifecycle.create(task, store.env))
        await batch.flush()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.writer.run(work)
    with pytest.raises(NotFound):
        await store.reads.get_task(task.id)


async def test_one_idempotency_key_makes_one_task(store: Store) -> None:
    def decide(batch: Batch) -> Change:
        found = batch.idempotency_key("k")
        if found:
            return Change(outcome="replayed", idempotency=())
        task = make_task(store.env)
        key = IdempotencyKey(key="k", fingerprint="f", task_id=task.id, created_at=store.env.now())
        created = lifecycle.create(task, store.env)
        return Change(tasks=created.tasks, timeline=created.timeline, idempotency=(key,))

    keys = Keys(idempotency=("k",))
    changes = await asyncio.gather(*(store.writer.change(keys, decide) for _ in range(100)))
    assert sum(change.outcome == "moved" for change in changes) == 1


async def test_sequence_follows_the_order_of_commits(store: Store) -> None:
    tasks = [make_task(store.env) for _ in range(20)]
    await asyncio.gather(*(put(store, lifecycle.cancel(task, store.env)) for task in tasks))
    events = await store.reads.events_after(0, 100)
    assert [event.seq for event in events] == list(range(1, 21))
    assert await store.reads.last_position() == 20


async def test_running_is_stored_only_when_somebody_asks_for_it(store: Store) -> None:
    blocking = CALLS_BACK.__class__(callbacks=False, polling=False, blocking=True)
    await put(store, lifecycle.begin(make_task(store.env), store.env, blocking))
    assert await store.reads.last_position() == 0
    await put(store, Change(endpoints=(make_endpoint(store.env, events=("task.running",)),)))
    await put(store, lifecycle.begin(make_task(store.env), store.env, blocking))
    assert [event.type for event in await store.reads.events_after(0, 10)] == ["task.running"]


async def test_disabling_holds_what_waits_and_what_comes(store: Store) -> None:
    endpoint = make_endpoint(store.env)
    await put(store, Change(endpoints=(endpoint,)))
    await put(store, lifecycle.cancel(make_task(store.env), store.env))
    disabled = delivering.disable(endpoint, "by request", store.env)
    await store.writer.change(
        Keys(endpoints=(endpoint.id,)), lambda batch: Change(endpoints=(disabled,), holds=(endpoint.id,))
    )
    await put(store, lifecycle.cancel(make_task(store.env), store.env))
    assert (await store.reads.count_held())[endpoint.id].count == 2


async def test_a_pause_of_an_account_is_never_shortened(store: Store) -> None:
    now = store.env.now()
    await put(store, Change(pauses=(Pause(account="acedata", until=after(now, 30)),)))
    await put(store, Change(pauses=(Pause(account="acedata", until=after(now, 3)),)))
    assert (await store.reads.accounts())["acedata"][0] == to_ms(after(now, 30))


async def test_waiters_are_woken_after_the_commit(store: Store) -> None:
    task = make_task(store.env)
    with store.bus.subscribed(task.id) as bell:
        await put(store, lifecycle.cancel(task, store.env))
        await soon(bell.wait(None))


async def test_who_asks_while_it_stops_is_refused_at_once_and_what_waited_is_written(store: Store) -> None:
    task = make_task(store.env)
    waiting = asyncio.create_task(put(store, lifecycle.create(task, store.env)))
    await asyncio.sleep(0)
    stopping = asyncio.create_task(store.writer.stop())
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await soon(put(store, lifecycle.create(make_task(store.env), store.env)))
    await asyncio.gather(waiting, stopping)
    assert (await store.reads.get_task(task.id)).id == task.id
