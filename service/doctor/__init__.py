"""Examines an installation from the machine it runs on: settings, database, network, this machine itself."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path

from service.doctor import configuration, database, machine, network
from service.doctor.finding import Finding, Grade
from service.settings import Settings

__all__ = ["Finding", "Grade", "examine", "examine_without_settings"]


def examine(settings: Settings, dotenv: Path, now: Callable[[], datetime]) -> Iterator[Finding]:
    """Each finding as soon as it is made. Nothing is changed, and nothing is called that could cost credits."""
    clocks: list[network.Clock] = []
    yield from configuration.check_settings(settings)
    yield configuration.check_file(dotenv)
    yield from configuration.check_kept_keys(dotenv.parent / "var" / "dev.json")
    yield from machine.check_machine()
    yield from _checked_database(settings, clocks, now)
    yield from network.check_network(settings, clocks, now)
    yield network.judge_clocks(clocks)


def examine_without_settings(problem: str, dotenv: Path) -> Iterable[Finding]:
    """Settings that can't be read leave little to look at."""
    broken = Finding(check="settings", grade="fail", says=problem, advice="docs/settings.md names them all.")
    return chain([broken, configuration.check_file(dotenv)], machine.check_machine())


def _checked_database(
    settings: Settings, clocks: list[network.Clock], now: Callable[[], datetime]
) -> Iterable[Finding]:
    if settings.database_url.startswith("sqlite:///"):
        return database.check_sqlite(Path(settings.database_url.removeprefix("sqlite:///")))
    findings, clock = asyncio.run(database.check_postgres(settings.database_url, now))
    clocks.extend([clock] if clock else [])
    return findings
