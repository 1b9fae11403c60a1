"""What a callback costs, step by step: how far from a bare route one is when parts of the work fall away."""

import tempfile
from collections.abc import Sequence
from typing import Any

from bench.calls import bare, load, probes, service_env
from bench.figures import Figure, Plan
from bench.processes import free_port, process
from bench.stock import awaited_callbacks

COUNT = 4_000
STEPS = {
    "an answer without work": "/healthz: connection, limits, id, headers, metrics and nothing else",
    "a duplicate callback": "also: token, body, reading it, task and timeline in a transaction, a line in the log",
    "a callback": "also: the task's new state, its event, a delivery, another line",
}


def of_a_callback(plan: Plan) -> Sequence[Figure]:
    found = [_one_round(plan.of(COUNT)) for _ in range(plan.few_rounds)]
    return [_figure(name, [one[name] for one in found], [one["bare"] for one in found]) for name in STEPS]


def _one_round(count: int) -> dict[str, Any]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = service_env(port, folder)
        callbacks = awaited_callbacks(env["TASKHOOK_DATABASE_URL"], count)
        with process(["-m", "service", "web"], port, "/readyz", folder, env) as pid:
            asked = {
                "an answer without work": probes(count),
                "a callback": callbacks,
                "a duplicate callback": callbacks,
            }
            return {name: load(port, requests, pid) for name, requests in asked.items()} | {"bare": bare(callbacks)}


def _figure(name: str, seen: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> Figure:
    cpu_us, bare_us = tuple(one["cpu_us"] for one in seen), tuple(one["cpu_us"] for one in beside)
    return Figure(
        name=f"step by step, SQLite: {name}",
        unit="us",
        values=cpu_us,
        yardsticks=bare_us,
        cpu_us=cpu_us,
        bare_us=bare_us,
        note=STEPS[name],
    )
