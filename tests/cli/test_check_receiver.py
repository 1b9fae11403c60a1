"""`check-receiver` as CI runs it: against a server of this machine, with an exit code, and no secret in its words."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import run
from tests.outbound.test_receiver_check import careful, serving
from tests.support.factory import SECRET
from tests.support.server import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli")]


async def test_a_receiver_that_does_all_well_is_exit_code_0(tmp_path: Path) -> None:
    async with serving(careful) as site:
        env = {"TASKHOOK_SIGNING_SECRET": SECRET}
        ended = await run(tmp_path, "check-receiver", f"{site.server.url}/hook", "--pause-s", "0", env=env)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("pass\ttransport\t")
    assert ended.out.endswith("passed: 14 passed\n")
    assert SECRET not in ended.out


async def test_a_receiver_that_verifies_nothing_is_exit_code_1_and_is_told_what_to_fix(tmp_path: Path) -> None:
    async with serving(lambda request: Reply(200, json.dumps(request.headers))) as site:
        command = ("check-receiver", f"{site.server.url}/hook", "--pause-s", "0", "--secret", SECRET)
        as_json = await run(tmp_path, *command, "--json")
        as_lines = await run(tmp_path, *command)
    assert (as_json.code, as_lines.code) == (1, 1)
    report = json.loads(as_json.out)
    failed = [finding["check"] for finding in report["findings"] if finding["grade"] == "fail"]
    assert (report["grade"], failed) == (
        "fail",
        ["wrong signature", "no signature", "tampered body", "old timestamp"],
    )
    assert "fail\twrong signature\t200 in" in as_lines.out
    assert "\tfix\tVerify webhook-signature over the raw body" in as_lines.out
    assert SECRET not in as_json.out + as_lines.out + as_json.err + as_lines.err


async def test_without_a_secret_one_is_made_up_and_that_is_said(tmp_path: Path) -> None:
    async with serving(careful) as site:
        ended = await run(tmp_path, "check-receiver", f"{site.server.url}/hook")
    assert ended.code == 1
    assert "No --secret" in ended.err
    assert "Check that the receiver has this endpoint's secret" in ended.out
    assert len(site.server.requests) == 1


@pytest.mark.parametrize("arguments", [("ftp://x",), ("http://127.0.0.1/", "--secret", "whsec_?"), ()])
async def test_wrong_usage_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert (await run(tmp_path, "check-receiver", *arguments)).code == 2
