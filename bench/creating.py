"""Tasks accepted a second at POST /v1/tasks, durable; no worker runs, so that accepting alone counts."""

import tempfile
from collections.abc import Sequence

from bench.calls import bare, create_requests, load, new_database, service_env
from bench.figures import Figure, Pair, Plan, ratio_figure
from bench.processes import free_port, process

COUNT = 2_000


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    found = [_one_round(plan.of(COUNT)) for _ in range(plan.rounds)]
    return [ratio_figure("tasks accepted, SQLite", found, 0.45)]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    found = [_one_round(plan.of(COUNT), new_database(plan.server)) for _ in range(plan.rounds)]
    return [ratio_figure("tasks accepted, PostgreSQL", found, 0.5, "the server shares its core with the load")]


def _one_round(count: int, database_url: str | None = None) -> Pair:
    port, requests = free_port(), create_requests(count)
    with tempfile.TemporaryDirectory() as folder:
        env = service_env(port, folder, database_url)
        with process(["-m", "service", "web"], port, "/readyz", folder, env) as pid:
            seen = load(port, requests, pid)
    return seen, bare(requests)
