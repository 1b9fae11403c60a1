"""PostgreSQL only: other processes, broken connections, restarts, notifications, poolers."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
from msgspec.structs import replace

from service.core import delivering, lifecycle
from service.core.account import Limits
from service.core.change import Change, IdempotencyKey
from service.core.delivery import Delivery
from service.core.problems import NotFound, Unavailable
from service.core.task import Task
from service.core.times import after
from service.environment import SettingsError
from service.settings import load
from service.store import claims, postgres, upkeep
from service.store.batch import Batch, Keys
from service.store.bus import EVENTS
from service.store.claims import Parcel
from service.store.lanes import find_lanes
from service.store.migrate import migrate
from service.store.postgres import READERS, PostgresDriver, PostgresTimes
from service.store.postgres_session import numbered
from service.store.queries import TaskFilter
from service.store.reads import ReadLimits, Reads
from tests.store.conftest import Store, open_store
from tests.store.test_claims import claim, claim_deliveries, create, publish, put, subscribe
from tests.support.factory import CALLS_BACK, make_delivery, make_endpoint, make_task, picture
from tests.support.pooler import find_pooler, pooler
from tests.support.postgres import command, database, shared_server
from tests.support.proxy import Proxy as Cable
from tests.support.wait import soon, until


@asynccontextmanager
async def two(url: str) -> AsyncIterator[tuple[Store, Store]]:
    async with open_store(url, 1) as first, open_store(url, 2) as second:
        yield first, second


async def tasks_of(store: Store) -> set[str]:
    async with store.driver.reading() as session:
        return {row[0] for row in await session.fetch("select id from tasks")}


async def outcomes(calls: Iterable[Awaitable[object]]) -> list[object]:
    return await asyncio.gather(*calls, return_exceptions=True)


# --- two processes ----------------------------------------------------------------------------------------------------


async def test_two_writers_decide_on_the_same_tasks_and_each_ends_once(url: str) -> None:
    async with two(url) as (first, second):
        tasks = [make_task(first.env, provider_task_id="p", step="tracking", status="running") for _ in range(100)]
        await put(first, Change(tasks=tuple(tasks)))

        def call_back(store: Store, task: Task) -> Awaitable[Change]:
            decide = partial(
                lifecycle.advance,
                observation=picture(provider_task_id="p"),
                via="callback",
                env=store.env,
                policy=CALLS_BACK,
            )
            return store.writer.change_task(task.id, decide)

        order = [*tasks, *reversed(tasks)]
        calls = [call_back(store, task) for task in order for store in (first, second)]
        changes = await asyncio.gather(*calls)
        assert sorted(change.outcome for change in changes) == ["duplicate"] * 300 + ["moved"] * 100
        assert [event.seq for event in await second.reads.events_after(0, 1000)] == list(range(1, 101))


async def test_two_claimers_never_take_the_same_task_and_keep_to_the_limits_together(url: str) -> None:
    async with two(url) as (first, second):
        await create(first, 60)
        limits, taken = Limits(submits=40, window_s=10, max_in_flight=30), []
        for _ in range(10):
            found = await asyncio.gather(claim(first, 7, limits), claim(second, 7, limits))
            taken += [task.id for one in found for task in one.tasks]
        assert len(taken) == len(set(taken)) == 30


async def test_two_claimers_never_take_the_same_delivery_and_keep_to_the_limits_together(url: str) -> None:
    async with two(url) as (first, second):
        await subscribe(first, max_in_flight=12)
        await publish(first, 40)
        taken: list[str] = []
        for _ in range(10):
            found = await asyncio.gather(claim_deliveries(first, 5), claim_deliveries(second, 5))
            taken += [parcel.delivery.id for one in found for parcel in one.parcels]
        assert len(taken) == len(set(taken)) == 12


async def test_a_row_that_another_process_works_on_is_left_out_and_nobody_waits(url: str) -> None:
    async with two(url) as (first, second):
        await create(first, 2)
        locked = min(await tasks_of(first))
        async with first.driver.transaction() as session:
            await session.fetch(f"select 1 from tasks where id = ? {first.driver.for_update}", (locked,))
            found = await soon(claim(second))
        assert {task.id for task in found.tasks} == await tasks_of(first) - {locked}


async def test_an_idempotency_key_used_in_two_processes_at_once_makes_one_task(url: str) -> None:
    async with two(url) as stores:

        def ask(store: Store, key: str) -> Awaitable[Change]:
            def decide(batch: Batch) -> Change:
                if batch.idempotency_key(key):
                    return Change(outcome="replayed")
                task = make_task(store.env)
                used = IdempotencyKey(key=key, fingerprint="f", task_id=task.id, created_at=store.env.now())
                return Change(tasks=(task,), idempotency=(used,))

            return store.writer.change(Keys(idempotency=(key,)), decide)

        changes = await asyncio.gather(*(ask(store, f"k{n}") for n in range(50) for store in stores))
        assert sum(change.outcome == "moved" for change in changes) == len(await tasks_of(stores[0])) == 50


async def test_failures_of_an_endpoint_counted_in_two_processes_are_all_counted(url: str) -> None:
    async with two(url) as (first, second):
        endpoint_id = await subscribe(first, max_in_flight=50)
        await publish(first, 30)
        parcels = (await claim_deliveries(first)).parcels
        failed = delivering.Outcome(at=first.env.now(), received=False, status_code=500, duration_ms=1)

        def record(store: Store, delivery: Delivery) -> Awaitable[Change]:
            def decide(batch: Batch) -> Change:
                mine, endpoint = batch.delivery(delivery.id), batch.find_endpoint(endpoint_id)
                return delivering.after_attempt(mine, endpoint, failed, delivery.lease, store.env, (5,))

            return store.writer.change(Keys(deliveries=(delivery.id,), endpoints=(endpoint_id,)), decide)

        await asyncio.gather(*(record((first, second)[n % 2], parcel.delivery) for n, parcel in enumerate(parcels)))
        assert (await first.reads.get_endpoint(endpoint_id)).failures == 30
        assert [event.type for event in await first.reads.events_after(30, 100)] == ["endpoint.failing"]


async def test_transactions_that_wait_for_each_other_are_tried_again(url: str) -> None:
    async with two(url) as (first, second):
        await create(first, 2)
        ids = sorted(await tasks_of(first))
        both = asyncio.Barrier(2)

        def cross(store: Store, order: list[str]) -> Awaitable[None]:
            met = False

            async def work(batch: Batch) -> None:
                nonlocal met
                await batch.load([Keys(tasks=(order[0],))])
                if not met:
                    met = True
                    await both.wait()
                await batch.load([Keys(tasks=(order[1],))])

            return store.writer.run(work)

        await soon(asyncio.gather(cross(first, ids), cross(second, ids[::-1])))


async def test_an_endpoint_that_is_disabled_gets_nothing_from_another_process_afterwards(url: str) -> None:
    async with two(url) as (first, second):
        endpoint = make_endpoint(first.env)
        await put(first, Change(endpoints=(endpoint,)))
        await publish(second, 1)
        off = delivering.disable(endpoint, "by request", first.env)
        await asyncio.gather(
            put(first, Change(endpoints=(off,), holds=(endpoint.id,))), *(publish(second, 1) for _ in range(20))
        )
        assert (await claim_deliveries(second)).parcels == []
        assert (await first.reads.count_held())[endpoint.id].count == 21


async def test_a_process_that_stands_still_in_a_transaction_loses_it(url: str) -> None:
    hurried = PostgresTimes(idle_transaction_s=0.2)
    async with open_store(url, 1, hurried) as first, open_store(url, 2) as second:
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def stand_still(batch: Batch) -> None:
            await batch.session.fetch(f"select 1 from counters {batch.driver.for_update}")
            entered.set()
            await go_on.wait()
            batch.apply(lifecycle.cancel(make_task(batch.env), batch.env))

        frozen = asyncio.create_task(first.writer.run(stand_still))
        await entered.wait()
        await soon(publish(second, 1))
        go_on.set()
        await frozen
        assert [event.seq for event in await second.reads.events_after(0, 10)] == [1, 2]


async def test_a_reader_that_follows_the_stream_never_passes_a_gap_that_is_filled_later(url: str) -> None:
    async with two(url) as (first, second), open_store(url, 3) as third:
        seen: list[int] = []

        async def follow() -> None:
            while len(seen) < 400:
                seen.extend(event.seq for event in await third.reads.events_after(seen[-1] if seen else 0, 3))

        async def write(store: Store) -> None:
            for _ in range(20):
                await asyncio.gather(*(publish(store, 1) for _ in range(10)))

        await soon(asyncio.gather(follow(), write(first), write(second)))
        assert seen == list(range(1, 401))


async def test_a_recover_beside_another_processs_worker_sends_what_waits_once(
    url: str,
) -> None:
    async with two(url) as (first, second):
        endpoint_id, since = await subscribe(first, max_in_flight=1000), first.env.now()
        await publish(first, 20)
        for parcel in (await claim_deliveries(first)).parcels:
            waiting = replace(parcel.delivery, status="pending", due_at=after(since, 60), failures=1)
            await put(first, Change(deliveries=(waiting,)))
        second.env.pass_time(60)
        recover = partial(upkeep.recover, first.writer, endpoint_id, since, after(since, 1), dry_run=False, step_max=10)

        async def recover_ten_and_claim_the_rest(batch: Batch) -> tuple[int, list[Parcel]]:
            found = await upkeep._RecoverStep(endpoint_id, 0, 0, 2**53, 10, dry_run=False).work(batch)
            await batch.flush()
            return found, (await claim_deliveries(second)).parcels

        found, untouched = await first.writer.run(recover_ten_and_claim_the_rest)
        assert found == 10
        assert [parcel.delivery.failures for parcel in untouched] == [1] * 10
        assert await recover() == 0, "ten are queued, ten are being sent"

        async def claim_and_begin_to_recover(batch: Batch) -> tuple[list[Parcel], asyncio.Task[int]]:
            claim = await claims.claim_due_deliveries(batch, 100, 40, 1000)
            return claim.parcels, asyncio.create_task(recover())

        queued, recovering = await second.writer.run(claim_and_begin_to_recover)
        assert [parcel.delivery.failures for parcel in queued] == [0] * 10
        assert await recovering == 0
        assert len({parcel.delivery.id for parcel in [*untouched, *queued]}) == 20


# --- news -------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def hearing(store: Store) -> AsyncIterator[list[str]]:
    """Rings the store's bus as a process does; what was heard."""
    heard: list[str] = []

    async def listen() -> None:
        async for topic in store.driver.listen():
            heard.append(topic)
            store.bus.ring((topic,)) if topic else store.bus.ring_all()

    task = asyncio.create_task(listen())
    try:
        await until(lambda: heard)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_commit_wakes_another_process_and_not_its_own(url: str) -> None:
    async with two(url) as (first, second), hearing(second) as heard, hearing(first) as own:
        for _ in range(9):
            with second.bus.subscribed(EVENTS) as bell:
                await publish(first, 1)
                await soon(bell.wait(None))
        assert heard.count(EVENTS) == 9 and own == [""]


async def test_more_topics_than_a_notice_holds_stand_for_everything(url: str) -> None:
    async with two(url) as (first, second), hearing(second) as heard:
        changes = [lifecycle.cancel(make_task(first.env), first.env) for _ in range(250)]
        await put(first, Change(tasks=tuple(task for change in changes for task in change.tasks)))
        await until(lambda: len(heard) > 1)
        assert heard == ["", ""]


async def test_a_listener_that_was_cut_off_comes_back_and_says_look_at_everything(url: str) -> None:
    async with two(url) as (first, second), hearing(second) as heard:
        await cut(url, "listener")
        await until(lambda: heard == ["", ""])
        await publish(first, 1)
        await until(lambda: EVENTS in heard)


# --- connections that break -------------------------------------------------------------------------------------------


async def cut(url: str, role: str) -> None:
    name = url.rpartition("/")[2]
    which = f"datname = '{name}' and application_name = 'taskhook {role}'"
    await command(shared_server(), f"select pg_terminate_backend(pid) from pg_stat_activity where {which}")


async def test_connections_cut_again_and_again_lose_nothing_and_double_nothing(url: str) -> None:
    async with open_store(url) as store:
        answers: dict[str, bool] = {}

        async def write() -> None:
            while True:
                task = make_task(store.env)
                try:
                    await put(store, lifecycle.create(task, store.env))
                    await store.reads.get_task(task.id)
                    answers[task.id] = True
                except Unavailable:
                    answers[task.id] = False

        writers = [asyncio.create_task(write()) for _ in range(8)]
        for _ in range(15):
            before = len(answers)
            await until(lambda before=before: len(answers) > before + 20)
            await cut(url, "writer")
            await cut(url, "reader")
        for task in writers:
            task.cancel()
        await outcomes(writers)
        await publish(store, 1)
        stored = await tasks_of(store)
        assert {task_id for task_id, kept in answers.items() if kept} <= stored
        assert list(answers.values()).count(False) <= 2, "cut connections heal without the callers' help"


async def test_a_read_on_a_network_that_drops_every_packet_is_broken_off_and_its_connection_made_anew(
    url: str,
) -> None:
    port = shared_server().port
    async with Cable([port]) as cable, open_store(url.replace(f":{port}/", f":{cable.port}/")) as store:
        reads = Reads(store.driver, ReadLimits(wait_s=0.3))
        task = make_task(store.env)
        await put(store, lifecycle.create(task, store.env))
        assert (await store.reads.get_task(task.id)).id == task.id
        used = {reader.connection for reader in store.driver._readers._queue} - {None}
        cable.moves.clear()
        for _ in range(READERS):
            with pytest.raises(Unavailable):
                await reads.get_task(task.id)
        await until(lambda: all(connection.is_closed() for connection in used))
        cable.moves.set()
        assert (await store.reads.get_task(task.id)).id == task.id


async def test_a_server_that_restarts_under_load_loses_nothing_that_was_answered(
    url: str,
) -> None:
    server = shared_server()
    async with open_store(url, times=PostgresTimes(outcome_wait_s=0.5)) as store, hearing(store) as heard:
        answered: list[str] = []
        refused: list[str] = []

        async def write() -> None:
            while True:
                task = make_task(store.env)
                try:
                    await put(store, lifecycle.create(task, store.env))
                    answered.append(task.id)
                except Unavailable:
                    refused.append(task.id)
                    await asyncio.sleep(0.02)

        writers = [asyncio.create_task(write()) for _ in range(8)]
        for how in (signal.SIGINT, signal.SIGQUIT):
            before, gaps = len(answered), len(heard)
            await until(lambda before=before: len(answered) > before + 100)
            try:
                await asyncio.to_thread(server.stop, how)
                await until(lambda: len(refused) > 20, what="refused while the server is away")
            finally:
                await asyncio.to_thread(server.start)
            refused.clear()
            await until(lambda gaps=gaps: len(heard) > gaps, what="listening again")
        before = len(answered)
        await until(lambda: len(answered) > before + 100, what="healed by itself")
        for task in writers:
            task.cancel()
        await outcomes(writers)
        assert set(answered) <= await tasks_of(store)


class Proxy:
    """Between a process and the server: cuts the connection around the next commit it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut_before = self.cut_after = 0

    @asynccontextmanager
    async def running(self, url: str) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield url.replace(f":{self._port}/", f":{server.sockets[0].getsockname()[1]}/")
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        answers = asyncio.create_task(self._pass(up_reader, writer))
        try:
            while piece := await reader.read(1 << 16):
                commits = b"commit\0" in piece
                if commits and self.cut_before:
                    self.cut_before -= 1
                    break
                if commits and self.cut_after:
                    self.cut_after -= 1
                    answers.cancel()
                    up_writer.write(piece)
                    await up_reader.read(1 << 16)
                    break
                up_writer.write(piece)
        except ConnectionError:
            pass
        finally:
            answers.cancel()
            up_writer.close()
            writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
        writer.close()


@pytest.fixture
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, Store]]:
    proxy = Proxy(shared_server().port)
    async with proxy.running(url) as address, open_store(address) as store:
        yield proxy, store


async def test_a_commit_that_was_not_answered_counts_when_it_was_made(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    proxy.cut_after = 1
    await create(store, 1)
    assert len(await tasks_of(store)) == 1 and proxy.cut_after == 0


async def test_a_commit_that_never_arrived_is_made_again_once(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    proxy.cut_before = 1
    await publish(store, 1)
    assert [event.seq for event in await store.reads.events_after(0, 10)] == [1] and proxy.cut_before == 0


async def test_a_claim_whose_commit_was_not_answered_is_not_lost(proxied: tuple[Proxy, Store]) -> None:
    proxy, store = proxied
    await create(store, 3)
    proxy.cut_after = 1
    assert len((await claim(store)).tasks) == 3


async def test_a_commit_of_unknown_outcome_is_told_as_unavailable(
    proxied: tuple[Proxy, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, store = proxied

    async def other_timeline(connection: object) -> str:
        return "00000002"

    await create(store, 1)
    monkeypatch.setattr(postgres, "_timeline", other_timeline)
    proxy.cut_after = 1
    with pytest.raises(Unavailable):
        await create(store, 1)
    await create(store, 1)
    assert len(await tasks_of(store)) == 3


async def test_a_server_that_can_not_be_reached_is_named_without_the_password() -> None:
    driver = PostgresDriver("postgresql://someone:unmistakable@127.0.0.1:1/nothing")
    with pytest.raises(Unavailable) as raised:
        await driver.open()
    assert "unmistakable" not in f"{raised.value.detail} {raised.value.cause} {raised.value.__cause__!r}"
    assert "127.0.0.1" in raised.value.cause


async def test_a_database_that_does_not_exist_is_named() -> None:
    driver = PostgresDriver(shared_server().url("nowhere"))
    with pytest.raises(Unavailable) as raised:
        await driver.open()
    assert "nowhere" in raised.value.cause


async def test_a_server_that_only_reads_is_told_as_unavailable(url: str) -> None:
    async with open_store(url) as store:
        name = url.rpartition("/")[2]
        await command(shared_server(), f"alter database {name} set default_transaction_read_only = on")
        await cut(url, "writer")
        with pytest.raises(Unavailable):
            await create(store, 1)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://taskhook@db/taskhook",
        "postgres://u:p%23@127.0.0.1:5433/x?sslmode=verify-full",
        "postgresql://u:p@first:5432,second:5432/x",
        "postgresql://u@[::1]:5432/x",
        "postgresql:///x?host=/run/postgresql",
    ],
)
def test_a_url_of_a_server_is_a_setting(text: str) -> None:
    assert load({"TASKHOOK_DATABASE_URL": text}, None, dev=True).database_url == text


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:secret#x@db/x",
        "postgresql://u:se/cret@db/x",
        "postgresql://db:secret/x",
        "postgresql://db/x?sslmod=secret",
        "postgresql://db/x?secret",
        "postgresql://u:secret@db:port/x",
        "mysql://u:secret@db/x",
    ],
)
def test_a_url_that_can_not_be_right_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load({"TASKHOOK_DATABASE_URL": text}, None, dev=True)
    assert str(raised.value).startswith(("TASKHOOK_DATABASE_URL must", "TASKHOOK_DATABASE_URL has"))
    assert "cret" not in str(raised.value)


# --- migrations, text, poolers ----------------------------------------------------------------------------------------


async def test_four_that_migrate_at_once_apply_each_migration_once() -> None:
    async with database(shared_server(), migrated=False) as url:
        drivers = [PostgresDriver(url) for _ in range(4)]
        await asyncio.gather(*(driver.open() for driver in drivers))
        applied = await asyncio.gather(*(migrate(driver, 0) for driver in drivers))
        await asyncio.gather(*(driver.close() for driver in drivers))
        assert sorted(len(names) for names in applied)[:3] == [0, 0, 0] and max(map(len, applied)) >= 3


async def test_text_is_ordered_by_its_bytes_whatever_the_database_prefers(url: str) -> None:
    async with open_store(url) as store:
        await publish(store, 1)
        (event,) = await store.reads.events_after(0, 1)
        lanes = ["url:http://a", "url:http://B", "url:http://b", "url:http://A-", "url:http://é", "url:http://A"]
        made = [make_delivery(store.env, event_id=event.id, lane=lane, status="pending") for lane in lanes]
        await put(store, Change(deliveries=tuple(made)))
        async with store.driver.reading() as session:
            assert {lane.name for lane in await find_lanes(session)} == set(lanes)
            found = [row[0] for row in await session.fetch("select lane from deliveries order by lane")]
        assert found == sorted(lanes)


async def test_text_with_a_nul_is_stored_and_found(url: str) -> None:
    async with open_store(url) as store:
        await create(store, 1, provider_task_id="a\0b", metadata={"k\0": "v\0"})
        wanted = TaskFilter(provider_task_id="a\0b", metadata={"k\0": "v\0"})
        assert len((await store.reads.list_tasks(wanted, 10, None)).items) == 1
        with pytest.raises(NotFound):
            await store.writer.change_task("task\0", lambda task: Change())


def test_placeholders_are_numbered() -> None:
    assert numbered("a = ? and b in (?, ?)") == "a = $1 and b in ($2, $3)"


@pytest.mark.skipif(find_pooler() is None, reason="no pgbouncer here")
async def test_a_pooler_in_transaction_mode_is_noticed_and_everything_works_through_it(url: str) -> None:
    async with pooler(shared_server(), url) as address, two(address) as (first, second):
        await create(first, 20)
        await subscribe(second)
        await asyncio.gather(*(publish(store, 1) for _ in range(20) for store in (first, second)))
        reads = [store.reads.events_after(0, 100) for _ in range(30) for store in (first, second)]
        assert {len(found) for found in await asyncio.gather(*reads)} == {40}
        taken = await asyncio.gather(claim(first), claim(second))
        assert len({task.id for one in taken for task in one.tasks}) == 20
        async with hearing(second) as heard:
            await publish(first, 1)
            await until(lambda: len(heard) > 1)
        assert set(heard) == {""}
