"""Callbacks a second: verified, matched, stored with event and deliveries, durable before the 200.

An endpoint has subscribed; no worker runs, so that taking callbacks alone counts.
"""

import tempfile
from collections.abc import Sequence

from bench.calls import bare, load, new_database, service_env
from bench.figures import Figure, Pair, Plan, ratio_figure
from bench.processes import free_port, process
from bench.stock import awaited_callbacks

COUNT = 2_000


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    found = [_one_round(plan.of(COUNT)) for _ in range(plan.rounds)]
    return [ratio_figure("callbacks, SQLite", found, 0.33)]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    found = [_one_round(plan.of(COUNT), new_database(plan.server)) for _ in range(plan.rounds)]
    return [ratio_figure("callbacks, PostgreSQL", found, 0.45, "the server shares its core with the load")]


def _one_round(count: int, database_url: str | None = None) -> Pair:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = service_env(port, folder, database_url)
        requests = awaited_callbacks(env["TASKHOOK_DATABASE_URL"], count)
        with process(["-m", "service", "web"], port, "/readyz", folder, env) as pid:
            seen = load(port, requests, pid)
    return seen, bare(requests)
