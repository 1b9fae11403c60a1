"""Pages that end early because their rows are large: none is lost, none comes twice."""

from msgspec.structs import replace

from service.core import lifecycle
from service.core.change import Change
from service.core.delivery import Attempt
from service.core.task import TaskInput
from service.store import reads
from service.store.queries import PAGE_BYTES, DeliveryFilter, TaskFilter
from tests.store.conftest import Store
from tests.store.test_claims import claim_deliveries, publish, put, subscribe
from tests.support.factory import make_task

LARGE = PAGE_BYTES // 5


async def create(store: Store, sizes: list[int]) -> list[str]:
    """Tasks that have ended, with options of so many bytes; their ids, the newest first."""
    tasks = [
        make_task(store.env, input=TaskInput(prompt="a lighthouse", options={"padding": "x" * size})) for size in sizes
    ]
    for task in tasks:
        await put(store, lifecycle.cancel(task, store.env))
    return [task.id for task in reversed(tasks)]


SIZES = [1, LARGE, LARGE, 2 * PAGE_BYTES, 1, 1, LARGE, LARGE, LARGE, LARGE, LARGE, 2 * PAGE_BYTES]


async def test_pages_of_tasks_end_where_they_grow_large(store: Store) -> None:
    ids = await create(store, SIZES)
    pages, before = [], None
    while not pages or before is not None:
        page = await store.reads.list_tasks(TaskFilter(status="canceled"), 10, before)
        pages.append([task.id for task in page.items])
        before = page.last
    assert [task_id for page in pages for task_id in page] == ids
    assert [len(page) for page in pages] == [1, 4, 3, 1, 3]


async def test_a_page_of_small_rows_is_as_long_as_asked(store: Store) -> None:
    ids = await create(store, [1] * 7)
    first = await store.reads.list_tasks(TaskFilter(), 5, None)
    rest = await store.reads.list_tasks(TaskFilter(), 5, first.last)
    assert ([task.id for task in first.items], first.last) == (ids[:5], ids[4])
    assert ([task.id for task in rest.items], rest.last) == (ids[5:], None)


async def test_a_search_among_large_tasks_goes_on_where_it_ended(store: Store) -> None:
    ids = await create(store, SIZES)
    found, before = [], None
    for _ in range(len(SIZES)):
        search = await store.reads.search_tasks(TaskFilter(), ["lighthouse"], 10, before)
        found += [task.id for task in search.items]
        before = search.last
        if before is None:
            break
    assert found == ids


async def test_pages_of_events_end_where_they_grow_large(store: Store) -> None:
    await create(store, SIZES)
    seen, pages = 0, []
    while True:
        page = await store.reads.events_after(seen, 10)
        pages.append([event.seq for event in page])
        seen = page[-1].seq
        if not page.has_more:
            break
    assert [seq for page in pages for seq in page] == list(range(1, len(SIZES) + 1))
    assert max(map(len, pages)) <= 6


async def test_a_page_of_deliveries_ends_where_its_attempts_may_be_large_and_shows_the_newest(store: Store) -> None:
    endpoint_id = await subscribe(store)
    await publish(store, 3)
    for parcel in (await claim_deliveries(store)).parcels:
        delivery, at = parcel.delivery, store.env.now()
        many = tuple(
            Attempt(
                delivery_id=delivery.id,
                number=number,
                at=at,
                status_code=500,
                duration_ms=1,
                error="status 500",
                location=None,
                excerpt="",
            )
            for number in range(1, reads.ATTEMPTS_MAX + 11)
        )
        await put(store, Change(deliveries=(replace(delivery, attempts=len(many)),), attempts=many))
    first = await store.reads.list_deliveries(DeliveryFilter(endpoint_id=endpoint_id), 10, None)
    rest = await store.reads.list_deliveries(DeliveryFilter(endpoint_id=endpoint_id), 10, first.last)
    assert len(first.items) == len(rest.items) == 1 and rest.last is not None
    (attempts,) = (await store.reads.attempts_of([first.items[0].id])).values()
    assert [attempts[0].number, attempts[-1].number] == [11, reads.ATTEMPTS_MAX + 10]
