"""Cost of the store's operations with many tasks, compared with a thousand, alternating on one machine.

python -m bench.scale --tasks 1000000 --on sqlite|postgresql [--waiting 0.1] [--due 0.1] [--stale] [--rounds 15]
    [--only claim]
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta

import msgspec

from bench.calls import service_env
from bench.fill import RARE, Shape, Statistics, created_at_ms, fill, shape_of
from bench.processes import free_port, process
from service.core.account import Limits
from service.core.ids import prefixed_uuid7
from service.core.schedule import Policy
from service.core.times import from_ms, to_ms
from service.store import claims, overdue, rotation, upkeep
from service.store.batch import Batch, Keys, Subscribers
from service.store.driver import Driver, Session
from service.store.migrate import migrate
from service.store.postgres import PostgresDriver
from service.store.queries import TaskFilter
from service.store.reads import Reads
from service.store.sqlite import SqliteDriver
from service.store.vault import Vault
from service.wiring import RealEnv

SMALL = 1_000
OLD = 100
"""So many tasks does the step of the retention find in either store."""
POLICY = Policy(callbacks=False, polling=True, blocking=False)
WIDE = Limits(submits=100_000, window_s=1.0, max_in_flight=50)
"""As many as are in flight in the small store: the room is counted up to it."""
TARGET = 1.5
START = "start until ready"


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """The least of some rounds, in milliseconds."""

    name: str
    small_ms: float
    large_ms: float

    @property
    def ratio(self) -> float:
        return self.large_ms / self.small_ms


class _Undone(Exception):
    pass


class Store:
    """A filled database; what is written to it while it is measured is taken back."""

    def __init__(self, driver: Driver, shape: Shape) -> None:
        self.driver = driver
        self.shape = shape
        self.env = RealEnv()
        self.reads = Reads(driver)
        self._subscribers = Subscribers()

    async def work(self, do: Callable[[Batch], Awaitable[object]]) -> None:
        async def undone(session: Session) -> None:
            batch = Batch(session, self.driver, self.env, self._subscribers)
            await do(batch)
            await batch.flush()
            raise _Undone

        with suppress(_Undone):
            await self.driver.write(undone)

    # `run` and `change` make it stand for the Writer.

    async def run(self, do: Callable[[Batch], Awaitable[int]]) -> int:
        await self.work(do)
        return 0

    def id_of(self, kind: str, number: int) -> str:
        ms = created_at_ms(self.shape, number)
        prefix = prefixed_uuid7(kind, 0, 0).partition("_")[0]  # type: ignore[arg-type]
        return f"{prefix}_{ms:012x}70008000{number:012x}"


Operation = Callable[[Store], Awaitable[object]]


def listing(limit: int = 50, **wanted: object) -> Operation:
    async def run(store: Store) -> None:
        await store.reads.list_tasks(TaskFilter(**wanted), limit, None)  # type: ignore[arg-type]

    return run


def deliveries(**wanted: str) -> Operation:
    async def run(store: Store) -> None:
        found = {"status": None, "endpoint_id": None, "task_id": None, **wanted}
        page = await store.reads.list_deliveries(found["status"], found["endpoint_id"], found["task_id"], 50, None)
        await store.reads.attempts_of([delivery.id for delivery in page.items])

    return run


def claim(provider: str) -> Operation:
    async def run(store: Store) -> None:
        async def work(batch: Batch) -> None:
            found = await claims.claim_due_tasks(batch, provider, POLICY, WIDE, 20)
            assert len(found.tasks) == 20

        await store.work(work)

    return run


async def claim_deliveries(store: Store) -> None:
    async def work(batch: Batch) -> None:
        assert len((await claims.claim_due_deliveries(batch, 20, 40, 256)).parcels) >= 10

    await store.work(work)


async def idle_look(store: Store) -> None:
    async with store.driver.reading() as session:
        for provider in ("fluxapi-ai", "acedata", "flux-context", "fluxapi-org"):
            await claims.next_due_task(session, provider)


async def readiness(store: Store) -> None:
    async with store.driver.reading() as session:
        await overdue.find_overdue(session, {"fluxapi-ai": WIDE, "acedata": WIDE}, store.env.now())


async def read_task(store: Store) -> None:
    task_id = store.id_of("task", store.shape.tasks // 3)
    await store.reads.get_task(task_id)
    await store.reads.list_entries(task_id)


async def by_provider_task(store: Store) -> None:
    wanted = TaskFilter(provider_task_id=f"provider-{store.shape.tasks // 3:012x}")
    assert (await store.reads.list_tasks(wanted, 50, None)).items


async def by_order(store: Store) -> None:
    wanted = TaskFilter(metadata={"order": str(store.shape.tasks // 3)})
    assert (await store.reads.list_tasks(wanted, 50, None)).items


async def second_page(store: Store) -> None:
    before = store.id_of("task", store.shape.tasks // 2)
    await store.reads.list_tasks(TaskFilter(), 50, before)


async def created_range(store: Store) -> None:
    first = from_ms(created_at_ms(store.shape, store.shape.tasks // 2))
    last = from_ms(created_at_ms(store.shape, store.shape.tasks // 2 + 60))
    found = await store.reads.list_tasks(TaskFilter(created_after=first, created_before=last), 50, None)
    assert len(found.items) == 50


async def failed_in_range(store: Store) -> None:
    first = from_ms(created_at_ms(store.shape, store.shape.tasks // 4))
    last = from_ms(created_at_ms(store.shape, store.shape.tasks // 4 + 200))
    wanted = TaskFilter(status="failed", created_after=first, created_before=last)
    assert (await store.reads.list_tasks(wanted, 50, None)).items


def events(*types: str) -> Operation:
    async def run(store: Store) -> None:
        assert await store.reads.events_after(0, 51, types=types)

    return run


async def events_at_the_end(store: Store) -> None:
    assert await store.reads.events_after(store.shape.done - 51, 51)


async def events_of_a_task(store: Store) -> None:
    assert await store.reads.events_after(0, 51, task_id=store.id_of("task", store.shape.tasks // 3))


async def place_of_a_deleted_event(store: Store) -> None:
    await store.reads.position_of(prefixed_uuid7("event", store.shape.first_ms, 0))


async def figures_of_metrics(store: Store) -> None:
    await store.reads.count_open()
    await store.reads.oldest_due_ms()


async def held_by_endpoint(store: Store) -> None:
    await store.reads.count_held()


async def retention(store: Store) -> None:
    now = from_ms(created_at_ms(store.shape, OLD) + 9_000) + timedelta(days=30)
    await upkeep.delete_old(store, now, 30)  # type: ignore[arg-type]


async def rotation_step(store: Store) -> None:
    """Of tasks without a URL of their own: nothing to do, but to find that out."""
    await store.work(rotation._step(rotation._TABLES[1], Vault(["a key"]), ""))


async def accept_task(store: Store) -> None:
    async def work(batch: Batch) -> None:
        await batch.load([Keys(tasks=(store.id_of("task", store.shape.tasks // 3),), idempotency=("order-x",))])

    await store.work(work)


OPERATIONS: dict[str, Operation] = {
    "claim 20 due submits": claim("fluxapi-ai"),
    "claim 20 due polls": claim("acedata"),
    "claim 20 due deliveries": claim_deliveries,
    "look whether tasks are due": idle_look,
    "readiness: what is overdue": readiness,
    "a task with its timeline": read_task,
    "load a task to change it": accept_task,
    "tasks": listing(),
    "tasks, a page from the middle": second_page,
    "tasks by status": listing(status="succeeded"),
    "tasks by status, few": listing(10, status="failed"),
    "tasks by provider": listing(provider="fluxapi-ai"),
    f"tasks by provider, {RARE} old ones": listing(provider="flux-context"),
    "tasks by model": listing(model="flux-kontext-pro"),
    f"tasks by model, {RARE} old ones": listing(model="gpt-4o"),
    "tasks by provider and model": listing(provider="fluxapi-ai", model="flux-kontext-pro"),
    "tasks by provider and status": listing(10, provider="fluxapi-ai", status="failed"),
    "tasks by provider, behind those that wait": listing(provider="fluxapi-ai", status="succeeded"),
    "tasks by provider and status, few": listing(provider="flux-context", status="succeeded"),
    "tasks by provider_task_id": by_provider_task,
    "tasks by metadata, one": by_order,
    "tasks by metadata, a tenth": listing(metadata={"customer": "3"}),
    "tasks by metadata, behind those that wait": listing(metadata={"customer": "3"}, status="succeeded"),
    "tasks by metadata, none": listing(metadata={"customer": "x"}),
    "tasks by time of creation": created_range,
    "tasks by status and time": failed_in_range,
    "events, first page": events(),
    "events, last page": events_at_the_end,
    "events by type": events("task.succeeded"),
    "events by type, few": events("task.late_result"),
    "events of a task": events_of_a_task,
    "place of a deleted event": place_of_a_deleted_event,
    "deliveries": deliveries(),
    "deliveries received, behind those that wait": deliveries(status="succeeded"),
    "deliveries by status, few": deliveries(status="failed"),
    "deliveries of an endpoint": deliveries(endpoint_id="ep_00000000000070008000000000000003"),
    "deliveries received by an endpoint, behind": deliveries(
        endpoint_id="ep_00000000000070008000000000000003", status="succeeded"
    ),
    "retention, a step of 100": retention,
    "rotation of keys, a step": rotation_step,
    "held deliveries by endpoint": held_by_endpoint,
    "figures of /metrics": figures_of_metrics,
}


async def compare(small: Store, large: Store, rounds: int, only: str = "") -> list[Figure]:
    """Each operation on the one and the other in turn: the least of the rounds, since others use the machine too."""
    found = []
    for name, operation in OPERATIONS.items():
        if only not in name:
            continue
        times: dict[Store, list[float]] = {small: [], large: []}
        for _ in range(rounds):
            for store, taken in times.items():
                began = time.perf_counter()
                await operation(store)
                taken.append((time.perf_counter() - began) * 1000)
        least = [min(taken) for taken in times.values()]
        found.append(Figure(name=name, small_ms=least[0], large_ms=least[1]))
    return found


async def start_ms(url: str, rounds: int) -> float:
    """From the start of the process until it is ready."""
    taken = []
    for _ in range(rounds):
        port = free_port()
        with tempfile.TemporaryDirectory(prefix="taskhook-start-") as folder:
            env = {**service_env(port, folder), "TASKHOOK_DATABASE_URL": url, "TASKHOOK_RETENTION_DAYS": "3650"}
            began = time.perf_counter()
            with process(["-m", "service", "web"], port, "/readyz?exclude=worker", folder, env):
                taken.append((time.perf_counter() - began) * 1000)
    return min(taken)


@asynccontextmanager
async def filled(url: str, shape: Shape, *, statistics: Statistics = "fresh"):  # type: ignore[no-untyped-def]
    driver: Driver = SqliteDriver(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else PostgresDriver(url)
    await driver.open()
    try:
        await migrate(driver, to_ms(RealEnv().now()))
        async with driver.reading() as session:
            is_empty = not (await session.fetch("select 1 from tasks limit 1"))
        if is_empty:
            await fill(driver, shape, statistics=statistics)
        yield Store(driver, shape)
    finally:
        await driver.close()


async def measure(urls: tuple[str, str], given: argparse.Namespace) -> list[Figure]:
    """On two databases, the first for a thousand tasks, which are filled if they are empty."""
    now = RealEnv().now()
    statistics: Statistics = "stale" if given.stale else "fresh"
    async with (
        filled(urls[0], shape_of(SMALL, given.waiting, given.due, now)) as small,
        filled(urls[1], shape_of(given.tasks, given.waiting, given.due, now), statistics=statistics) as large,
    ):
        found = await compare(small, large, given.rounds, given.only)
    if given.only not in START:
        return found
    starts = [await start_ms(url, 3) for url in urls]
    return [*found, Figure(name=START, small_ms=starts[0], large_ms=starts[1])]


async def databases(on: str, folder: str, stack: AsyncExitStack) -> tuple[str, str]:
    if on == "sqlite":
        return f"sqlite:///{folder}/small.db", f"sqlite:///{folder}/large.db"
    from tests.support.postgres import command, shared_server  # noqa: PLC0415 - SQLite needs no server

    server = shared_server()
    stack.callback(server.remove)
    for name in ("small", "large"):
        await command(server, f"create database {name}")
    return server.url("small"), server.url("large")


def table(found: list[Figure]) -> str:
    lines = [f"{'operation':<44}{'1,000: ms':>10}{'many: ms':>10}{'ratio':>7}"]
    for figure in found:
        mark = "" if figure.ratio <= TARGET else "  above"
        lines.append(f"{figure.name:<44}{figure.small_ms:>10.2f}{figure.large_ms:>10.2f}{figure.ratio:>7.2f}{mark}")
    return "\n".join(lines)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--on", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--waiting", type=float, default=0.1, help="which part of the tasks is due")
    parser.add_argument("--due", type=float, default=0.1, help="for which part of the tasks a delivery is due")
    parser.add_argument("--only", default="", help="operations with this in their name")
    parser.add_argument("--stale", action="store_true", help="the planner's statistics are of a thousand tasks")
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="taskhook-scale-") as folder:
        async with AsyncExitStack() as stack:
            urls = await databases(given.on, folder, stack)
            print(table(await measure(urls, given)))


if __name__ == "__main__":
    asyncio.run(main())
