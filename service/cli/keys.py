"""`taskhook keys`: API keys over the public API, as any user would; the encryption of secrets on the database."""

import sys

import click

from service.cli import terminal
from service.cli.options import output, print_json, talks
from service.cli.root import EXIT_FAILED, EXIT_UNREACHABLE, Failure, load_settings
from service.client import Client
from service.core.problems import Unavailable

SCOPES = ("tasks:write", "tasks:read", "endpoints", "admin")


@click.group()
def keys() -> None:
    """API keys: make, list, revoke; and the encryption of what is stored."""


@keys.command()
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="Repeatable.")
@talks
def create(client: Client, as_json: bool, name: str, scopes: tuple[str, ...]) -> None:
    """Make a key called NAME. It is shown this once, on standard output alone."""
    made = client.create_key(name, scopes)
    if as_json:
        print_json(made)
        return
    click.echo(f"{made['id']}: {', '.join(made['scopes'])}. Keep the key, it can't be shown again:", err=True)
    click.echo(made["key"])


@keys.command("list")
@talks
def list_keys(client: Client, as_json: bool) -> None:
    """List keys, the revoked ones too. In a pipe: tab-separated lines."""
    found = list(client.keys())
    if as_json:
        print_json(found)
    elif sys.stdout.isatty():
        output().print(terminal.key_table(found))
    else:
        click.echo("".join(f"{terminal.plain_key(key)}\n" for key in found), nl=False)


@keys.command()
@click.argument("key_id", metavar="ID")
@talks
def revoke(client: Client, as_json: bool, key_id: str) -> None:
    """Revoke a key, everywhere within seconds and for good."""
    client.revoke_key(key_id)
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"{key_id} is revoked.")


@keys.command("rotate-encryption")
def rotate_encryption() -> None:
    """Encrypt every stored secret under the first of TASKHOOK_SECRET_KEYS.

    Works on the database of the settings, in small steps while the service runs. If interrupted, run it again.
    """
    from service.app import rotate  # noqa: PLC0415 - client commands start without the service

    try:
        done = rotate(load_settings())
    except Unavailable as problem:
        raise Failure(f"{problem.detail} ({problem.cause})", EXIT_UNREACHABLE) from problem
    click.echo(f"{done.seen} rows hold secrets, {done.renewed} were encrypted anew.")
    if done.unopened:
        raise Failure(f"{done.unopened} rows are encrypted under a key that TASKHOOK_SECRET_KEYS lacks.", EXIT_FAILED)
