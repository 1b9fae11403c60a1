"""Tasks of several accounts of a provider: listed together or alone, and placed where there is room."""

from msgspec.structs import replace

from service.core import lifecycle
from service.core.account import Account, Limits, choose
from service.core.change import Change, Pause
from service.core.times import after
from service.store.accounts import account_keys, read_rooms
from service.store.batch import Batch, Keys
from service.store.queries import TaskFilter
from tests.store.conftest import Store
from tests.support.factory import make_task

LIMITS = Limits(submits=10, window_s=1, max_in_flight=5)
ACCOUNTS = [
    Account(provider="fluxapi-ai", id=id, base_url="http://x", secrets={}, limits=LIMITS) for id in ("default", "batch")
]


async def put(store: Store, **changes: object) -> str:
    task = make_task(store.env, **changes)
    await store.writer.change(Keys(), lambda _: lifecycle.create(task, store.env))
    return task.id


async def rooms(store: Store) -> dict[str, int]:
    async def work(batch: Batch) -> dict[str, int]:
        return await read_rooms(batch.session, ACCOUNTS, store.env.now())

    return await store.writer.run(work)


async def test_a_provider_and_an_account_are_listed_over_each_other(store: Store) -> None:
    wanted = [
        ("fluxapi-ai", "default"),
        ("fluxapi-ai", "batch"),
        ("acedata", "batch"),
        ("acedata", "default"),
        ("fluxapi-ai", "batch"),
        ("fluxapi", "batch"),
    ]
    ids = [await put(store, provider=provider, account=account) for provider, account in wanted]

    async def listed(limit: int = 10, before: str | None = None, **by: str) -> list[str]:
        page = await store.reads.list_tasks(TaskFilter(**by), limit, before)
        return [task.id for task in page.items]

    def newest(*numbers: int) -> list[str]:
        return [ids[n] for n in sorted(numbers, reverse=True)]

    assert await listed(provider="fluxapi-ai") == newest(0, 1, 4)
    assert await listed(account="batch") == newest(1, 2, 4, 5)
    assert await listed(account="default") == newest(0, 3)
    assert await listed(provider="fluxapi-ai", account="batch") == newest(1, 4)
    assert await listed(provider="nobody") == await listed(account="nobody") == []
    assert await listed(2, account="batch") == newest(4, 5)
    assert await listed(2, ids[4], account="batch") == newest(1, 2)
    assert await listed(provider="fluxapi-ai", status="queued", model="flux-kontext-pro") == newest(0, 1, 4)
    found = await store.reads.search_tasks(TaskFilter(account="batch"), ["lighthouse"], 10, None)
    assert [task.id for task in found.items] == newest(1, 2, 4, 5)
    async with store.driver.reading() as session:
        found_keys = await account_keys(session)
    assert sorted(found_keys) == ["acedata", "acedata:batch", "fluxapi-ai", "fluxapi-ai:batch", "fluxapi:batch"]


async def test_room_is_what_can_be_sent_now_less_what_waits(store: Store) -> None:
    assert await rooms(store) == {"fluxapi-ai": 5, "fluxapi-ai:batch": 5}
    await put(store)
    await put(store, account="batch")
    running = make_task(store.env, account="batch", step="tracking", status="running")
    unsure = replace(running, id=store.env.new_id("task"), step="unconfirmed")
    await store.writer.change(Keys(), lambda _: Change(tasks=(running, unsure)))
    assert await rooms(store) == {"fluxapi-ai": 4, "fluxapi-ai:batch": 3}
    pause = Pause(account="fluxapi-ai", until=after(store.env.now(), 60))
    await store.writer.change(Keys(), lambda _: Change(pauses=(pause,)))
    found = await rooms(store)
    assert found["fluxapi-ai"] < -1_000 and found["fluxapi-ai:batch"] == 3


def test_of_accounts_with_the_same_room_each_has_its_turn() -> None:
    chosen, last = [], None
    for _ in range(5):
        last = choose({"b": 3, "a": 3, "c": 2, "d": 3}, last)
        chosen.append(last)
    assert chosen == ["a", "b", "d", "a", "b"]
