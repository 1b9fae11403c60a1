"""Fair shares: no number of webhook_urls, and no origin, holds the places of deliveries."""

from collections import Counter

import pytest

from service.core import lifecycle
from service.core.times import after
from service.store import claims, lanes
from service.store.batch import Batch
from service.store.claims import DeliveryClaim
from service.store.lanes import UrlWalk, find_lanes
from service.store.overdue import find_overdue
from tests.store.conftest import Store
from tests.store.test_claims import publish, put, subscribe
from tests.support.factory import make_task

CAPACITY = 256
PLACES = CAPACITY // lanes.URL_PART


async def name_urls(store: Store, urls: list[str]) -> None:
    """A task that has ended for each of these webhook_urls."""
    ended = [lifecycle.cancel(make_task(store.env, webhook_url=url), store.env) for url in urls]
    await put(store, *ended)


async def claim(store: Store, free: int = CAPACITY, walk: UrlWalk | None = None) -> DeliveryClaim:
    async def work(batch: Batch) -> DeliveryClaim:
        return await claims.claim_due_deliveries(batch, free, 40, CAPACITY, walk)

    return await store.writer.run(work)


def places_of(claim: DeliveryClaim) -> Counter[str]:
    return Counter("url" if parcel.endpoint is None else "endpoint" for parcel in claim.parcels)


async def test_urls_of_any_number_leave_an_endpoint_its_places(store: Store) -> None:
    await name_urls(store, [f"https://dead-{number}.example/hook" for number in range(CAPACITY + 44)])
    assert places_of(await claim(store)) == {"url": PLACES}
    assert (await claim(store, CAPACITY - PLACES)).parcels == [], "no place is left for another webhook_url"
    await subscribe(store, max_in_flight=100)
    await publish(store, 20)
    assert places_of(await claim(store, CAPACITY - PLACES)) == {"endpoint": 20}


async def test_one_origin_holds_a_part_of_the_places_of_webhook_urls(store: Store) -> None:
    await name_urls(store, [f"https://dead.example/hooks/{number}" for number in range(PLACES)])
    assert len((await claim(store)).parcels) == PLACES // lanes.ORIGIN_PART
    await name_urls(store, [f"https://other-{number}.example/hook" for number in range(5)])
    taken = await claim(store)
    assert {parcel.delivery.lane.partition("-")[0] for parcel in taken.parcels} == {"url:https://other"}
    assert len(taken.parcels) == 5


async def test_urls_that_failed_before_leave_half_of_the_places_to_new_ones(store: Store) -> None:
    await name_urls(store, [f"https://dead-{number}.example/hook" for number in range(PLACES)])

    async def fail(batch: Batch) -> None:
        await batch.session.execute("update deliveries set failures = 1")

    await store.writer.run(fail)
    assert len((await claim(store)).parcels) == PLACES // 2
    await name_urls(store, [f"https://new-{number}.example/hook" for number in range(PLACES)])
    assert len((await claim(store)).parcels) == PLACES // 2


async def test_each_look_takes_in_a_bounded_number_of_urls_and_all_have_their_turn(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WALK_MAX", 10)
    await name_urls(store, [f"https://host-{number:02d}.example/hook" for number in range(25)])
    endpoint_id = await subscribe(store)
    await publish(store, 1)
    walk, seen = UrlWalk(), []
    for _ in range(3):
        taken = await claim(store, walk=walk)
        assert taken.next_due_at is not None
        assert (taken.next_due_at - store.env.now()).total_seconds() <= lanes.WALK_S
        seen.append([parcel.delivery.lane for parcel in taken.parcels])
    assert [len(one) for one in seen] == [11, 10, 5]
    assert endpoint_id in seen[0] and len({lane for one in seen for lane in one}) == 26


async def test_urls_that_wait_for_each_other_are_no_sign_of_a_dead_worker(store: Store) -> None:
    await name_urls(store, [f"https://dead-{number}.example/hook" for number in range(PLACES + 1)])
    store.env.pass_time(90)
    await claim(store)
    async with store.driver.reading() as session:
        assert len(await find_lanes(session)) == PLACES + 1
        assert await find_overdue(session, {}, after(store.env.now(), 30)) is None
        assert await find_overdue(session, {}, after(store.env.now(), 300)) is not None
