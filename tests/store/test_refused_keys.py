"""A refused key disables its account, also after a restart; tasks that were never sent go to another account."""

from service.core import lifecycle
from service.core.account import Account, Limits
from service.core.breaker import AccountCall
from service.core.change import Change
from service.core.refusal import RETRY_FIRST_S
from service.core.task import Task
from service.store import claims
from service.store.accounts import enable, enable_with_other_keys, read_refusals
from service.store.batch import Batch, Keys
from service.store.claims import TaskClaim
from tests.store.conftest import Store
from tests.support.factory import CALLS_BACK, make_task

LIMITS = Limits(submits=100, window_s=1, max_in_flight=2)


def account(id: str, key: str = "k") -> Account:
    return Account(provider="fluxapi-ai", id=id, base_url="http://x", secrets={"key": key}, limits=LIMITS)


DEFAULT, BATCH = account("default"), account("batch")


async def put(store: Store, **changes: object) -> Task:
    task = make_task(store.env, **changes)
    await store.writer.change(Keys(), lambda _: lifecycle.create(task, store.env))
    return task


async def call(store: Store, *, refused: str | None) -> None:
    made = AccountCall(
        account=DEFAULT.key,
        kind="submit",
        answered=True,
        accepted=refused is None,
        refused=refused,
        key=DEFAULT.fingerprint if refused else "",
    )
    await store.writer.change(Keys(), lambda _: Change(calls=(made,)))


async def claim(store: Store, others: tuple[Account, ...] = ()) -> TaskClaim:
    async def work(batch: Batch) -> TaskClaim:
        return await claims.claim_due_tasks(batch, DEFAULT.key, CALLS_BACK, LIMITS, 100, others)

    return await store.writer.run(work)


async def test_tasks_that_were_never_sent_move_while_the_other_account_has_room(store: Store) -> None:
    named = await put(store, account_named=True)
    sent_before = await put(store, submits=1)
    unsure = make_task(store.env, step="unconfirmed", due_at=None)
    await store.writer.change(Keys(), lambda _: Change(tasks=(unsure,)))
    waiting = [await put(store) for _ in range(3)]
    await call(store, refused="Invalid API key")
    assert (await claim(store, (BATCH,))).tasks == []
    found = {task.id: (await store.reads.get_task(task.id)).account for task in (named, sent_before, unsure, *waiting)}
    moved = [task_id for task_id, id in found.items() if id == "batch"]
    assert len(moved) == 2 and set(moved) <= {task.id for task in waiting}
    entries = await store.reads.list_entries(moved[0])
    assert entries[-1].type == "task.moved" and entries[-1].detail == {"account": "batch", "was": "default"}

    async def work(batch: Batch) -> TaskClaim:
        return await claims.claim_due_tasks(batch, BATCH.key, CALLS_BACK, LIMITS, 100)

    assert {task.id for task in (await store.writer.run(work)).tasks} == set(moved)


async def test_a_lone_account_tries_its_key_again_with_one_task_at_a_time(store: Store) -> None:
    for _ in range(3):
        await put(store)
    await call(store, refused="Invalid API key")
    resting = await claim(store)
    assert resting.tasks == [] and resting.next_due_at is not None
    store.env.pass_time(RETRY_FIRST_S)
    assert len((await claim(store)).tasks) == 1
    assert (await claim(store)).tasks == []
    await call(store, refused="Invalid API key")
    store.env.pass_time(RETRY_FIRST_S)
    assert (await claim(store)).tasks == [], "the wait has doubled"
    store.env.pass_time(RETRY_FIRST_S)
    assert len((await claim(store)).tasks) == 1
    await call(store, refused=None)
    async with store.driver.reading() as session:
        assert await read_refusals(session) == {}


async def test_a_task_that_waited_for_a_refused_key_fails_with_that_reason(store: Store) -> None:
    task = await put(store)
    await call(store, refused="Invalid API key")
    store.env.pass_time(3_600)
    await claim(store)
    error = (await store.reads.get_task(task.id)).error
    assert error is not None and error.code == "authentication"


async def test_it_stays_disabled_until_it_is_enabled_or_has_another_key(store: Store) -> None:
    await call(store, refused="Invalid API key")

    async def refused() -> dict[str, str]:
        async with store.driver.reading() as session:
            return {name: one.reason for name, one in (await read_refusals(session)).items()}

    async def start(key: str) -> None:
        await enable_with_other_keys(store.writer, await store.reads.refusals(), [account("default", key), BATCH])

    await start("k")
    assert await refused() == {"fluxapi-ai": "Invalid API key"}
    await start("another key")
    assert await refused() == {}
    await call(store, refused="Invalid API key")

    async def work(batch: Batch) -> None:
        await enable(batch, DEFAULT.key)

    await store.writer.run(work)
    assert await refused() == {}
