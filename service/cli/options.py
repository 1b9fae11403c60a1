"""Shared by commands that talk to a service: connection options, their checks, and error messages."""

import functools
import json
import secrets
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import click
import httpx
from click.core import ParameterSource
from rich.console import Console

from service.cli import terminal
from service.cli.local import find_place
from service.cli.root import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Failure
from service.client import ApiError, Client, ClientError, Json, Unreachable
from service.core.signing import SECRET_BYTES_MIN, decode_secret, render_secret
from service.environment import SettingsError


def read_secret(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """`-` asks for it, or takes the first line of standard input, so that no list of processes shows it."""
    if value == "-" and not sys.stdin.isatty():
        return sys.stdin.readline().strip() or None
    if value == "-":
        return str(click.prompt(param.opts[0], hide_input=True, err=True))
    if value and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE and sys.stderr.isatty():
        hint = (
            f"Every user of this machine can see {param.opts[0]} among its processes; `{param.opts[0]} -` asks for it."
        )
        click.secho(hint, err=True, dim=True)
    return value


URL_HELP = "The service.  [env: TASKHOOK_URL; default: http://127.0.0.1:8000]"
KEY_HELP = "`-` asks for it.  [env: TASKHOOK_API_KEY; default: what `taskhook dev` made up]"
CONNECTION_OPTIONS = (
    click.option("--url", metavar="URL", help=URL_HELP),
    click.option("--api-key", metavar="KEY", callback=read_secret, help=KEY_HELP),
    click.option("--json", "as_json", is_flag=True, help="JSON for scripts: one document, or one a line."),
)


def explain(error: ClientError) -> Failure:
    match error:
        case Unreachable(url=url, reason=reason) if reason.startswith("something answers"):
            return Failure(f"At {url} {reason}. Give the address of a Taskhook with --url.", EXIT_UNREACHABLE)
        case Unreachable(url=url, reason=reason):
            advice = "Start one with `make run`, or give --url."
            return Failure(f"No Taskhook answers at {url} ({reason}). {advice}", EXIT_UNREACHABLE)
        case ApiError():
            return Failure(_explain_refusal(error), EXIT_USAGE if error.status < 500 else EXIT_UNREACHABLE)
        case _:
            return Failure(str(error), EXIT_FAILED)


def _explain_refusal(error: ApiError) -> str:
    if error.status == 401:
        return "The API key is missing or wrong. Give --api-key, or set TASKHOOK_API_KEY."
    lines = [f"  {_location(entry.get('loc'))}: {terminal.clean(entry.get('msg'))}" for entry in error.errors]
    said = terminal.clean(error.detail or error.title)
    return "\n".join([said if error.status < 500 else f"Taskhook failed ({error.status}): {said}", *lines])


def _location(loc: object) -> str:
    """'input.n', whether it came as a string or as a path."""
    path = [str(part) for part in loc] if isinstance(loc, list) else [str(loc or "request")]
    return terminal.clean(".".join(path[1:] if path[0] == "body" and len(path) > 1 else path))


def takes(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return lambda command: functools.reduce(lambda made, option: option(made), reversed(options), command)


def talks(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --url, --api-key and --json; the command gets a Client and `as_json`."""

    @functools.wraps(command)
    def call(*, url: str | None, api_key: str | None, **arguments: Any) -> None:
        try:
            place = find_place(url, api_key)
        except (ClientError, SettingsError) as error:
            raise Failure(str(error), EXIT_USAGE) from error
        check_url(place.url, "--url")
        if not (place.api_key or "").isascii() or not (place.api_key or "").isprintable():
            raise click.BadParameter("this has characters that no key has", param_hint="--api-key")
        try:
            with Client(place.url, place.api_key) as client:
                command(client, **arguments)
        except ClientError as error:
            raise explain(error) from error

    return takes(CONNECTION_OPTIONS)(call)


def check_url(url: str, option: str) -> None:
    with suppress(httpx.InvalidURL):
        parsed = httpx.URL(url)
        if parsed.scheme in {"http", "https"} and parsed.host:
            return
    raise click.BadParameter(f"{url!r} is no http(s) URL", param_hint=option)


def check_secret(secret: str) -> None:
    try:
        decode_secret(secret)
    except ValueError as error:
        raise click.BadParameter(f"it {error}", param_hint="--secret") from error


def make_secret() -> str:
    return render_secret(secrets.token_bytes(SECRET_BYTES_MIN))


def parse_pairs(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    pairs = dict(value.partition("=")[::2] for value in values)
    if "" in pairs or not all("=" in value for value in values):
        raise click.BadParameter("give KEY=VALUE", ctx, param)
    return pairs


def parse_options(ctx: click.Context, param: click.Parameter, values: Iterable[str]) -> Json:
    """Values are JSON where they read as such: safetyTolerance=2 is a number, watermark=me a string."""
    return {key: _parse_value(value) for key, value in parse_pairs(ctx, param, values).items()}


def _parse_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text


def output() -> Console:
    return Console(highlight=False)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
