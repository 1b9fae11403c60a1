"""Due work is claimed once, within the limits of accounts and endpoints."""

from datetime import datetime

import msgspec

from service.core import delivering, lifecycle
from service.core.account import Limits
from service.core.change import Change, Pause
from service.core.schedule import Policy
from service.core.times import after
from service.store import claims, rows
from service.store.batch import Batch, Keys
from service.store.claims import DeliveryClaim, TaskClaim
from service.store.queries import TaskFilter
from tests.store.conftest import Store
from tests.support.factory import CALLS_BACK, make_endpoint, make_task

WIDE = Limits(submits=1000, window_s=1, max_in_flight=1000)


async def claim(
    store: Store, free: int = 100, limits: Limits = WIDE, policy: Policy = CALLS_BACK, account: str = "fluxapi-ai"
) -> TaskClaim:
    async def work(batch: Batch) -> TaskClaim:
        return await claims.claim_due_tasks(batch, account, policy, limits, free)

    return await store.writer.run(work)


async def claim_deliveries(store: Store, free: int = 100) -> DeliveryClaim:
    async def work(batch: Batch) -> DeliveryClaim:
        return await claims.claim_due_deliveries(batch, free, 40, 1000)

    return await store.writer.run(work)


async def put(store: Store, *changes: Change) -> None:
    for change in changes:
        await store.writer.change(Keys(), lambda batch, change=change: change)


async def create(store: Store, count: int, **changes: object) -> None:
    await put(store, *(lifecycle.create(make_task(store.env, **changes), store.env) for _ in range(count)))


async def test_a_due_task_is_taken_once_and_again_after_its_lease(store: Store) -> None:
    await create(store, 1)
    (task,) = (await claim(store)).tasks
    assert task.step == "sending"
    again = await claim(store)
    assert again.tasks == [] and again.next_due_at == task.due_at
    store.env.pass_time(CALLS_BACK.submit_lease_s)
    assert (await claim(store)).tasks == []
    assert (await store.reads.get_task(task.id)).step == "unconfirmed"


async def test_submits_keep_to_the_window_and_say_when_it_opens(store: Store) -> None:
    await create(store, 5)
    limits = Limits(submits=2, window_s=10, max_in_flight=100)
    first = await claim(store, limits=limits)
    assert len(first.tasks) == 2 and (await claim(store, limits=limits)).tasks == []
    assert first.next_due_at is not None and 10 <= (first.next_due_at - store.env.now()).total_seconds() <= 11.5
    store.env.pass_time(11.5)
    assert len((await claim(store, limits=limits)).tasks) == 2


async def test_submits_keep_to_the_number_in_flight(store: Store) -> None:
    await create(store, 5)
    limits = Limits(submits=100, window_s=1, max_in_flight=3)
    assert len((await claim(store, limits=limits)).tasks) == 3
    store.env.pass_time(2)
    assert (await claim(store, limits=limits)).tasks == []


async def test_a_paused_account_sends_nothing_but_still_ends_tasks(store: Store) -> None:
    await create(store, 1)
    await create(store, 1, deadline_at=after(store.env.now(), 10))
    until = after(store.env.now(), 30)
    await put(store, Change(pauses=(Pause(account="fluxapi-ai", until=until),)))
    resting = await claim(store)
    assert resting.tasks == [] and resting.next_due_at == after(store.env.now(), 10)
    store.env.pass_time(10)
    assert (await claim(store)).next_due_at == until
    assert (await store.reads.list_tasks(TaskFilter(status="failed"), 10, None)).items[0].via == "deadline"
    store.env.pass_time(20)
    assert len((await claim(store)).tasks) == 1


async def test_each_account_has_its_own_tasks_window_and_pause(store: Store) -> None:
    await create(store, 2)
    await create(store, 3, account="batch")
    limits = Limits(submits=2, window_s=10, max_in_flight=100)
    first = await claim(store, limits=limits, account="fluxapi-ai:batch")
    assert [task.account for task in first.tasks] == ["batch", "batch"]
    await put(store, Change(pauses=(Pause(account="fluxapi-ai:batch", until=after(store.env.now(), 600)),)))
    assert [task.account for task in (await claim(store, limits=limits)).tasks] == ["default", "default"]
    store.env.pass_time(60)
    assert (await claim(store, limits=limits, account="fluxapi-ai:batch")).tasks == []


async def test_what_an_earlier_version_stored_belongs_to_the_default_account(store: Store) -> None:
    """It knows one account a provider and writes the provider's id alone."""
    task = make_task(store.env)
    await create(store, 1)
    old = rows.task_to_row(task)
    old = (*old[:1], "fluxapi-ai", *old[2:])

    async def work(batch: Batch) -> None:
        await batch.session.execute_many(rows.UPSERT_TASK, [old])
        await batch.session.execute("insert into limits (name, paused_ms, used) values ('fluxapi-ai', 0, '{}')")

    await store.writer.run(work)
    found = await store.reads.get_task(task.id)
    assert (found.provider, found.account) == ("fluxapi-ai", "default")
    assert task.id in [one.id for one in (await claim(store)).tasks]


async def test_polls_come_before_submits(store: Store) -> None:
    await create(store, 3)
    await put(store, Change(tasks=(make_task(store.env, step="tracking", status="running", provider_task_id="p"),)))
    taken = await claim(store, free=2)
    assert [task.step for task in taken.tasks] == ["tracking", "sending"] and taken.next_due_at == store.env.now()


async def test_an_idle_look_says_when_the_next_is_due(store: Store) -> None:
    async def look() -> datetime | None:
        async with store.driver.reading() as session:
            return await claims.next_due_task(session, "fluxapi-ai")

    assert await look() is None
    await create(store, 1)
    assert await look() == store.env.now()


async def subscribe(store: Store, **changes: object) -> str:
    endpoint = make_endpoint(store.env, **changes)
    await put(store, Change(endpoints=(endpoint,)))
    return endpoint.id


async def publish(store: Store, count: int) -> None:
    await put(store, *(lifecycle.cancel(make_task(store.env), store.env) for _ in range(count)))


async def test_a_delivery_is_leased_with_all_it_needs(store: Store) -> None:
    endpoint_id = await subscribe(store)
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    assert parcel.endpoint is not None and parcel.endpoint.id == endpoint_id
    body = msgspec.json.decode(parcel.body)
    assert (body["id"], body["sequence"], body["type"]) == (parcel.delivery.event_id, 1, "task.canceled")
    assert (await claim_deliveries(store)).parcels == []
    store.env.pass_time(40)
    (again,) = (await claim_deliveries(store)).parcels
    assert again.delivery.lease == parcel.delivery.lease + 1


async def test_a_full_lane_leaves_room_for_the_others(store: Store) -> None:
    slow = await subscribe(store, max_in_flight=2)
    fast = await subscribe(store, max_in_flight=50)
    await publish(store, 20)
    lanes = [parcel.delivery.lane for parcel in (await claim_deliveries(store, 40)).parcels]
    assert (lanes.count(slow), lanes.count(fast)) == (2, 20)


async def test_a_lane_with_much_waiting_takes_no_more_than_its_share(store: Store) -> None:
    first = await subscribe(store, max_in_flight=100)
    await publish(store, 30)
    second = await subscribe(store, max_in_flight=100)
    await publish(store, 5)
    lanes = [parcel.delivery.lane for parcel in (await claim_deliveries(store, 10)).parcels]
    assert (lanes.count(first), lanes.count(second)) == (5, 5)


async def test_a_rate_is_kept_and_the_next_time_told(store: Store) -> None:
    await subscribe(store, rate_per_s=2)
    await publish(store, 5)
    taken = await claim_deliveries(store)
    assert len(taken.parcels) == 2 and taken.next_due_at is not None
    assert (await claim_deliveries(store)).parcels == []
    store.env.pass_time(1.2)
    assert len((await claim_deliveries(store)).parcels) == 2


async def test_an_attempt_that_failed_is_due_again_at_its_time(store: Store) -> None:
    await subscribe(store)
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    outcome = delivering.Outcome(at=store.env.now(), received=False, status_code=500, duration_ms=1, error="HTTP 500")

    def decide(batch: Batch) -> Change:
        delivery = batch.delivery(parcel.delivery.id)
        endpoint = batch.find_endpoint(delivery.endpoint_id)
        return delivering.after_attempt(delivery, endpoint, outcome, delivery.lease, store.env, (5,))

    keys = Keys(deliveries=(parcel.delivery.id,), endpoints=(parcel.delivery.lane,))
    await store.writer.change(keys, decide)
    waiting = await claim_deliveries(store)
    assert waiting.parcels == [] and waiting.next_due_at == after(store.env.now(), 5)
    store.env.pass_time(5)
    assert len((await claim_deliveries(store)).parcels) == 1
    assert (await store.reads.get_endpoint(parcel.delivery.lane)).failures == 1


async def test_many_slow_lanes_leave_room_for_one_more(store: Store) -> None:
    for _ in range(10):
        await subscribe(store, max_in_flight=100)
    await publish(store, 20)

    async def work(batch: Batch) -> DeliveryClaim:
        return await claims.claim_due_deliveries(batch, 50, 40, 50)

    slow = (await store.writer.run(work)).parcels
    assert len(slow) == 30 and len({parcel.delivery.lane for parcel in slow}) == 10
    fast = await subscribe(store)
    await publish(store, 1)

    async def next_free(batch: Batch) -> DeliveryClaim:
        return await claims.claim_due_deliveries(batch, 1, 40, 50)

    assert [parcel.delivery.lane for parcel in (await store.writer.run(next_free)).parcels] == [fast]
