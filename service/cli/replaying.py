"""`taskhook replay`: what was sent or received once, byte for byte, to a developer's machine."""

import hashlib
import re
from collections.abc import Iterable

import click
import msgspec

from service.cli.forwarding import Answer, Forwarder, make_forwarder
from service.cli.options import check_url, print_json, read_secret, talks
from service.cli.root import EXIT_FAILED, EXIT_USAGE, Failure
from service.cli.terminal import clean
from service.client import Client

ID = re.compile(r"(task|evt|dlv)_[0-9a-zA-Z]+")
FINAL_EVENTS = frozenset({"task.succeeded", "task.failed", "task.canceled"})
FRESH = "webhook-timestamp and webhook-signature are new, made with this command's secret"
NO_OWN_HEADERS = "the endpoint's own headers are not sent: their values are shown to nobody"
NO_CALLBACK_HEADERS = "the provider's headers are not kept, so a signature of its own is missing"
MASKED = "keys and callback tokens that the provider sent back are masked"
NONE = msgspec.Raw(b"null")
SPACE = "white space between the parts of its JSON is not kept where the task failed"
CUT = "of a callback that could not be believed the first 16 KiB are kept"


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The request that is sent again; `differs` names what is not as it was the first time."""

    id: str
    type: str
    body: bytes
    content_type: str
    differs: tuple[str, ...]
    is_event: bool


class _Head(msgspec.Struct, frozen=True):
    """The fields that events of both formats have; only CloudEvents have a `specversion`."""

    id: str
    type: str
    specversion: str | None = None


class _Result(msgspec.Struct, frozen=True):
    raw: msgspec.Raw = NONE


class _Tracking(msgspec.Struct, frozen=True):
    via: str | None = None


class _Task(msgspec.Struct, frozen=True):
    tracking: _Tracking
    result: _Result | None = None


class _Detail(msgspec.Struct, frozen=True):
    via: str | None = None
    raw: msgspec.Raw = NONE
    body: str | None = None


class _Entry(msgspec.Struct, frozen=True):
    type: str
    detail: _Detail


class _Timeline(msgspec.Struct, frozen=True):
    data: list[_Entry]
    next_cursor: str | None = None


@click.command()
@click.argument("thing", metavar="TASK_OR_EVENT_OR_DELIVERY")
@click.option("--to", metavar="URL", required=True, help="Where it is posted; may be on this machine.")
@click.option("--type", "kind", type=click.Choice(["event", "callback"]), default="event", show_default=True)
@click.option("--secret", metavar="whsec_...", callback=read_secret, help="Signs the event; `-` asks for it.")
@talks
def replay(client: Client, as_json: bool, thing: str, to: str, kind: str, secret: str | None) -> None:
    """Send a stored event, or the provider's callback of a task, once to a URL.

    An event (evt_...), the body of a delivery in its endpoint's format (dlv_...), or the last event of a task
    (task_...), byte for byte; with `--type callback` the body that a task's provider sent. What can't be as it was is
    said. Without --secret (or TASKHOOK_SIGNING_SECRET) one is made up and printed.

    \b
    Exit codes:
      0  answered with a 2xx
      1  answered otherwise, or not at all
    """
    if not ID.fullmatch(thing):
        raise Failure("Give the id of a task (task_...), an event (evt_...) or a delivery (dlv_...).", EXIT_USAGE)
    found = find_callback(client, thing) if kind == "callback" else find_event(client, thing)
    if found.is_event:
        with make_forwarder(to, secret, "--to") as forwarder:
            answer = forwarder.post_event(found.id, found.body, found.content_type)
    else:
        check_url(to, "--to")
        with Forwarder(to, "") as forwarder:
            answer = forwarder.post(found.body, {"Content-Type": found.content_type})
    _show(found, to, answer, as_json=as_json)
    if not answer.received:
        raise click.exceptions.Exit(EXIT_FAILED)


def find_event(client: Client, thing: str) -> Replayed:
    if thing.startswith("dlv_"):
        return _event(client.read(f"/v1/deliveries/{thing}/body"), FRESH, NO_OWN_HEADERS)
    if thing.startswith("task_"):
        thing = _last_event_id(client, thing)
    return _event(client.read(f"/v1/events/{thing}"), FRESH)


def _event(body: bytes, *differs: str) -> Replayed:
    head = msgspec.json.decode(body, type=_Head)
    media = "application/cloudevents+json" if head.specversion else "application/json"
    return Replayed(id=head.id, type=head.type, body=body, content_type=media, differs=differs, is_event=True)


def _last_event_id(client: Client, task_id: str) -> str:
    """The event of the task's end, else the newest there is."""
    events = list(client.events({"task_id": task_id}))
    if not events:
        client.get(task_id)  # tells a task that is not there from one without events
        raise Failure(f"{task_id} has no event yet.", EXIT_FAILED)
    ends = [event for event in events if event.get("type") in FINAL_EVENTS]
    return str((ends or events)[-1]["id"])


def find_callback(client: Client, task_id: str) -> Replayed:
    """The callback that ended the task, else the last one that was kept."""
    if not task_id.startswith("task_"):
        raise Failure("A callback belongs to a task: give its id, task_...", EXIT_USAGE)
    task = msgspec.json.decode(client.read(f"/v1/tasks/{task_id}"), type=_Task)
    if task.tracking.via == "callback" and task.result and bytes(task.result.raw) != b"null":
        return _callback(task_id, "callback.succeeded", bytes(task.result.raw))
    kept = [one for one in _entries(client, task_id) if one.detail.body or _is_raw_callback(one)]
    if not kept:
        how = f"it ended by {task.tracking.via}" if task.tracking.via else "it has not ended"
        raise Failure(f"No callback of {task_id} is kept: {how}, or it was erased.", EXIT_FAILED)
    last = next((one for one in kept if _is_raw_callback(one)), kept[-1])
    if _is_raw_callback(last):
        return _callback(task_id, "callback.failed", bytes(last.detail.raw), SPACE)
    return _callback(task_id, last.type, (last.detail.body or "").encode(), CUT)


def _is_raw_callback(entry: _Entry) -> bool:
    return entry.detail.via == "callback" and bytes(entry.detail.raw) != b"null"


def _callback(task_id: str, kind: str, body: bytes, *more: str) -> Replayed:
    differs = (NO_CALLBACK_HEADERS, MASKED, *more)
    media = "application/json"
    return Replayed(id=task_id, type=kind, body=body, content_type=media, differs=differs, is_event=False)


def _entries(client: Client, task_id: str) -> Iterable[_Entry]:
    cursor: str | None = ""
    while cursor is not None:
        params = {"cursor": cursor} if cursor else {}
        page = msgspec.json.decode(client.read(f"/v1/tasks/{task_id}/timeline", params), type=_Timeline)
        yield from page.data
        cursor = page.next_cursor


def _show(found: Replayed, to: str, answer: Answer, *, as_json: bool) -> None:
    told = {"id": found.id, "type": found.type, "bytes": len(found.body)}
    if as_json:
        digest = hashlib.sha256(found.body).hexdigest()
        print_json({**told, "sha256": digest, "differs": found.differs, "answer": msgspec.to_builtins(answer)})
        return
    for difference in found.differs:
        click.secho(f"Not as it was: {difference}.", err=True, dim=True)
    click.echo(f"{found.id}  {found.type}  {len(found.body)} bytes  → {clean(to)}  {clean(answer)}")
    if answer.response and not answer.received:
        click.echo(f"  {clean(answer.response)}", err=True)
