"""The commands of those who use a service or look after one: read arguments, call its public API, print."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class
from rich.console import Console

from service.cli import live, terminal
from service.cli.checking import check_receiver
from service.cli.doctor import doctor
from service.cli.keys import keys
from service.cli.listening import listen, print_event, print_notice
from service.cli.local import DEV_FILE, NotSaved, read_environment, save_image
from service.cli.migrating import migrate
from service.cli.options import output, parse_options, parse_pairs, print_json, takes, talks
from service.cli.replaying import replay
from service.cli.root import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TIME_OVER,
    Failure,
    cli,
    load_settings,
    no_traceback,
)
from service.client import (
    FINAL,
    Client,
    Json,
    utc_now,
)

STATUSES = ("queued", "running", "succeeded", "failed", "canceled")


for command in (migrate, keys, doctor, listen, replay, check_receiver):
    cli.add_command(command)


@cli.command()
@click.argument("file", type=click.Path(dir_okay=False))
def backup(file: str) -> None:
    """Copy the SQLite database to FILE, consistent while the service runs."""
    from service.app import backup as copy_database  # noqa: PLC0415 - commands of the client start without the service

    with no_traceback():
        size = copy_database(load_settings(), file)
    click.echo(f"{file}: {size} bytes, complete and checked")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--reveal-signing-secret", "reveal", is_flag=True, help="Print the secret that signs webhook_url, alone.")
def config(as_json: bool, reveal: bool) -> None:
    """Print the settings in force, secrets hidden."""
    if reveal:
        from service.app import reveal_signing_secret  # noqa: PLC0415 - as above

        has_keys = {"TASKHOOK_SECRET_KEYS", "TASKHOOK_SECRET_KEYS_FILE"} & read_environment().keys()
        secret = reveal_signing_secret(load_settings(dev=DEV_FILE.exists() and not has_keys))
        click.echo(json.dumps({"TASKHOOK_SIGNING_SECRET": secret}) if as_json else secret)
        return
    items = load_settings().public_items()
    if as_json:
        print_json(dict(items))
        return
    width = max(len(name) for name, _ in items)
    for name, value in items:
        click.echo(f"{name:<{width}}  {value}")


FOLDER: Any = click.Path(file_okay=False, path_type=Path)
PAIR: Any = {"metavar": "KEY=VALUE", "multiple": True, "callback": parse_pairs}
OPTION: Any = {**PAIR, "callback": parse_options}
SUBMIT_OPTIONS = (
    click.option("--wait", is_flag=True, help="Stay until the task is final."),
    click.option("--wait-s", metavar="SECONDS", type=click.FloatRange(0), help="Stay so long at most; implies --wait."),
    click.option("--save", metavar="DIR", type=FOLDER, help="Download the images; implies --wait."),
    click.option("--account", metavar="ID", help="The provider's account; without one that with the most room."),
    click.option("--aspect-ratio", metavar="W:H", help="Such as 16:9."),
    click.option("--size", metavar="WxH", help="Such as 1024x1024."),
    click.option("--n", metavar="COUNT", type=click.IntRange(1), help="How many images."),
    click.option("--image-url", metavar="URL", help="The image to edit."),
    click.option("--output-format", metavar="FORMAT", help="jpeg or png."),
    click.option("--translate/--no-translate", default=None, help="Let the provider translate the prompt."),
    click.option("--option", "options", help="A provider's option under its own name; repeatable.", **OPTION),
    click.option("--metadata", help="Your own, kept with the task; repeatable.", **PAIR),
    click.option("--webhook-url", metavar="URL", help="Where the completion event of this task goes."),
    click.option(
        "--timeout-s", metavar="SECONDS", type=click.FloatRange(0, min_open=True), help="The task's deadline."
    ),
)


@cli.command()
@click.argument("model")
@click.argument("prompt")
@takes(SUBMIT_OPTIONS)
@talks
def submit(client: Client, as_json: bool, wait: bool, wait_s: float | None, save: Path | None, **request: Any) -> None:
    """Submit a task: MODEL is `provider/model` or a model's bare name.

    \b
    Exit codes:
      0    accepted; with --wait: succeeded, images saved
      1    the task failed or was canceled, or an image could not be saved
      2    wrong usage, or Taskhook refused the request
      3    Taskhook is unreachable
      4    the time of --wait-s is over, the task goes on
      130  interrupted, the task goes on
    """
    if save:
        _make_folder(save)
    task = client.submit(build_request(**request))
    if not (wait or save or wait_s is not None):
        show_accepted(task, as_json)
        return
    try:
        task = live.Wait(client, task, Console(stderr=True)).until_final(wait_s)
    except KeyboardInterrupt:
        raise Failure(f"Interrupted; the task goes on: taskhook show {task['id']}", EXIT_INTERRUPTED) from None
    if task["status"] not in FINAL:
        raise Failure(f"Not final yet; the task goes on: taskhook show {task['id']}", EXIT_TIME_OVER)
    finish(task, save, as_json)


def build_request(
    *,
    model: str,
    prompt: str,
    account: str | None,
    webhook_url: str | None,
    timeout_s: float | None,
    metadata: Json,
    **given: Any,
) -> Json:
    request = {
        "model": model,
        "account": account,
        "webhook_url": webhook_url,
        "timeout_s": timeout_s,
        "metadata": metadata or None,
    }
    chosen = {"prompt": prompt, **given, "options": given["options"] or None}
    request["input"] = {key: value for key, value in chosen.items() if value is not None}
    return {key: value for key, value in request.items() if value is not None}


def _make_folder(folder: Path) -> None:
    """Before anything costs credits."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{folder}: {error.strerror}", param_hint="--save") from error


def show_accepted(task: Json, as_json: bool) -> None:
    if as_json:
        print_json(task)
    elif sys.stdout.isatty():
        click.echo(f"{click.style('✓', fg='green')} accepted  {click.style(task['id'], bold=True)}")
        click.secho(f"  taskhook show {task['id']}    what becomes of it", dim=True)
    else:
        click.echo(task["id"])


def finish(task: Json, folder: Path | None, as_json: bool) -> None:
    """The end of a waited-for task: images saved, outcome shown, exit code set."""
    saved: list[str] = []
    failure = None
    try:
        saved.extend(save_images(task, folder) if folder else [])
    except NotSaved as error:
        failure = error
    if as_json:
        print_json({**task, "saved": saved} if folder else task)
    elif sys.stdout.isatty():
        output().print(terminal.result_lines(task, saved), soft_wrap=True)
    else:
        click.echo(terminal.plain_result(task, saved))
    if failure:
        raise failure
    if task["status"] != "succeeded":
        raise click.exceptions.Exit(EXIT_FAILED)


def save_images(task: Json, folder: Path) -> Iterator[str]:
    for number, url in enumerate(terminal.image_urls(task), start=1):
        yield str(save_image(url, folder, f"{task['id']}-{number}"))


@cli.command()
@click.option("--status", type=click.Choice(STATUSES))
@click.option("--provider")
@click.option("--account", metavar="ID", help="Of this account of a provider.")
@click.option("--model", help="`provider/model`, or a bare name at any provider.")
@click.option("--metadata", help="Equal to your own; repeatable.", **PAIR)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@talks
def tasks(client: Client, as_json: bool, metadata: dict[str, str], limit: int, **filters: str | None) -> None:
    """List tasks, newest first. In a pipe: tab-separated lines."""
    asked = {key: value for key, value in filters.items() if value}
    found = list(client.list(asked | {f"metadata.{key}": value for key, value in metadata.items()}, limit))
    if as_json:
        print_json(found)
    elif not sys.stdout.isatty():
        click.echo("".join(f"{terminal.plain_task(task)}\n" for task in found), nl=False)
    elif found:
        output().print(terminal.task_table(found, utc_now(), output().width))
    else:
        click.echo('No such tasks. Submit one: taskhook submit flux-kontext-pro "a lighthouse at dusk"')


@cli.command()
@click.argument("task_id", metavar="ID")
@talks
def show(client: Client, as_json: bool, task_id: str) -> None:
    """Show one task: why it is so, what happened, its deliveries."""
    task, why = client.get(task_id), client.why(task_id)
    timeline, deliveries = list(client.timeline(task_id)), list(client.deliveries(task_id))
    if as_json:
        print_json({"task": task, "why": why, "timeline": timeline, "deliveries": deliveries})
    else:
        output().print(terminal.task_page(task, why, timeline, deliveries, output().width))


@cli.command()
@talks
def watch(client: Client, as_json: bool) -> None:
    """Tasks and deliveries live; `q` ends. In a pipe: one line per event."""
    if sys.stdout.isatty() and not as_json:
        live.watch(client, output())
        return
    for event in client.stream_events(on_notice=print_notice):
        print_event(event.body, None, as_json)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script: eval "$(taskhook completion bash)"."""
    made = get_completion_class(shell)
    if made:
        click.echo(made(cli, {}, "taskhook", "_TASKHOOK_COMPLETE").source())
