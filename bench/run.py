"""Runs the benchmarks, service and yardstick in turn, prints a table, and renews the figures of docs/performance.md.

python -m bench.run [--rounds 5] [--quick] [--scale 200000] [--only NAME ...] [--json FILE]
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bench import (
    arrival,
    callbacks,
    creating,
    deliveries,
    end_to_end,
    headroom,
    memory,
    replicas,
    report,
    stored,
    waiting,
)
from bench.calls import postgres
from bench.figures import Figure, Load, Plan
from bench.processes import ELSE, may_open_many_files

LOADS: dict[str, Load] = {
    "headroom": headroom.tools,
    "callbacks-sqlite": callbacks.on_sqlite,
    "callbacks-postgresql": callbacks.on_postgres,
    "tasks-sqlite": creating.on_sqlite,
    "tasks-postgresql": creating.on_postgres,
    "deliveries": deliveries.to_one_endpoint,
    "end-to-end-sqlite": end_to_end.on_sqlite,
    "end-to-end-postgresql": end_to_end.on_postgres,
    "arrival-sqlite": arrival.on_sqlite,
    "arrival-postgresql": arrival.on_postgres,
    "arrival-stored": arrival.on_large_stores,
    "memory-open": memory.open_work,
    "memory-finished": memory.finished_work,
    "stored": stored.on_sqlite,
    "stream": waiting.stream,
    "polls": waiting.polls,
    "polls-postgresql": waiting.polls_on_postgres,
    "replicas": replicas.on_postgres,
}
BY_NAME = ("polls-postgresql", "arrival-stored")
"""Loads that run only when named, so that the others end within some minutes."""
QUICK = 0.1
STORED = 200_000


def chosen(names: Sequence[str]) -> dict[str, Load]:
    """Return the loads whose names begin so."""
    if not names:
        return {name: load for name, load in LOADS.items() if name not in BY_NAME}
    return {name: load for name, load in LOADS.items() if name.startswith(tuple(names))}


def measure(loads: dict[str, Load], plan: Plan) -> Iterator[tuple[str, list[Figure]]]:
    """Each load's name and figures, when it is done."""
    print(report.HEAD, flush=True)
    for name, load in loads.items():
        began = time.monotonic()
        figures = list(load(plan))
        print("\n".join(report.line(figure) for figure in figures), flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        yield f"{name}-{plan.stored}" if name == "stored" else name, figures


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of a tenth: to try it; renews no document")
    parser.add_argument("--scale", type=int, default=STORED, help="how many tasks are stored in the large store")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=", ".join(LOADS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    if not chosen(given.only):
        parser.error(f"--only takes beginnings of these names: {', '.join(LOADS)}")
    return given


def main() -> None:
    given = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("broken off"))  # so that what was started is ended
    may_open_many_files()
    os.sched_setaffinity(0, ELSE)
    part, rounds = (QUICK, 1) if given.quick else (1.0, given.rounds)
    found: dict[str, list[Figure]] = {}
    try:
        with postgres() as server:
            plan = Plan(rounds=rounds, part=part, stored=max(round(given.scale * part), 2_000), server=server)
            for name, figures in measure(chosen(given.only), plan):
                found[name] = figures
    finally:  # a run that is broken off has measured something all the same
        if given.json:
            given.json.write_bytes(msgspec.json.encode(found))
        if found and not given.quick:
            report.renew(found, list(LOADS))


if __name__ == "__main__":
    main()
