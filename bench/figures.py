"""Figures of a benchmark, each with its yardstick of the same round and its target."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tests.support.postgres import Server


class Figure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the table, one value per round. With a yardstick, the target is for the ratio to it."""

    name: str
    unit: str
    values: tuple[float, ...]
    yardsticks: tuple[float, ...] = ()
    target: float | None = None
    at_most: bool = False
    cpu_us: tuple[float, ...] = ()
    bare_us: tuple[float, ...] = ()
    """Processor time of one thing done, all threads of the service; and of one bare request in the same round."""
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(value / beside for value, beside in zip(self.values, self.yardsticks, strict=False))

    @property
    def judged(self) -> tuple[float, ...]:
        return self.ratios or self.values

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        middle = statistics.median(self.judged)
        return middle <= self.target if self.at_most else middle >= self.target

    @property
    def bare_requests(self) -> float | None:
        """The processor time in bare requests, which travels from one machine to another."""
        if not self.cpu_us or not self.bare_us:
            return None
        return statistics.median(cpu / bare for cpu, bare in zip(self.cpu_us, self.bare_us, strict=False))


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The plan of a benchmark: how much to measure, and where."""

    rounds: int
    part: float
    """Of the usual counts; small for a try."""
    stored: int
    """So many tasks are in the large store."""
    server: Server | None

    def of(self, count: int) -> int:
        return max(round(count * self.part), 64)

    @property
    def few_rounds(self) -> int:
        """Of what takes long."""
        return min(self.rounds, 3)


Pair = tuple[dict[str, Any], dict[str, Any]]
"""What the load generator saw of the service, and of the bare route with the same requests."""
Load = Callable[[Plan], Sequence[Figure]]


def ratio_figure(name: str, found: Sequence[Pair], target: float | None = None, note: str = "") -> Figure:
    """Of pairs of a figure and its yardstick, as the load generator tells them."""
    return Figure(
        name=name,
        unit="/s",
        values=tuple(seen["per_s"] for seen, _ in found),
        yardsticks=tuple(beside["per_s"] for _, beside in found),
        target=target,
        cpu_us=tuple(seen["cpu_us"] for seen, _ in found),
        bare_us=tuple(beside["cpu_us"] for _, beside in found),
        note=note,
    )
