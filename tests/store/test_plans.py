"""Every statement that looks for work or fills a listing goes through an index to few rows, whatever else is stored."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
import pytest_asyncio

from bench.fill import CUSTOMERS, created_at_ms, fill, shape_of
from service.core.account import Limits
from service.core.breaker import Breaker
from service.core.change import Change
from service.core.ids import prefixed_uuid7
from service.core.times import after, from_ms, to_ms
from service.store import claims, faults, upkeep
from service.store.batch import Batch, Keys
from service.store.migrate import migrate
from service.store.queries import DeliveryFilter, TaskFilter
from tests.store.conftest import build_driver
from tests.support.factory import CALLS_BACK
from tests.support.plans import NOW, READ_LIMITS, Full
from tests.support.postgres import database, shared_server

TASKS = 4_000
WAITING = 200
SHAPE = shape_of(TASKS, 0.1, 0.1, NOW)
PAGE = 10
WIDE = Limits(submits=1_000, window_s=1, max_in_flight=100)
ENDPOINT = prefixed_uuid7("endpoint", 0, 3)
STATUSES = ("queued", "running", "succeeded", "failed", "canceled")
PROVIDERS = ("fluxapi-ai", "flux-context", "nobody")
"""Of most, of twenty old ones, of none."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A tenth of the tasks waits, as does a tenth of the deliveries: all of them newer than what is done."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            found = str(tmp_path_factory.mktemp("plans") / "taskhook.db")
        else:
            found = await stack.enter_async_context(database(shared_server()))
        driver = build_driver(found)
        await driver.open()
        await migrate(driver, 0)
        await fill(driver, SHAPE, statistics="stale")
        await driver.close()
        yield found


@pytest.fixture
async def full(address: str) -> AsyncIterator[Full]:
    """A filled store; changes of a test are rolled back."""
    driver = build_driver(address)
    await driver.open()
    yield Full(driver, SHAPE)
    await driver.close()


async def test_listings_of_tasks(full: Full) -> None:
    middle = full.id_of("task", TASKS // 2)
    at = from_ms(created_at_ms(full.shape, TASKS // 2))
    for wanted in (
        TaskFilter(),
        *(TaskFilter(status=status) for status in STATUSES),
        *(TaskFilter(provider=provider) for provider in PROVIDERS),
        TaskFilter(model="gpt-4o"),
        TaskFilter(provider="fluxapi-ai", model="flux-kontext-max"),
        TaskFilter(provider="flux-context", status="failed"),
        TaskFilter(provider="flux-context", status="succeeded"),
        TaskFilter(provider="fluxapi-ai", status="succeeded"),
        TaskFilter(provider_task_id=f"provider-{TASKS // 3:012x}"),
        TaskFilter(metadata={"order": str(TASKS // 3)}),
        TaskFilter(metadata={"customer": "3"}),
        TaskFilter(metadata={"customer": "3"}, status="succeeded"),
        TaskFilter(metadata={"customer": "3"}, status="queued"),
        TaskFilter(metadata={"customer": "nobody"}),
        TaskFilter(created_after=at, created_before=at + timedelta(days=1)),
        TaskFilter(created_after=at, created_before=at + timedelta(days=1), status="succeeded"),
        TaskFilter(created_after=at, created_before=at + timedelta(days=1), metadata={"customer": "3"}),
    ):
        await full.reads.list_tasks(wanted, PAGE, None)
        await full.reads.list_tasks(wanted, PAGE, middle)
    await full.reads.list_entries(middle)
    await full.reads.get_task(middle)
    await full.reads.ends.get(middle)
    await full.reads.find_idempotency_key(f"order-{TASKS // 2:012x}")
    await full.check()


async def test_a_filter_finds_the_same_tasks_however_it_is_led(full: Full) -> None:
    """By every pair of filters, what looking at all tasks gives."""
    everything = (await full.reads.list_tasks(TaskFilter(), TASKS, None)).items
    assert len(everything) == TASKS
    middle, at = everything[TASKS // 8].id, from_ms(created_at_ms(SHAPE, TASKS - 50))
    for status in (None, *STATUSES):
        for metadata in ({}, {"customer": "3"}, {"customer": "3", "order": "1003"}):
            for provider, model in (
                (None, None),
                ("fluxapi-ai", None),
                ("fluxapi-ai", "flux-kontext-max"),
                (None, "gpt-4o"),
            ):
                wanted = TaskFilter(status=status, metadata=metadata, provider=provider, model=model, created_before=at)
                found = await full.reads.list_tasks(wanted, PAGE, middle)
                matching = [
                    task.id
                    for task in everything
                    if task.id < middle
                    and status in (None, task.status)
                    and provider in (None, task.provider)
                    and model in (None, task.model)
                    and metadata.items() <= _labels(task.id).items()
                ]
                assert [task.id for task in found.items] == matching[:PAGE], wanted


def _labels(task_id: str) -> dict[str, str]:
    """As they were filled in."""
    number = int(task_id[-12:], 16)
    return {"order": str(number), "customer": str(number % CUSTOMERS)}


async def test_a_search_in_prompts_looks_at_so_many_tasks_and_no_more(full: Full) -> None:
    for wanted in (TaskFilter(), TaskFilter(status="succeeded"), TaskFilter(metadata={"customer": "7"})):
        found = await full.reads.search_tasks(wanted, ("LIGHTHOUSE", "dusk"), PAGE, None)
        assert len(found.items) == PAGE
    nothing = await full.reads.search_tasks(TaskFilter(), ("zeppelin",), PAGE, None)
    assert (nothing.items, nothing.looked) == ([], READ_LIMITS.searched)
    assert nothing.last == (await full.reads.list_tasks(TaskFilter(), 50, None)).last
    await full.check(2_500)


async def test_listings_of_deliveries(full: Full) -> None:
    middle, task_id = full.id_of("delivery", TASKS // 2), full.id_of("task", TASKS // 2)
    for before in (None, middle):
        for status in (None, "pending", "sending", "succeeded", "failed", "held", "parked"):
            for endpoint_id in (None, ENDPOINT):
                await full.reads.list_deliveries(DeliveryFilter(status=status, endpoint_id=endpoint_id), PAGE, before)
        await full.reads.list_deliveries(DeliveryFilter(task_id=task_id), PAGE, before)
        await full.reads.list_deliveries(
            DeliveryFilter(status="succeeded", endpoint_id=ENDPOINT, task_id=task_id), PAGE, before
        )
        event_id, at = full.id_of("event", TASKS // 2 + 3), from_ms(created_at_ms(full.shape, TASKS // 2))
        await full.reads.list_deliveries(DeliveryFilter(event_id=event_id), PAGE, before)
        await full.reads.list_deliveries(DeliveryFilter(created_before=at, endpoint_id=ENDPOINT), PAGE, before)
        for event_type in ("task.succeeded", "task.failed", "task.late_result"):
            await full.reads.list_deliveries(DeliveryFilter(event_type=event_type), PAGE, before)
    await full.reads.attempts_of([middle])
    await full.reads.get_delivery_of(full.id_of("event", TASKS // 2 + 3), ENDPOINT)
    await full.reads.count_held()
    await full.reads.recent_outcomes([ENDPOINT], PAGE)
    await full.check(WAITING * 3)


async def test_the_stream_of_events(full: Full) -> None:
    for seq in (0, TASKS // 2, TASKS):
        await full.reads.events_after(seq, PAGE)
        await full.reads.events_after(seq, PAGE, task_id=full.id_of("task", TASKS // 2))
        for types in (("task.succeeded",), ("task.late_result",), ("task.failed",), ("task.succeeded", "task.failed")):
            await full.reads.events_after(seq, PAGE, types=types)
    await full.reads.position_of(full.id_of("event", TASKS // 2))
    await full.reads.newest_event_id()
    await full.reads.last_position()
    await full.check()


async def test_claims_of_tasks(full: Full) -> None:
    """Claim due polls and submits, last polls of a paused account, a probe, and overdue tasks."""

    async def claim(batch: Batch) -> None:
        for provider in ("fluxapi-ai", "acedata"):
            await claims.next_due_task(batch.session, provider)
            found = await claims.claim_due_tasks(batch, provider, CALLS_BACK, WIDE, PAGE)
            assert len(found.tasks) == PAGE
        await claims.claim_due_tasks(batch, "fluxapi-ai", CALLS_BACK, Limits(submits=1, window_s=1, max_in_flight=1), 9)

    async def probe(batch: Batch) -> None:
        broken = Breaker(submits=5, polls=5, since=NOW, probe_at=NOW)
        await claims.save_breaker(batch.session, "acedata", broken)
        assert len((await claims.claim_due_tasks(batch, "acedata", CALLS_BACK, WIDE, PAGE)).tasks) == 1

    async def rest(batch: Batch) -> None:
        sql = "insert into limits (name, paused_ms, used) values ('acedata', ?, '{}')"
        await batch.session.execute(sql, (to_ms(after(NOW, 60)),))
        assert not (await claims.claim_due_tasks(batch, "acedata", CALLS_BACK, WIDE, PAGE)).tasks

    await full.work(claim)
    used = await full.check()
    assert any("tasks_to_submit" in line for line in used) and any("tasks_by_deadline" in line for line in used)
    for work in (probe, rest):
        await full.work(work)
        await full.check(WAITING + 1)


async def test_claims_of_deliveries(full: Full) -> None:
    async def work(batch: Batch) -> None:
        assert len((await claims.claim_due_deliveries(batch, PAGE, 40, 1_000)).parcels) == PAGE

    await full.work(work)
    await full.check()


async def test_what_is_loaded_to_be_changed(full: Full) -> None:
    async def work(batch: Batch) -> None:
        tasks, deliveries = ((full.id_of(kind, n) for n in range(5, 8)) for kind in ("task", "delivery"))
        await batch.load([Keys(tasks=tuple(tasks), deliveries=tuple(deliveries), idempotency=("order-x",))])
        batch.apply(Change(holds=(ENDPOINT,)))
        await batch.flush()

    await full.work(work)
    await full.check()


async def test_what_is_late_and_how_much_waits(full: Full) -> None:
    accounts = {"fluxapi-ai": WIDE, "acedata": WIDE}
    await full.reads.find_overdue(accounts, NOW)
    await full.reads.oldest_due_ms()
    await full.reads.account_loads(accounts, NOW)
    await full.reads.recent_charges(NOW - timedelta(days=20))
    await full.reads.count_waiting()
    since = NOW - timedelta(days=20)
    assert await full.reads.count_endings("fluxapi-ai", since, since + timedelta(hours=12))
    assert await full.reads.count_created(since, since + timedelta(hours=12))
    assert await full.reads.times_to_result("fluxapi-ai", since, PAGE)
    assert await full.reads.count_deliveries(since)
    await full.check()


async def test_figures_that_count_look_at_what_is_open_alone(full: Full) -> None:
    await full.reads.count_open()
    await full.reads.count_due(NOW)
    await full.check(3 * WAITING)


async def test_a_step_of_the_retention(full: Full) -> None:
    """Fifty old tasks are found among all, and what waits is not looked at."""

    async def work(batch: Batch) -> None:
        until_ms = created_at_ms(full.shape, 50) + 9_000
        assert len(await batch.session.fetch(upkeep.OLD_TASKS, (until_ms,))) == 50
        assert await batch.session.fetch(upkeep.OLD_EVENTS, (until_ms,)) == []
        await faults.forget(batch.session, batch.env)

    await full.work(work)
    await full.check()


async def test_what_goes_with_a_task_is_found_by_it(full: Full) -> None:
    """As a database looks for the rows that refer to one that is deleted."""
    references = {
        "labels": "task_id",
        "timeline": "task_id",
        "idempotency_keys": "task_id",
        "events": "task_id",
        "deliveries": "event_id",
        "attempts": "delivery_id",
    }

    async def work(batch: Batch) -> None:
        for table, column in references.items():
            kind = {"event_id": "event", "delivery_id": "delivery"}.get(column, "task")
            assert await batch.session.fetch(f"select 1 from {table} where {column} = ?", (full.id_of(kind, 100),))

    await full.work(work)
    await full.check()
