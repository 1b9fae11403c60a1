"""What this design costs at the least: the prototype without the features, at the loads of the service.

What it does not reach is out of reach for the service, too; what it leaves of a target is there for the features.
"""

from collections.abc import Sequence

from bench import callbacks, creating, deliveries
from bench.calls import PROTOTYPE, new_database
from bench.end_to_end import FEW_PER_S, WARM, at_full_speed, costs, latency, paced, running
from bench.figures import Figure, Plan, ratio_figure
from tests.support.postgres import Server


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    delivered = deliveries.rounds(plan.of(deliveries.COUNT), plan.rounds, PROTOTYPE)
    full = at_full_speed(plan, plan.rounds, program=PROTOTYPE)
    few = []
    for _ in range(plan.rounds):
        with running(program=PROTOTYPE) as prototype:
            prototype.take(WARM)
            few.append(paced(prototype, FEW_PER_S, plan))
    return [
        *_requests(plan, "SQLite", None, "the same libraries, rows and syncs, without the features"),
        ratio_figure("prototype: deliveries", delivered),
        *costs("prototype: end to end", full),
        latency("prototype: callback to subscriber at 100/s, p50", few, 0.5),
        latency("prototype: callback to subscriber at 100/s, p99", few, 0.99),
    ]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    return _requests(plan, "PostgreSQL", plan.server, "the server shares its core with the load")


def _requests(plan: Plan, database: str, server: Server | None, note: str) -> list[Figure]:
    found = []
    for name, load in (("callbacks", callbacks), ("tasks accepted", creating)):
        urls = [new_database(server) if server else None for _ in range(plan.rounds)]
        pairs = [load.one_round(plan.of(load.COUNT), url, PROTOTYPE) for url in urls]
        found.append(ratio_figure(f"prototype: {name}, {database}", pairs, note=note))
    return found
