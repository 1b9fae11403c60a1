"""What this design costs at the least: the prototype without the features, at the loads of the service.

What it does not reach is out of reach for the service, too; what it leaves of a target is there for the features.
"""

from collections.abc import Sequence

from bench import callbacks, creating, deliveries
from bench.calls import PROTOTYPE
from bench.end_to_end import FEW_PER_S, WARM, at_full_speed, costs, latency, paced, running
from bench.figures import Figure, Plan, ratio_figure


def of_the_prototype(plan: Plan) -> Sequence[Figure]:
    called = [callbacks.one_round(plan.of(callbacks.COUNT), program=PROTOTYPE) for _ in range(plan.rounds)]
    created = [creating.one_round(plan.of(creating.COUNT), program=PROTOTYPE) for _ in range(plan.rounds)]
    delivered = deliveries.rounds(plan.of(deliveries.COUNT), plan.rounds, PROTOTYPE)
    full = at_full_speed(plan, plan.rounds, program=PROTOTYPE)
    few = []
    for _ in range(plan.rounds):
        with running(program=PROTOTYPE) as prototype:
            prototype.take(WARM)
            few.append(paced(prototype, FEW_PER_S, plan))
    return [
        ratio_figure("prototype: callbacks", called, note="the same libraries, rows and syncs, without the features"),
        ratio_figure("prototype: tasks accepted", created),
        ratio_figure("prototype: deliveries", delivered),
        *costs("prototype: end to end", full),
        latency("prototype: callback to subscriber at 100/s, p50", few, 0.5),
        latency("prototype: callback to subscriber at 100/s, p99", few, 0.99),
    ]
