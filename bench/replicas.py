"""Two replicas of web and worker beside one, on PostgreSQL: as measured here, and as it is with a core for each."""

from collections.abc import Sequence

from bench.calls import new_database
from bench.figures import Figure, Plan
from bench.processes import CORES
from bench.sizing import Figures, measure

COUNT = 600
"""Short turns: what else goes on is then the same for one and for two."""
TARGET = 1.8
KINDS = {"web": "tasks accepted", "worker": "tasks submitted and delivered"}


def on_postgres(plan: Plan) -> Sequence[Figure]:
    if plan.server is None:
        return []
    found = measure(new_database(plan.server), plan.rounds, plan.of(COUNT))
    return [figure for kind, what in KINDS.items() for figure in _figures(kind, what, found)]


def _figures(kind: str, what: str, found: list[tuple[Figures, Figures]]) -> list[Figure]:
    """Return what was measured, and what the CPU time of a task allows if each replica has its own core."""
    one, two = ([one for one, _ in found], [two for _, two in found])
    here = f"on {len(CORES)} cores, which run the database, provider and load as well"
    return [
        Figure(
            name=f"two {kind} replicas: {what}",
            unit="/s",
            values=tuple(figures[f"{kind} per s"] for figures in two),
            yardsticks=tuple(figures[f"{kind} per s"] for figures in one),
            note=here,
        ),
        Figure(
            name=f"two {kind} replicas: of a core each",
            unit="/s",
            values=tuple(2e6 / figures[f"{kind} cpu us"] for figures in two),
            yardsticks=tuple(1e6 / figures[f"{kind} cpu us"] for figures in one),
            target=TARGET,
            note="from the processor time of a task: what they reach if each has a core to itself",
        ),
    ]
