"""Terminals and pipes that are not UTF-8: what they have no characters for is replaced."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.support.process import run_python
from tests.support.stand_in import KEY, StandIn

PROMPT = "a lighthouse € 图"


@pytest.fixture(scope="module")
def service() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


def run(service: StandIn, folder: Path, encoding: str, *arguments: str) -> Ended:
    env = {"PYTHONIOENCODING": encoding, "TASKHOOK_URL": service.url, "TASKHOOK_API_KEY": KEY}
    return asyncio.run(run_python("service", *arguments, cwd=folder, env=env))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_every_answer_fits_the_encoding(service: StandIn, tmp_path: Path, encoding: str) -> None:
    model = "fluxapi-ai/flux-kontext-pro"
    submitted = run(service, tmp_path, encoding, "submit", model, PROMPT, "--wait")
    assert (submitted.code, "Traceback" in submitted.err) == (0, False)
    (task_id, *_) = [task for task, body in service.tasks.items() if body["input"]["prompt"] == PROMPT]
    shown = run(service, tmp_path, encoding, "show", task_id)  # drawn by rich
    assert (shown.code, shown.err, "? succeeded" in shown.out) == (0, "", True)
    as_json = run(service, tmp_path, encoding, "show", task_id, "--json")  # written by click
    assert (as_json.code, as_json.err, "a lighthouse ? ?" in as_json.out) == (0, "", True)


def test_an_argument_that_is_no_text_is_one_line(service: StandIn, tmp_path: Path) -> None:
    ended = run(service, tmp_path, "utf-8", "tasks", "--metadata", "city=Z\udcfcrich")
    assert (ended.code, ended.err) == (2, "Error: An argument or a setting has bytes that are not UTF-8.\n")
