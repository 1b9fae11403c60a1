"""The root of the command line, and the commands that start the service: sooner without those of its users."""

import codecs
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from service.settings import Settings

SECTIONS = {
    "Run it": ("dev", "serve", "web", "worker", "migrate", "backup", "config", "doctor", "keys"),
    "Use it": ("submit", "tasks", "show", "watch"),
    "Build with it": ("listen", "replay", "check-receiver"),
    "Other": ("completion",),
}
EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_TIME_OVER, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


class Failure(click.ClickException):
    """An error of a command: what is wrong and what to do, without a traceback."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance as well

    def show(self, file: Any = None) -> None:
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {self.message}", err=True, file=file)


class Commands(click.Group):
    """Commands in sections. All but those that start the service are looked for only when one is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except UnicodeEncodeError as error:  # a byte of the command line or the environment that is no UTF-8
            raise Failure("An argument or a setting has bytes that are not UTF-8.", EXIT_USAGE) from error

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            import_module("service.cli.commands")
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        import_module("service.cli.commands")
        return super().list_commands(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.list_commands(ctx)))
        for section, names in SECTIONS.items():
            with formatter.section(section):
                rows = [(name.ljust(width), self.commands[name].get_short_help_str(90)) for name in names]
                formatter.write_dl(rows)


def load_settings(*, dev: bool = False, host: str | None = None, port: int | None = None) -> "Settings":
    from service.environment import SettingsError  # noqa: PLC0415 - as below
    from service.settings import load  # noqa: PLC0415 - as below

    given = {"TASKHOOK_HOST": host, "TASKHOOK_PORT": None if port is None else str(port)}
    environ = {**os.environ, **{name: value for name, value in given.items() if value is not None}}
    try:
        return load(environ, dev=dev)
    except SettingsError as error:
        raise Failure(str(error), EXIT_USAGE) from error


@contextmanager
def no_traceback() -> Iterator[None]:
    """Report a database that can't be used in one line, without a traceback."""
    from service.core.problems import Unavailable  # noqa: PLC0415 - as above

    try:
        yield
    except Unavailable as problem:
        raise Failure(f"{problem.detail} ({problem.cause})", EXIT_FAILED) from problem


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="taskhook", prog_name="taskhook")
def cli() -> None:
    """Taskhook: one place for the callbacks of asynchronous image-generation APIs.

    Start with `taskhook dev`, then in a second terminal:

    \b
      taskhook submit flux-kontext-pro "a lighthouse at dusk" --save out
    """


def main() -> None:
    _tolerate_any_terminal()
    cli(prog_name="taskhook")


class _AsciiStream(io.TextIOWrapper):
    """click writes UTF-8 to a stream whose encoding it knows as ASCII."""

    encoding = "ascii-with-replacements"


def _tolerate_any_terminal() -> None:
    """Replace characters that the terminal does not have, and bytes that it can't decode."""
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a stream that was exchanged below Python's feet
                stream.reconfigure(errors="replace")
            if name != "stdin" and codecs.lookup(stream.encoding).name == "ascii":
                buffering = stream.line_buffering
                setattr(sys, name, _AsciiStream(stream.detach(), "ascii", "replace", line_buffering=buffering))


def listens(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option("--port", type=click.IntRange(0, 65535), help="Overrides TASKHOOK_PORT.")(command)
    return click.option("--host", help="Overrides TASKHOOK_HOST.")(command)


def run_service(settings: "Settings", *, web: bool, worker: bool, dev: bool) -> NoReturn:
    from service.app import run  # noqa: PLC0415 - help and mistakes need no service

    raise click.exceptions.Exit(run(settings, web=web, worker=worker, dev=dev))


@cli.command()
@listens
def dev(host: str | None, port: int | None) -> None:
    """Service and sandbox in one process, with keys made up."""
    run_service(load_settings(dev=True, host=host, port=port), web=True, worker=True, dev=True)


@cli.command()
@listens
def serve(host: str | None, port: int | None) -> None:
    """Web and worker in one process."""
    run_service(load_settings(host=host, port=port), web=True, worker=True, dev=False)


@cli.command()
@listens
def web(host: str | None, port: int | None) -> None:
    """The HTTP side alone."""
    run_service(load_settings(host=host, port=port), web=True, worker=False, dev=False)


@cli.command()
def worker() -> None:
    """The side that submits, polls and delivers, alone."""
    run_service(load_settings(), web=False, worker=True, dev=False)
