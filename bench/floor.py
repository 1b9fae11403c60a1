"""What this design costs at the least: the prototype without the features, at the loads of the service.

What it does not reach is out of reach for the service, too; what it leaves of a target is there for the features.
"""

from collections.abc import Sequence

from msgspec.structs import replace

from bench import callbacks, creating, deliveries, end_to_end
from bench.calls import PROTOTYPE
from bench.figures import Figure, Plan


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    loads = (callbacks.on_sqlite, creating.on_sqlite, deliveries.to_one_endpoint, end_to_end.on_sqlite)
    return [_told(figure) for load in loads for figure in load(plan, PROTOTYPE)]


def on_postgres(plan: Plan) -> Sequence[Figure]:
    loads = (callbacks.on_postgres, creating.on_postgres, end_to_end.on_postgres)
    return [_told(figure) for load in loads for figure in load(plan, PROTOTYPE)]


def _told(figure: Figure) -> Figure:
    """It has no targets of its own."""
    return replace(figure, name=f"prototype: {figure.name}", target=None)
