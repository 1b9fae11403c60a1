"""`taskhook doctor`: find what is wrong with this installation before its users do."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from service.cli.graded import print_graded, print_summary
from service.cli.options import output, print_json
from service.cli.root import EXIT_FAILED, Failure, load_settings
from service.client import utc_now

if TYPE_CHECKING:
    from service.doctor import Finding

WORDS = {"ok": "well", "warn": "to look at", "fail": "wrong", "skipped": "not looked at"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def doctor(as_json: bool) -> None:
    """Examine settings, database, network and machine, and say what to do.

    Run it where the service runs, as its user and in its folder. It changes nothing, costs no credits and prints no
    secret. Providers are asked for a task that is not there; the public URL gets two callbacks that it must refuse.

    \b
    Exit codes:
      0  all is well, or there are warnings
      1  something is wrong
    """
    from service.telemetry import set_up_logging  # noqa: PLC0415 - client commands start without the service

    set_up_logging("error", "console")
    findings = []
    for finding in _examine():
        findings.append(finding)
        if not as_json:
            notes = [("do", finding.advice)] if finding.advice else []
            print_graded(output(), finding.grade, finding.check, finding.says, notes)
    grades = [finding.grade for finding in findings]
    worst = next((grade for grade in ("fail", "warn") if grade in grades), "ok")
    if as_json:
        print_json({"grade": worst, "findings": msgspec.to_builtins(findings)})
    else:
        print_summary(output(), grades, WORDS)
    if worst == "fail":
        raise click.exceptions.Exit(EXIT_FAILED)


def _examine() -> "Iterable[Finding]":
    from service.doctor import examine, examine_without_settings  # noqa: PLC0415 - as above

    dotenv = Path(".env")
    try:
        settings = load_settings()
    except Failure as failure:
        return examine_without_settings(failure.message, dotenv)
    return examine(settings, dotenv, utc_now)
