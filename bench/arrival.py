"""From a provider's callback until its event is at the endpoint: verified, matched, stored, signed and delivered.

The tasks were accepted before, so that nothing else runs. Each service meets all rates, on a store that is empty and on
one that holds as many finished tasks, events, deliveries and attempts as `stored`.
"""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from bench.calls import ask, callback_paths, main_process, new_database, service_env, world
from bench.figures import Figure, Plan
from bench.fill import fill, shape_of
from bench.processes import cpu_seconds, cpu_seconds_of_all, free_port, process, until
from bench.stock import Stock
from service.wiring import RealEnv, build_driver
from tests.support.postgres import Server

COUNTS = {5.0: 20, 20.0: 60, 100.0: 300, 0.0: 2_000}
"""Callbacks sent at each rate a second; 0 is as fast as 64 connections allow."""
STORED = 20_000
MAX_IN_FLIGHT = 100


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """The milliseconds from each callback to its event, the events a second, and the CPU time of all for an event."""

    ms: tuple[float, ...]
    per_s: float
    cpu_us: float


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service whose tasks wait for their callbacks from the world."""

    port: int
    world_port: int
    task_ids: list[str]
    cpu_s: Callable[[], float]

    def receive(self, rate: float, count: int) -> Arrivals:
        task_ids = [self.task_ids.pop() for _ in range(count)]
        paths = callback_paths(task_ids)
        lines = (
            f"http://127.0.0.1:{self.port}{path} p{task_id}" for path, task_id in zip(paths, task_ids, strict=True)
        )
        ask(self.world_port, "/figures")
        before, ms = self.cpu_s(), list[float]()
        first_at, last_at = float("inf"), 0.0
        ask(self.world_port, f"/callbacks?rate={rate}", "\n".join(lines).encode())

        def has_all() -> bool:
            nonlocal first_at, last_at
            seen = ask(self.world_port, "/figures")
            if set(seen["statuses"]) - {"200"}:
                raise SystemExit(f"callbacks were refused: {seen['statuses']}")
            ms.extend(seen["ms"])
            if seen["hooks"]:
                first_at, last_at = min(first_at, seen["first_at"]), seen["last_at"]
            return len(ms) >= count

        until(has_all, "every event is at the endpoint")
        cpu_us = (self.cpu_s() - before) / count * 1e6
        return Arrivals(ms=tuple(sorted(ms)), per_s=(count - 1) / (last_at - first_at), cpu_us=cpu_us)


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    return [figure for stored in (0, STORED) for figure in _measure(plan, None, stored)]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    return [figure for stored in (0, STORED) for figure in _measure(plan, plan.server, stored)]


def on_large_stores(plan: Plan) -> Sequence[Figure]:
    """Measure both databases with as many stored events as `--scale` names."""
    servers = (None, plan.server) if plan.server else (None,)
    return [figure for server in servers for figure in _measure(plan, server, plan.stored)]


def _measure(plan: Plan, server: Server | None, stored: int) -> list[Figure]:
    counts = {rate: max(round(count * plan.part), 10) for rate, count in COUNTS.items()}
    found: dict[float, list[Arrivals]] = {rate: [] for rate in counts}
    for _ in range(min(plan.rounds, 2)):
        with _running(server, stored, sum(counts.values())) as service:
            for rate, count in counts.items():
                found[rate].append(service.receive(rate, count))
    title = f"arrival, {'PostgreSQL' if server else 'SQLite'}, {f'{stored:,} stored' if stored else 'empty'}"
    return [
        *(_latency(f"{title}: {rate:g}/s", share, found[rate]) for rate in counts if rate for share in (50, 90, 99)),
        Figure(name=f"{title}: full speed", unit="/s", values=tuple(seen.per_s for seen in found[0.0])),
        *(
            Figure(name=f"{title}: CPU an event, {name}", unit="us", values=tuple(seen.cpu_us for seen in found[rate]))
            for name, rate in (("100/s", 100.0), ("full speed", 0.0))
        ),
    ]


def _latency(name: str, percentile: int, found: Sequence[Arrivals]) -> Figure:
    values = tuple(seen.ms[len(seen.ms) * percentile // 100] for seen in found)
    return Figure(name=f"{name}, p{percentile}", unit="ms", values=values)


@contextmanager
def _running(server: Server | None, stored: int, count: int) -> Iterator[Service]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, world(folder) as world_port:
        env = service_env(port, folder, new_database(server) if server else None)
        url = env["TASKHOOK_DATABASE_URL"]
        task_ids = Stock(url, endpoint_url=f"http://127.0.0.1:{world_port}/hook", max_in_flight=MAX_IN_FLIGHT).fill(
            running=count
        )
        if stored:
            asyncio.run(_store(url, stored))
        with process(["-m", "service", "serve"], port, "/readyz", folder, env) as pid:
            if stored:
                _silence_the_stored_endpoints(port, f"http://127.0.0.1:{world_port}/hook")

            def cpu_s() -> float:
                return cpu_seconds(pid) + (cpu_seconds_of_all(main_process(server)) if server else 0.0)

            yield Service(port=port, world_port=world_port, task_ids=task_ids, cpu_s=cpu_s)


async def _store(url: str, stored: int) -> None:
    """Store tasks that ended, with all that belongs to them; the planner gets no statistics of them."""
    driver = build_driver(url)
    await driver.open()
    try:
        await fill(driver, shape_of(stored, 0.0, 0.0, RealEnv().now()), statistics="none")
    finally:
        await driver.close()


def _silence_the_stored_endpoints(port: int, url: str) -> None:
    """Let only the measured endpoint receive events."""
    for endpoint in ask(port, "/v1/endpoints")["data"]:
        if endpoint["url"] != url:
            ask(port, f"/v1/endpoints/{endpoint['id']}", {"events": ["endpoint.disabled"]}, "PATCH")
