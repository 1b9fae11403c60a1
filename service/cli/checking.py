"""`taskhook check-receiver`: does a receiver bear what Taskhook will send it?"""

import asyncio
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.graded import print_graded, print_summary
from service.cli.local import read_environment
from service.cli.options import check_secret, check_url, make_secret, output, print_json, read_secret
from service.cli.root import EXIT_FAILED

if TYPE_CHECKING:
    from service.core.receiver_plan import Finding, Report
    from service.outbound.receiver_check import Receiver

WORDS = {"pass": "passed", "warn": "to look at", "fail": "failed", "skip": "not tried"}


@click.command("check-receiver")
@click.argument("url")
@click.option("--secret", metavar="whsec_...", callback=read_secret, help="The receiver's; `-` asks for it.")
@click.option("--format", "form", type=click.Choice(["standard", "cloudevents"]), default="standard", show_default=True)
@click.option(
    "--pause-s", type=click.FloatRange(0), default=6.0, show_default=True, help="The silence before the last."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check_receiver(url: str, secret: str | None, form: str, pause_s: float, as_json: bool) -> None:
    """Send a receiver what it must bear, and grade how it does.

    A good event, a duplicate, forged and altered ones, old and future ones, two out of order, an unknown one, a large
    one, and one after a pause. URL may be on this machine or in its network. Without --secret (or
    TASKHOOK_SIGNING_SECRET) one is made up, which only a receiver that verifies nothing takes.

    \b
    Exit codes:
      0  all passed, or with warnings
      1  something failed
    """
    check_url(url, "URL")
    known = secret or read_environment().get("TASKHOOK_SIGNING_SECRET")
    check_secret(known or make_secret())
    if not known:
        click.secho("No --secret: the events are signed with one that is made up.", err=True, fg="yellow")
    report = _run(_receiver(url, known or make_secret(), form), pause_s, quiet=as_json)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print_summary(output(), [finding.grade for finding in report.findings], WORDS)
    if report.grade == "fail":
        raise click.exceptions.Exit(EXIT_FAILED)


def _receiver(url: str, secret: str, form: str) -> "Receiver":
    from service.outbound.receiver_check import Receiver  # noqa: PLC0415 - client commands start without the service

    return msgspec.convert({"url": url, "secret": secret, "format": form}, Receiver)


def _run(receiver: "Receiver", pause_s: float, *, quiet: bool) -> "Report":
    from service.outbound.client import Poster  # noqa: PLC0415 - as above
    from service.outbound.guard import Guard  # noqa: PLC0415
    from service.outbound.receiver_check import check_receiver as check  # noqa: PLC0415
    from service.wiring import RealEnv  # noqa: PLC0415

    console = output()

    def show(finding: "Finding") -> None:
        if not quiet:
            print_graded(console, finding.grade, finding.check, finding.got, _notes(finding))

    async def work() -> "Report":
        poster = Poster(Guard(allow_private=True))
        try:
            return await check(poster, receiver, RealEnv(), pause_s=pause_s, on_finding=show)
        finally:
            await poster.close()

    return asyncio.run(work())


def _notes(finding: "Finding") -> list[tuple[str, str]]:
    """Return what to show below a finding; nothing for one that passed."""
    if finding.grade in {"pass", "skip"}:
        return []
    return [("sent", finding.sent), ("answer", finding.response), ("why", finding.why), ("fix", finding.fix)]
