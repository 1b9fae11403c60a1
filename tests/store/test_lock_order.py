"""Replicas that do everything at once on the same rows: nobody deadlocks, so nobody waits for the server to notice."""

import asyncio
from collections.abc import Awaitable, Callable

from service.core import delivering
from service.core.change import Change
from service.core.keys import ApiKey
from service.store import faults
from service.store.batch import Batch, Keys
from service.store.keys import KeyStore
from tests.store.conftest import Store, open_store
from tests.store.test_claims import claim, claim_deliveries, create, publish, put
from tests.support.factory import make_endpoint

ROUNDS = 12


async def deadlocks(store: Store) -> int:
    async with store.driver.reading() as session:
        sql = "select deadlocks from pg_stat_database where datname = current_database()"
        await session.fetch("select pg_stat_clear_snapshot()")
        return int((await session.fetch(sql))[0][0])


async def test_keys_events_claims_holds_and_faults_at_once_do_not_deadlock(url: str) -> None:
    async with open_store(url, 1) as first, open_store(url, 2) as second:
        endpoint = make_endpoint(first.env, max_in_flight=100)
        await put(first, Change(endpoints=(endpoint,)))

        async def turn(store: Store) -> None:
            def decide(batch: Batch) -> Change:
                found = batch.endpoint(endpoint.id)
                off = delivering.disable(found, "by request", store.env)
                return Change(endpoints=(off if found.enabled else delivering.enable(found),), holds=(endpoint.id,))

            await store.writer.change(Keys(endpoints=(endpoint.id,)), decide)

        async def add_key(store: Store) -> None:
            key_id = store.env.new_id("key")
            key = ApiKey(
                id=key_id, name="n", scopes=("tasks:read",), hint=key_id, digest="d", created_at=store.env.now(),
                used_at=None, revoked_at=None,
            )  # fmt: skip
            await KeyStore(store.driver, store.writer).add(key)

        async def fail(store: Store) -> None:
            async def work(batch: Batch) -> None:
                await faults.note(batch, endpoint.id, ValueError("unreadable"))

            await store.writer.run(work)

        doings: list[Callable[[Store], Awaitable[object]]] = [
            lambda store: publish(store, 3),
            lambda store: create(store, 2),
            claim,
            claim_deliveries,
            turn,
            add_key,
            fail,
        ]

        async def repeat(do: Callable[[Store], Awaitable[object]], store: Store) -> None:
            for _ in range(ROUNDS):
                await do(store)

        await asyncio.gather(*(repeat(do, store) for do in doings for store in (first, second)))
        await asyncio.sleep(1.1)  # the server tells of them with a delay
        assert await deadlocks(first) == 0
        assert len(await first.reads.events_after(0, 1000)) >= 2 * 3 * ROUNDS
