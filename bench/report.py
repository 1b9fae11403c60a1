"""How figures are shown: lines on a terminal, a table in docs/performance.md; kept, so that one load can be renewed."""

import os
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from bench.figures import Figure
from bench.processes import CORES, ROOT
from service.wiring import RealEnv
from tests.support.postgres import find_binaries

KEPT = ROOT / "bench" / "figures.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
WIDTHS = (70, 12, 11, 9, 9, 9, 9, 9, 9, 9)
COLUMNS = ("figure", "measured", "yardstick", "ratio", "least", "most", "target", "", "CPU us", "in bare")
HEAD = "".join(f"{name:{'<' if at == 0 else '>'}{WIDTHS[at]}}" for at, name in enumerate(COLUMNS))
TABLE = ("figure", "measured", "yardstick", "median", "least to most", "target", "reached", "CPU, in bare requests", "")


class Kept(msgspec.Struct, kw_only=True):
    """The last measured figures, by load, and the machine."""

    machine: str
    loads: dict[str, list[Figure]]


def line(figure: Figure) -> str:
    judged = figure.judged
    cells = (
        figure.name,
        f"{_number(statistics.median(figure.values))} {figure.unit}".rstrip(),
        _middle(figure.yardsticks),
        _number(statistics.median(judged)),
        _number(min(judged)),
        _number(max(judged)),
        _target(figure, "<= ", ">= "),
        {True: "reached", False: "not yet", None: ""}[figure.met],
        _middle(figure.cpu_us),
        _number(figure.bare_requests),
    )
    padded = (f"{cell:{'<' if at == 0 else '>'}{WIDTHS[at]}}" for at, cell in enumerate(cells))
    return f"{''.join(padded)}  {figure.note}".rstrip()


def _row(figure: Figure) -> str:
    judged = figure.judged
    cells = (
        figure.name,
        f"{_number(statistics.median(figure.values))} {figure.unit}".rstrip(),
        _middle(figure.yardsticks),
        _number(statistics.median(judged)) if figure.yardsticks else "",
        f"{_number(min(judged))} to {_number(max(judged))}" if len(judged) > 1 else "",
        _target(figure, "at most ", "at least "),
        {True: "yes", False: "not yet", None: ""}[figure.met],
        _number(figure.bare_requests),
        figure.note,
    )
    return f"| {' | '.join(cells)} |"


def _middle(values: Sequence[float]) -> str:
    return _number(statistics.median(values)) if values else ""


def _number(value: float | None) -> str:
    """Three digits, or the whole number."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _target(figure: Figure, most: str, least: str) -> str:
    return "" if figure.target is None else f"{most if figure.at_most else least}{figure.target:g}"


def renew(found: Mapping[str, list[Figure]], order: Sequence[str]) -> None:
    """The loads that were measured replace what they had found before."""
    from bench.plot import draw  # noqa: PLC0415 - takes a second to load, and only the picture needs it

    before = msgspec.json.decode(KEPT.read_bytes(), type=Kept).loads if KEPT.exists() else {}
    loads = ordered({**before, **found}, order)
    kept = Kept(machine=describe_machine(), loads=loads)
    KEPT.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
    draw(loads, PICTURE)
    head, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{render(kept)}\n{END}{rest.partition(END)[2]}")


def ordered(loads: Mapping[str, list[Figure]], order: Sequence[str]) -> dict[str, list[Figure]]:
    """As the loads are measured, each in front of its variants; what is measured no more falls away."""
    keys = sorted(loads, key=lambda key: f"{key:>30}")
    return {key: loads[key] for name in order for key in keys if _is(key, name)}


def _is(key: str, name: str) -> bool:
    return key.rstrip("-0123456789") == name


def render(kept: Kept) -> str:
    rows = [_row(figure) for figures in kept.loads.values() for figure in figures]
    heads = [f"| {' | '.join(TABLE)} |", f"|{'---|' * len(TABLE)}"]
    return "\n".join([kept.machine, "", *heads, *rows])


def describe_machine() -> str:
    model = next(
        (text.partition(":")[2].strip() for text in _lines("/proc/cpuinfo") if text.startswith("model name")),
        platform.machine(),
    )
    memory = next(int(text.split()[1]) for text in _lines("/proc/meminfo") if text.startswith("MemTotal"))
    return (
        f"Measured on {RealEnv().now():%Y-%m-%d}: {len(CORES)} cores ({model}), {memory / 2**20:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, {_postgres()}; load average of the quarter of an hour until then: "
        f"{os.getloadavg()[2]:.1f} (with no other work than the benchmark it is about 2)."
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _postgres() -> str:
    binaries = find_binaries()
    if binaries is None:
        return "no PostgreSQL"
    told = subprocess.run([binaries / "postgres", "--version"], capture_output=True, check=True, text=True).stdout
    return f"PostgreSQL {told.split()[2]}"
