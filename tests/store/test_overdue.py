"""Late is what a living worker would have taken: not what waits for an account's or an endpoint's limits."""

from datetime import datetime

from service.core.account import Limits
from service.core.breaker import OPENS_AFTER, AccountCall
from service.core.change import Change, Pause
from service.core.times import after
from tests.store.conftest import Store
from tests.store.test_claims import WIDE, claim, claim_deliveries, create, publish, put, subscribe
from tests.support.factory import make_task

NARROW = Limits(submits=1, window_s=600, max_in_flight=1000)


async def overdue(store: Store, limits: Limits = WIDE) -> datetime | None:
    return await store.reads.find_overdue({"fluxapi-ai": limits}, store.env.now())


async def test_a_task_that_nobody_takes_is_late_after_a_minute(store: Store) -> None:
    await create(store, 1)
    created_at = store.env.now()
    store.env.pass_time(59)
    assert await overdue(store) is None
    store.env.pass_time(2)
    assert await overdue(store) == created_at
    assert await store.reads.find_overdue({"acedata": WIDE}, store.env.now()) is None, "that one is not configured"


async def test_what_waits_for_the_accounts_limits_is_not_late(store: Store) -> None:
    await create(store, 2)
    await claim(store, limits=NARROW)
    store.env.pass_time(80)
    assert await overdue(store, NARROW) is None


async def test_what_waits_for_an_account_that_rests_is_not_late(store: Store) -> None:
    await create(store, 1)
    tracking = make_task(store.env, step="tracking", status="running", provider_task_id="p")
    await put(store, Change(tasks=(tracking,)))
    await put(store, Change(pauses=(Pause(account="fluxapi-ai", until=after(store.env.now(), 300)),)))
    store.env.pass_time(100)
    assert await overdue(store) is None
    store.env.pass_time(201)
    assert await overdue(store) is not None
    failed = AccountCall(account="fluxapi-ai", kind="poll", answered=False)
    await put(store, *[Change(calls=(failed,))] * OPENS_AFTER)
    assert await overdue(store) is None


async def test_a_deadline_is_late_whatever_the_limits_are(store: Store) -> None:
    await create(store, 1, deadline_at=after(store.env.now(), 10))
    await put(store, Change(pauses=(Pause(account="fluxapi-ai", until=after(store.env.now(), 300)),)))
    store.env.pass_time(100)
    assert await overdue(store) is not None


async def test_a_delivery_that_nobody_takes_is_late_and_one_behind_a_slow_one_is_not(store: Store) -> None:
    await subscribe(store, max_in_flight=1)
    await publish(store, 2)
    store.env.pass_time(61)
    assert await overdue(store) is not None
    assert len((await claim_deliveries(store)).parcels) == 1
    assert await overdue(store) is None
