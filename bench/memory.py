"""Memory with much that is open, and with much that is finished."""

import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from bench.calls import ask, service_env, world
from bench.figures import Figure, Plan
from bench.processes import free_port, process, resident_mib, until
from bench.stock import Stock

OPEN = FINISHED = 100_000
CLAIMED = 2_000
SETTLED_S = 2.0


def open_work(plan: Plan) -> Sequence[Figure]:
    """Running tasks and waiting deliveries; then some of the deliveries become due and are sent."""
    count = plan.of(OPEN)
    with tempfile.TemporaryDirectory() as folder, world(folder) as world_port:
        Stock(f"sqlite:///{folder}/taskhook.db", endpoint_url=f"http://127.0.0.1:{world_port}/hook").fill(
            running=count, waiting=count
        )
        with _started(folder, world_port) as (pid, _):
            at_rest = resident_mib(pid)
            _make_some_due(f"{folder}/taskhook.db")
            hooks = 0

            def all_came() -> bool:
                nonlocal hooks
                hooks += ask(world_port, "/figures")["hooks"]
                return hooks >= min(CLAIMED, count)

            until(all_came, "what is due is delivered")
            worked = resident_mib(pid)
    names = f"{count:,} running tasks and {count:,} waiting deliveries", f"the same after {CLAIMED:,} deliveries"
    return [
        Figure(name=f"memory, {name}", unit="MiB", values=(found,), target=150.0, at_most=True)
        for name, found in zip(names, (at_rest, worked), strict=True)
    ]


def finished_work(plan: Plan) -> Sequence[Figure]:
    """Without a task, and with many that have ended."""
    values = []
    for count in (0, plan.of(FINISHED)):
        with tempfile.TemporaryDirectory() as folder:
            Stock(f"sqlite:///{folder}/taskhook.db").fill(finished=count)
            with _started(folder, 9) as (pid, port):
                ask(port, "/v1/tasks?limit=100")
                values.append(resident_mib(pid))
    return [
        Figure(
            name=f"memory, {plan.of(FINISHED):,} finished tasks",
            unit="MiB",
            values=(values[1],),
            yardsticks=(values[0],),
            target=1.1,
            at_most=True,
            note="yardstick: no task",
        )
    ]


@contextmanager
def _started(folder: str, world_port: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    env = {**service_env(port, folder), "TASKHOOK_FLUXAPI_AI_BASE_URL": f"http://127.0.0.1:{world_port}"}
    with process(["-m", "service", "serve"], port, "/readyz", folder, env) as pid:
        time.sleep(SETTLED_S)
        yield pid, port


def _make_some_due(path: str) -> None:
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(
            "update deliveries set due_ms = 0 where id in (select id from deliveries where due_ms > 0 limit ?)",
            (CLAIMED,),
        )
