"""How graded findings look: a line each, and below it what to know and do where it is not well."""

from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.cli.terminal import clean

_LOOKS = {
    "pass": ("✓", "green"),
    "ok": ("✓", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✗", "red"),
    "skip": ("·", "dim"),
    "skipped": ("·", "dim"),
}
_WORD_WIDTH = 7
_NAME_WIDTH = 23


def print_graded(console: Console, grade: str, name: str, said: str, notes: Iterable[tuple[str, str]] = ()) -> None:
    """`notes` are labelled sentences; empty ones are left out."""
    sign, style = _LOOKS[grade]
    line = Table.grid(padding=(0, 1))
    line.add_column(width=_WORD_WIDTH + 2, no_wrap=True)
    line.add_column(width=_NAME_WIDTH, no_wrap=True)
    line.add_column(overflow="fold")
    line.add_row(Text(f"{sign} {grade}", style=style), Text(name), Text(clean(said), style="dim" * (grade == "skip")))
    _print(console, line, f"{grade}\t{name}\t{clean(said)}")
    for label, text in notes:
        if text:
            _print_note(console, label, clean(text))


def _print_note(console: Console, label: str, text: str) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8, style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, Text(text))
    _print(console, Padding(grid, (0, 0, 0, _WORD_WIDTH + 3)), f"\t{label}\t{text}")


def _print(console: Console, drawn: Table | Padding, plain: str) -> None:
    """Boxes on a terminal, whole lines with tabs elsewhere."""
    if console.is_terminal:
        console.print(drawn)
    else:
        click.echo(plain)


def print_summary(console: Console, grades: Sequence[str], words: dict[str, str]) -> None:
    counts = [f"{grades.count(grade)} {word}" for grade, word in words.items() if grade in grades]
    worst = next((grade for grade in ("fail", "warn") if grade in grades), next(iter(words)))
    console.print(Text(f"\n{words[worst]}: ", style=f"bold {_LOOKS[worst][1]}") + Text(", ".join(counts)))
