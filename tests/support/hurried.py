"""`python -m tests.support.hurried COMMAND` is `taskhook COMMAND` with short leases, which no user should set."""

import os

from service import wiring
from service.cli import main
from service.core.schedule import Policy
from service.worker import deliveries, tasks


def hurry(lease_s: float) -> None:
    """The order among them stays: a process gives up what it did not start long before others may take it."""

    def build_policy(**given: object) -> Policy:
        return Policy(**{**given, "submit_lease_s": lease_s, "poll_lease_s": lease_s})  # type: ignore[arg-type]

    wiring.Policy = build_policy  # type: ignore[assignment, misc]
    deliveries.LEASE_S = lease_s
    tasks.FROZEN_S = lease_s / 2


if __name__ == "__main__":
    hurry(float(os.environ["HURRIED_LEASE_S"]))
    main()
