"""`python -m tests.support.timed COMMAND` is `taskhook COMMAND` with the timings and the clock of a test."""

import os
import sys
from pathlib import Path

import msgspec

from service.app import run
from service.cli.root import load_settings
from service.wiring import Timings
from tests.support.clock import Clock, MovedEnv


def main(command: str) -> int:
    timings = msgspec.json.decode(os.environ.pop("TEST_TIMINGS", "{}"), type=Timings)
    env = MovedEnv(Clock(Path(os.environ.pop("TEST_CLOCK"))))
    settings = load_settings(dev=command == "dev")
    return run(
        settings, web=command != "worker", worker=command != "web", dev=command == "dev", timings=timings, env=env
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
