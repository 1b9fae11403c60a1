"""`taskhook migrate`: the schema of the database, and the move of all that is stored to another database."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from service.cli.root import EXIT_FAILED, EXIT_USAGE, Failure, load_settings, no_traceback

if TYPE_CHECKING:
    from service.store.move import Progress, Tell


def read_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if not value:
        return None
    from service.settings import database_url  # noqa: PLC0415 - client commands start without the service

    try:
        return database_url(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command()
@click.option("--check", is_flag=True, help="Only say what would be applied.")
@click.option("--from", "source", metavar="URL", callback=read_url, help="Move all that is stored here ...")
@click.option("--to", "target", metavar="URL", callback=read_url, help="... to here.  [env: TASKHOOK_DATABASE_URL]")
def migrate(check: bool, source: str | None, target: str | None) -> None:
    """Bring the database up to date, or move what is stored to another one.

    `--from sqlite:///var/taskhook.db` copies everything into the empty database of the settings, or of --to, compares
    both row by row, and leaves the source as it was. Stop the service first. Killed, it can be started again.

    \b
    Exit codes:
      0    up to date; moved
      1    with --check: something is pending; else: it failed, nothing was changed
      2    wrong usage or settings
    """
    if (target and not source) or (check and source):
        raise Failure("--to needs --from, and --check goes without both.", EXIT_USAGE)
    with no_traceback():
        if source:
            move(source, target or load_settings().database_url)
        elif check:
            show_pending()
        else:
            apply()


def apply() -> None:
    from service.app import migrate as migrate_database  # noqa: PLC0415 - as above

    applied = migrate_database(load_settings())
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("The database is up to date.")


def show_pending() -> None:
    from service.app import pending  # noqa: PLC0415 - as above

    names = pending(load_settings())
    for name in names:
        click.echo(f"pending {name}")
    if names:
        raise click.exceptions.Exit(EXIT_FAILED)
    click.echo("The database is up to date.")


def move(source: str, target: str) -> None:
    from service.app import move as move_store  # noqa: PLC0415 - as above

    if source == target:
        raise Failure("Source and target are the same database.", EXIT_USAGE)
    with bars() if sys.stderr.isatty() else lines() as tell:
        moved = move_store(source, target, tell)
    click.echo(f"{sum(table.total for table in moved)} rows moved and compared. Set TASKHOOK_DATABASE_URL and start.")


@contextmanager
def lines() -> Iterator["Tell"]:
    def tell(progress: "Progress") -> None:
        if progress.total == progress.compared:
            click.echo(f"{progress.table}: {progress.total} rows")

    yield tell


@contextmanager
def bars() -> Iterator["Tell"]:
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown: dict[str, TaskID] = {}
    with Bars(*columns, console=Console(stderr=True)) as made:

        def tell(progress: "Progress") -> None:
            if progress.table not in shown:
                shown[progress.table] = made.add_task(progress.table, total=2 * progress.total)
            made.update(shown[progress.table], completed=progress.copied + progress.compared)

        yield tell
