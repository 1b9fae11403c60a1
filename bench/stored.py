"""Cost of the store's operations with many tasks, as a short table of `bench.scale`."""

import argparse
import asyncio
import tempfile
from collections.abc import Sequence

from bench import scale
from bench.figures import Figure, Plan

WAITING = 100_000
"""So many of the tasks wait, and so many deliveries are due, or half of them all where there are fewer."""
GROUPS = {
    "claim of due submits": ("claim 20 due submits",),
    "claim of due deliveries": ("claim 20 due deliveries",),
    "poll round": ("claim 20 due polls",),
    "listing": ("tasks", "events", "deliveries"),
    "task with its timeline": ("a task with its timeline",),
    "cleanup": ("retention",),
}
"""By the beginnings of the names of the operations in them."""
ROUNDS = 15
"""They are short, and the worst of many operations is taken: a median of few would tell of noise alone."""
READY_MS = 1_000.0
START = "start until ready"


def on_sqlite(plan: Plan) -> Sequence[Figure]:
    part = min(WAITING / plan.stored, 0.5)
    given = argparse.Namespace(tasks=plan.stored, waiting=part, due=part, stale=False, rounds=ROUNDS, only="")
    with tempfile.TemporaryDirectory(prefix="taskhook-stored-") as folder:
        urls = (f"sqlite:///{folder}/small.db", f"sqlite:///{folder}/large.db")
        found = asyncio.run(scale.measure(urls, given))
    start = next(figure for figure in found if figure.name == START)
    return [*(_worst(title, names, found, plan) for title, names in GROUPS.items()), _ready(start, plan)]


def _worst(title: str, names: tuple[str, ...], found: list[scale.Figure], plan: Plan) -> Figure:
    """Of a group, the operation that grows most."""
    group = [figure for figure in found if figure.name.startswith(names)]
    worst = max(group, key=lambda figure: figure.ratio)
    return Figure(
        name=f"{plan.stored:,} stored tasks: {title}",
        unit="ms",
        values=(worst.large_ms,),
        yardsticks=(worst.small_ms,),
        target=scale.TARGET,
        at_most=True,
        note=f"the worst of {len(group)}: {worst.name}" if len(group) > 1 else "",
    )


def _ready(start: scale.Figure, plan: Plan) -> Figure:
    return Figure(
        name=f"{plan.stored:,} stored tasks: {START}",
        unit="ms",
        values=(start.large_ms,),
        target=READY_MS,
        at_most=True,
        note=f"with 1,000: {start.small_ms:.0f}",
    )
