"""Rows that make work fail are put aside one by one; all the others go on, also on the same claim."""

import pytest

from service.core import lifecycle
from service.core.env import Env
from service.core.fault import PARK_AFTER
from service.core.problems import Conflict, NotFound
from service.core.schedule import Policy
from service.core.task import Task
from service.core.unanswered import Hindrance
from service.store import faults, upkeep
from service.store.batch import Batch
from service.store.queries import TaskFilter
from tests.store.conftest import Store
from tests.store.test_claims import claim, claim_deliveries, create, publish, put, subscribe
from tests.support.factory import make_task


async def spoil(store: Store, table: str, subject_id: str, column: str = "doc", value: str = "{") -> None:
    async def work(batch: Batch) -> int:
        return await batch.session.execute(f"update {table} set {column} = ? where id = ?", (value, subject_id))

    await store.writer.run(work)


async def retry(store: Store, subject_id: str) -> None:
    async def work(batch: Batch) -> None:
        await faults.retry(batch, subject_id)

    await store.writer.run(work)


async def ids(store: Store) -> list[str]:
    return [task.id for task in (await store.reads.list_tasks(TaskFilter(), 10, None)).items]


async def test_a_task_that_cannot_be_read_stops_no_other_and_is_parked(store: Store) -> None:
    await create(store, 3)
    broken, *good = await ids(store)
    good_doc = (await raw(store, broken))[1]
    await spoil(store, "tasks", broken)
    assert {task.id for task in (await claim(store)).tasks} == set(good)
    for _ in range(PARK_AFTER):
        store.env.pass_time(10)
        assert broken not in {task.id for task in (await claim(store)).tasks}
    (fault,) = await store.reads.list_faults()
    assert (fault.id, fault.failures) == (broken, PARK_AFTER) and fault.parked_at is not None
    assert (await raw(store, broken))[0] == "parked" and await store.reads.count_parked() == 1
    assert await ids(store) == good
    store.env.pass_time(1000)
    nexts = [(await claim(store)).next_due_at for _ in range(3)]
    assert nexts[-1] is None, "a parked row is due no more"
    await spoil(store, "tasks", broken, value=good_doc)
    await retry(store, broken)
    assert (await claim(store)).tasks == [] and (await store.reads.get_task(broken)).via == "deadline"
    assert await store.reads.list_faults() == []


async def raw(store: Store, task_id: str) -> tuple[str, str]:
    async with store.driver.reading() as session:
        ((step, doc),) = await session.fetch("select step, doc from tasks where id = ?", (task_id,))
    return step, doc


async def test_a_decision_that_raises_stops_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(store, 2)
    broken, good = await ids(store)
    begin = lifecycle.begin

    def failing(task: Task, env: Env, policy: Policy, hindrance: Hindrance) -> object:
        if task.id == broken:
            raise ZeroDivisionError
        return begin(task, env, policy, hindrance)

    monkeypatch.setattr(lifecycle, "begin", failing)
    taken = await claim(store)
    assert [task.id for task in taken.tasks] == [good]
    (fault,) = await store.reads.list_faults()
    assert (fault.id, fault.reason, fault.parked_at) == (broken, "ZeroDivisionError", None)
    monkeypatch.undo()
    store.env.pass_time(1)
    assert [task.id for task in (await claim(store)).tasks] == [broken]


async def test_a_delivery_that_cannot_be_sent_is_parked_and_taken_up_again(store: Store) -> None:
    await subscribe(store)
    await publish(store, 2)
    first, second = (await claim_deliveries(store)).parcels

    async def fail(batch: Batch) -> None:
        await faults.note(batch, first.delivery.id, ValueError())

    for _ in range(PARK_AFTER):
        await store.writer.run(fail)
    assert (await store.reads.get_delivery(first.delivery.id)).status == "parked"
    store.env.pass_time(60)
    assert [parcel.delivery.id for parcel in (await claim_deliveries(store)).parcels] == [second.delivery.id]
    await retry(store, first.delivery.id)
    assert [parcel.delivery.id for parcel in (await claim_deliveries(store)).parcels] == [first.delivery.id]


async def test_a_failure_of_work_that_was_under_way_leaves_what_is_parked_to_be_taken_up(store: Store) -> None:
    await create(store, 1)
    ((task,), _) = (await claim(store)).tasks, await subscribe(store)
    await publish(store, 1)
    (parcel,) = (await claim_deliveries(store)).parcels
    for subject_id in (task.id, parcel.delivery.id):

        async def fail(batch: Batch, subject_id: str = subject_id) -> None:
            await faults.note(batch, subject_id, ValueError())

        for _ in range(PARK_AFTER + 1):
            await store.writer.run(fail)
        await retry(store, subject_id)
    assert (await store.reads.get_task(task.id)).step == task.step
    assert (await store.reads.get_delivery(parcel.delivery.id)).status == "pending"


async def test_an_endpoint_that_cannot_be_read_stops_neither_events_nor_other_endpoints(store: Store) -> None:
    broken = await subscribe(store)
    await publish(store, 1)
    good = await subscribe(store)
    doc = await doc_of(store, broken)
    await spoil(store, "endpoints", broken)
    await publish(store, 1)
    parcels = (await claim_deliveries(store)).parcels
    assert [parcel.delivery.lane for parcel in parcels] == [good]
    (fault,) = await store.reads.list_faults()
    assert (fault.id, fault.kind) == (broken, "endpoint") and fault.parked_at is not None
    assert [endpoint.id for endpoint in await store.reads.list_endpoints()] == [good]
    assert (await store.reads.count_held())[broken].count == 1
    await spoil(store, "endpoints", broken, value=doc)
    await retry(store, broken)
    await publish(store, 1)
    assert {parcel.delivery.lane for parcel in (await claim_deliveries(store)).parcels} == {good, broken}
    now = store.env.now()
    found = await upkeep.recover(store.writer, broken, now.replace(year=2020), now.replace(year=2030), dry_run=False)
    assert found == 2, "what it had waiting, and what it missed"


async def doc_of(store: Store, endpoint_id: str) -> str:
    async with store.driver.reading() as session:
        return str((await session.fetch("select doc from endpoints where id = ?", (endpoint_id,)))[0][0])


async def test_only_what_is_parked_can_be_retried(store: Store) -> None:
    await create(store, 1)
    (task_id,) = await ids(store)
    with pytest.raises(NotFound):
        await retry(store, task_id)

    async def fail(batch: Batch) -> None:
        await faults.note(batch, task_id, ValueError())

    await store.writer.run(fail)
    with pytest.raises(Conflict):
        await retry(store, task_id)


async def test_a_parked_task_can_still_be_ended_by_its_callback_and_is_forgotten_then(store: Store) -> None:
    task = make_task(store.env, step="tracking", status="running", provider_task_id="p")
    await put(store, lifecycle.create(task, store.env))

    async def fail(batch: Batch) -> None:
        await faults.note(batch, task.id, ValueError())

    for _ in range(PARK_AFTER):
        await store.writer.run(fail)
    await store.writer.change_task(task.id, lambda found: lifecycle.cancel(found, store.env))
    assert (await store.reads.get_task(task.id)).status == "canceled"
    await upkeep.delete_old(store.writer, store.env.now(), 30)
    assert await store.reads.list_faults() == []
