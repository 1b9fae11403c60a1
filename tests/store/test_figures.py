"""Figures of the dashboard are exact, bounded, and use an index on both databases."""

from datetime import date

from service.core import delivering
from service.core.account import Limits
from service.core.change import Change
from service.core.delivering import Outcome
from service.core.task import Cost, Output, Result
from service.core.times import after
from service.store.batch import Keys
from service.store.reads import ReadLimits, Reads
from service.store.writer import Batch
from tests.store.conftest import Store
from tests.store.test_claims import WIDE, claim, claim_deliveries, create, publish, put, subscribe
from tests.support.factory import make_task


async def test_an_endpoints_deliveries_come_with_their_last_attempt(store: Store) -> None:
    endpoint_id = await subscribe(store)
    await publish(store, 2)
    (parcel, _) = (await claim_deliveries(store)).parcels
    refused = Outcome(at=store.env.now(), received=False, status_code=500, duration_ms=12, error="it answered 500")

    def decide(batch: Batch) -> Change:
        delivery = batch.delivery(parcel.delivery.id)
        return delivering.after_attempt(delivery, None, refused, delivery.lease, store.env, (5,))

    await store.writer.change(Keys(deliveries=(parcel.delivery.id,)), decide)
    found = await store.reads.recent_outcomes([endpoint_id, "ep_other"], 10)
    assert found["ep_other"] == []
    by_id = {one.delivery_id: one for one in found[endpoint_id]}
    assert len(by_id) == 2 and list(by_id) == sorted(by_id, reverse=True)
    tried = by_id[parcel.delivery.id]
    assert (tried.status, tried.attempts, tried.status_code, tried.duration_ms) == ("pending", 1, 500, 12)
    assert tried.error == "it answered 500" and tried.at == refused.at
    (other,) = [one for one in found[endpoint_id] if one is not tried]
    assert other.at is None and other.status_code is None
    assert len((await store.reads.recent_outcomes([endpoint_id], 1))[endpoint_id]) == 1


async def test_an_accounts_load_counts_its_window_its_flight_and_what_waits(store: Store) -> None:
    limits = Limits(submits=2, window_s=60, max_in_flight=10)
    await create(store, 5)
    assert len((await claim(store, limits=limits)).tasks) == 2
    loads = await store.reads.account_loads({"fluxapi-ai": limits, "acedata": WIDE}, store.env.now())
    load = loads["fluxapi-ai"]
    assert (load.used, load.in_flight, load.waiting, load.late_since) == (2, 2, 3, None)
    assert load.breaker.since is None
    assert (loads["acedata"].used, loads["acedata"].in_flight, loads["acedata"].waiting) == (0, 0, 0)


async def test_work_that_nobody_takes_shows_as_late(store: Store) -> None:
    await create(store, 1)
    created_at = store.env.now()
    store.env.pass_time(100)
    loads = await store.reads.account_loads({"fluxapi-ai": WIDE}, store.env.now())
    assert loads["fluxapi-ai"].late_since == created_at


async def finish(store: Store, provider: str, cost: float | None, **changes: object) -> str:
    result = Result(outputs=(Output(url="https://cdn.example/x.png"),), cost=cost and Cost(amount=cost))
    done = {"status": "succeeded", "step": "done", "finished_at": store.env.now(), "result": result}
    task = make_task(store.env, provider=provider, **{**done, **changes})
    await put(store, Change(tasks=(task,)))
    return task.id


async def test_charges_are_added_up_by_provider_and_day(store: Store) -> None:
    since = store.env.now()
    await finish(store, "flux-context", 10)
    await finish(store, "flux-context", 2.5)
    await finish(store, "acedata", None)
    await finish(store, "acedata", 99, status="failed", result=None)
    broken = await finish(store, "flux-context", 1_000)
    await store.writer.run(lambda batch: batch.session.execute("update tasks set doc = '{' where id = ?", (broken,)))
    store.env.pass_time(86_400)
    await finish(store, "flux-context", 4)
    charges = await store.reads.recent_charges(since)
    assert charges.credits == {"flux-context": {date(2026, 1, 1): 12.5, date(2026, 1, 2): 4.0}}
    assert charges.tasks == {"flux-context": 3}
    assert charges.complete_since == since
    assert (await store.reads.recent_charges(after(since, 1))).tasks == {"flux-context": 1}


async def test_more_charges_than_are_looked_at_say_from_when_they_are_complete(
    store: Store,
) -> None:
    since = store.env.now()
    for _ in range(3):
        store.env.pass_time(10)
        await finish(store, "flux-context", 1)
    charges = await Reads(store.driver, ReadLimits(charges=2)).recent_charges(since)
    assert charges.tasks == {"flux-context": 2} and charges.complete_since == after(since, 20)
