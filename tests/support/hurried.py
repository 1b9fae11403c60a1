"""`python -m tests.support.hurried COMMAND` is `taskhook COMMAND` with leases and rests that no user should have."""

import json
import os
from importlib import import_module

from service import wiring
from service.cli import main
from service.core import breaker
from service.core.schedule import Policy
from service.worker import deliveries, tasks


def hurry(lease_s: float) -> None:
    """The order among them stays: a process gives up what it did not start long before others may take it."""

    def build_policy(**given: object) -> Policy:
        return Policy(**{**given, "submit_lease_s": lease_s, "poll_lease_s": lease_s})  # type: ignore[arg-type]

    wiring.Policy = build_policy  # type: ignore[assignment, misc]
    deliveries.LEASE_S = lease_s
    tasks.FROZEN_S = lease_s / 2
    breaker.REST_FIRST_S = lease_s / 2


def set_times(times: dict[str, float]) -> None:
    """Constants of the service by their dotted names, for what a test would otherwise sit out."""
    for name, value in times.items():
        module, _, constant = name.rpartition(".")
        assert isinstance(getattr(import_module(module), constant), int | float), name
        setattr(import_module(module), constant, value)


if __name__ == "__main__":
    if lease_s := os.environ.get("HURRIED_LEASE_S"):
        hurry(float(lease_s))
    set_times(json.loads(os.environ.get("HURRIED_TIMES", "{}")))
    main()
