"""The whole life of a task: accepted, submitted, called back, delivered, all stored; its cost, and how fast it goes."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec

from bench.calls import (
    ask,
    bare,
    create_requests,
    load,
    main_process,
    new_database,
    service_env,
    with_provider,
    world,
)
from bench.figures import Figure, Plan
from bench.processes import cpu_seconds, cpu_seconds_of_all, free_port, process, until
from tests.support.postgres import Server

COUNT = 1_200
IN_FLIGHT = 100
PACED_S = 3.0
"""How long a load of so many a second lasts."""
FEW_PER_S = 100.0
OPEN = ("deliveries?status=sending", "deliveries?status=pending")


class Lives(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of tasks from end to end; milliseconds are from sending the callback to the endpoint."""

    per_s: float
    cpu_us: float
    ms: tuple[float, ...]


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A service between its provider and its subscriber; `cpu_s` is what it has used so far, its database with it."""

    pid: int
    port: int
    world_port: int
    cpu_s: Callable[[], float]

    def take(self, count: int, rate: float = 0.0) -> Lives:
        """So many tasks, as fast as it goes or at a rate."""
        ask(self.world_port, "/figures")
        before, began = self.cpu_s(), time.time()
        load(self.port, create_requests(count), self.pid, rate)
        ms: list[float] = []
        until(lambda: self._hear(ms) >= count, "every task's event is delivered")
        took = time.time() - began
        until(self._is_idle, "every delivery is recorded")
        return Lives(per_s=count / took, cpu_us=(self.cpu_s() - before) / count * 1e6, ms=tuple(ms))

    def _hear(self, ms: list[float]) -> int:
        seen = ask(self.world_port, "/figures")
        if set(seen["statuses"]) - {"200"}:
            raise SystemExit(f"callbacks were answered as they should not be: {seen['statuses']}")
        ms += seen["ms"]
        return len(ms)

    def _is_idle(self) -> bool:
        return not any(ask(self.port, f"/v1/{path}&limit=1")["data"] for path in OPEN)


@contextmanager
def running(server: Server | None = None) -> Iterator[Running]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, world(folder) as world_port:
        env = service_env(port, folder, new_database(server) if server else None) | with_provider(world_port)
        with process(["-m", "service", "serve"], port, "/readyz", folder, env) as pid:
            url = f"http://127.0.0.1:{world_port}/hook"
            ask(port, "/v1/endpoints", {"url": url, "max_in_flight": IN_FLIGHT})
            yield Running(pid=pid, port=port, world_port=world_port, cpu_s=_meter(pid, server))


def _meter(pid: int, server: Server | None) -> Callable[[], float]:
    if server is None:
        return partial(cpu_seconds, pid)
    database = main_process(server)
    return lambda: cpu_seconds(pid) + cpu_seconds_of_all(database)


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    """At full speed; in some rounds then at a tenth of that, and at 100 a second, in the same service."""
    full, slow, few = [], [], []
    for turn in range(plan.rounds):
        with running() as service:
            full.append(_at_full_speed(service, plan))
            if turn < plan.few_rounds:
                slow.append(_paced(service, full[-1][0].per_s / 10, plan))
                few.append(_paced(service, FEW_PER_S, plan))
    return [
        *_costs("end to end, SQLite", full, None, 11.0),
        _latency("callback to subscriber at a tenth, p99", slow, 0.99, 10.0),
        _latency("callback to subscriber at 100/s, p50", few, 0.5, 1.9),
        _latency("callback to subscriber at 100/s, p99", few, 0.99, 3.3),
    ]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    full = []
    for _ in range(plan.few_rounds):
        with running(plan.server) as service:
            full.append(_at_full_speed(service, plan))
    return _costs("end to end, PostgreSQL", full, included="service and database server")


Lived = tuple[Lives, dict[str, float]]
"""And the bare route beside it."""


def _at_full_speed(service: Running, plan: Plan) -> Lived:
    count = plan.of(COUNT)
    return service.take(count), bare(create_requests(count))


def _paced(service: Running, rate: float, plan: Plan) -> tuple[float, ...]:
    """The milliseconds of each."""
    return service.take(max(round(rate * PACED_S * plan.part), 50), rate).ms


def _costs(
    name: str,
    full: Sequence[Lived],
    most_us: float | None = None,
    most_bare: float | None = None,
    included: str = "all threads of the service",
) -> list[Figure]:
    cpu_us, bare_us = tuple(seen.cpu_us for seen, _ in full), tuple(beside["cpu_us"] for _, beside in full)
    speed, bare_speed = tuple(seen.per_s for seen, _ in full), tuple(beside["per_s"] for _, beside in full)
    return [
        Figure(name=f"{name}: tasks", unit="/s", values=speed, yardsticks=bare_speed, cpu_us=cpu_us, bare_us=bare_us),
        Figure(name=f"{name}: processor time a task", unit="us", values=cpu_us, target=most_us, at_most=True),
        Figure(
            name=f"{name}: the same in bare requests",
            unit="us",
            values=cpu_us,
            yardsticks=bare_us,
            target=most_bare,
            at_most=True,
            note=included,
        ),
    ]


def _latency(name: str, seen: Sequence[Sequence[float]], share: float, target: float) -> Figure:
    """Of the milliseconds of each round."""
    values = tuple(sorted(ms)[int(len(ms) * share)] for ms in seen)
    return Figure(name=name, unit="ms", values=values, target=target, at_most=True)
