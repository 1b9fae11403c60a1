"""Long chaos: `make chaos`, or `python -m tests.chaos --rounds 20 --seed 7 --faults 0.01 --disk --clock`."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.faults import Clock
from tests.chaos.rounds import Figures, Plan, Round


async def run(options: argparse.Namespace) -> Figures:
    total, on_replicas = Figures(), options.on == "replicas"
    dice = random.Random(options.seed)
    for number in range(1, options.rounds + 1):
        plan = Plan(
            seed=dice.randrange(1 << 32),
            tasks=options.tasks,
            kills=options.kills,
            fault_share=options.faults,
            disk=options.disk and number % 2 == 0 and not on_replicas,
            clock=options.clock and number % 3 == 0 and not on_replicas,
            on_replicas=on_replicas,
            waits_for_deliveries=True,
        )
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            figures = await Round(plan, Path(folder)).run()
        total.add(figures)
        print(f"round {number} ({plan}): {figures}", flush=True)
        for fault in figures.faults:
            print(f"  {fault}", flush=True)
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument(
        "--on", choices=["one", "replicas"], default="one", help="one process on SQLite, or four on PostgreSQL"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--tasks", type=int, default=400, help="in each round")
    parser.add_argument("--kills", type=int, default=8, help="in each round")
    parser.add_argument("--faults", type=float, default=0.01, help="the share of exchanges that break")
    parser.add_argument("--disk", action=argparse.BooleanOptionalAction, default=True, help="fill it (root alone)")
    parser.add_argument(
        "--clock", action=argparse.BooleanOptionalAction, default=Clock.is_possible(), help="(needs cc)"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    total = asyncio.run(run(options))
    print(f"seed {options.seed}: {total}")
    return 1 if total.faults else 0


if __name__ == "__main__":
    sys.exit(main())
