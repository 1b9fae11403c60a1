"""`taskhook listen`: events as they happen, and on to a local server in their order."""

import json
import sys
import time
from contextlib import nullcontext
from fnmatch import fnmatchcase
from pathlib import Path

import click
import msgspec

from service.cli import live, terminal
from service.cli.forwarding import Answer, Forwarder, PlaceFile, make_forwarder, post_patiently
from service.cli.options import output, read_secret, talks
from service.cli.root import EXIT_INTERRUPTED
from service.client import Client, Json, StreamEvent, StreamNotice


@click.command()
@click.option("--forward-to", metavar="URL", help="Post each event to this URL, signed, in order.")
@click.option("--secret", metavar="whsec_...", callback=read_secret, help="Signs what is forwarded; `-` asks for it.")
@click.option("--retries", type=click.IntRange(0), default=5, show_default=True, help="While nobody is at the URL.")
@click.option("--since", metavar="EVENT_ID", help="Begin after this event.")
@click.option("--state", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Keeps the place.")
@click.option("--types", help="Such as task.failed,endpoint.* ; all if not given.")
@talks
def listen(
    client: Client,
    *,
    as_json: bool,
    forward_to: str | None,
    secret: str | None,
    retries: int,
    since: str | None,
    state: Path | None,
    types: str | None,
) -> None:
    """Print events as they happen, and pass them on to a local URL.

    Only this machine connects, so it works behind NAT. A lost connection is made again after the last event, and with
    --state so is a later start. Without --secret (or TASKHOOK_SIGNING_SECRET) one is made up and printed.
    """
    patterns = [pattern.strip() for pattern in (types or "*").split(",")]
    kept = PlaceFile(state)
    place = since or kept.read()
    with make_forwarder(forward_to, secret, "--forward-to") if forward_to else nullcontext() as forwarder:
        ear = _Ear(forwarder, patterns, retries, as_json=as_json)
        try:
            for event in client.stream_events(place, on_notice=print_notice, on_beginning=kept.write):
                ear.take(event)
                place = event.id
                kept.write(place)
        except KeyboardInterrupt:
            click.echo(_farewell(place, state), err=True)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _farewell(place: str | None, state: Path | None) -> str:
    if state:
        return "Ended. The same command goes on from here."
    return f"Ended. Go on from here with --since {place}" if place else "Ended."


class _Ear:
    """Handles each event of the stream."""

    def __init__(self, forwarder: Forwarder | None, patterns: list[str], retries: int, *, as_json: bool) -> None:
        self._forwarder = forwarder
        self._patterns = patterns
        self._retries = retries
        self._as_json = as_json

    def take(self, event: StreamEvent) -> None:
        if not any(fnmatchcase(event.type, pattern) for pattern in self._patterns):
            return
        answer = self._pass_on(event, self._forwarder) if self._forwarder else None
        print_event(event.body, answer, self._as_json)
        if answer and self._forwarder and not answer.received:
            hint = f"{event.id} was not received. Again: taskhook replay {event.id} --to {self._forwarder.url}"
            click.secho(hint, err=True, fg="yellow")

    def _pass_on(self, event: StreamEvent, forwarder: Forwarder) -> Answer:
        body = event.text.encode()

        def tell(answer: Answer, pause_s: float, left: int) -> None:
            said = f"{event.id}: {terminal.clean(answer)}. Trying again in {pause_s:g} s, {left} left."
            click.secho(said, err=True, fg="yellow")

        return post_patiently(lambda: forwarder.post_event(event.id, body), self._retries, tell, time.sleep)


def print_notice(notice: StreamNotice) -> None:
    click.secho(live.describe_notice(notice), err=True, dim=notice.connected, fg=None if notice.connected else "yellow")


def print_event(event: Json, answer: Answer | None, as_json: bool) -> None:
    said = str(answer or "")
    if as_json:
        forwarded = {"forwarded": msgspec.to_builtins(answer)} if answer else {}
        click.echo(json.dumps({**event, **forwarded}, ensure_ascii=False))
    elif sys.stdout.isatty():
        output().print(terminal.event_line(event, said), soft_wrap=True)
    else:
        click.echo(terminal.plain_event(event, said))
