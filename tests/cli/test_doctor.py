"""`doctor` beside a running service: its own public URL is known, another's is found out, and nothing is changed."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, run
from tests.flows.conftest import World
from tests.support.service import API_KEY, SECRET_KEY, SIGNING_SECRET, Service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("cli")]


def findings(ended: Ended) -> dict[str, dict[str, str]]:
    return {finding["check"]: finding for finding in json.loads(ended.out)["findings"]}


async def metric(service: Service, name: str) -> bool:
    return name in (await service.client.get("/metrics")).text


async def test_a_running_service_is_known_by_its_keys(world: World, tmp_path: Path) -> None:
    service = await world.start()
    env = service.env | {"TASKHOOK_PUBLIC_URL": service.url}
    ended = await run(tmp_path, "doctor", "--json", env=env)
    found = findings(ended)
    assert found["way back"] == {
        "check": "way back",
        "grade": "ok",
        "says": "A callback through the public URL arrives here.",
        "advice": "",
    }
    for name in (
        "settings",
        "database",
        "migrations",
        "writing",
        "durability",
        "flux-context",
        "fluxapi-ai",
        "acedata",
    ):
        assert found[name]["grade"] == "ok", found[name]
    assert found["clock"]["grade"] == "ok"
    assert not await service.api.pages("/v1/tasks")
    others = env | {"TASKHOOK_SECRET_KEYS": "0a1b2c3d4e5f60718293a4b5c6d7e8f9"}
    ended = await run(tmp_path, "doctor", env=others)
    assert ended.code == 1
    assert "fail\tway back\tThe public URL leads to a Taskhook with other secret keys" in ended.out
    assert "\tdo\tGive it this TASKHOOK_SECRET_KEYS" in ended.out


async def test_a_broken_installation_is_told_without_its_secrets(world: World, tmp_path: Path) -> None:
    service = world.service()
    (tmp_path / ".env").write_text("TASKHOOK_FLUX_CONTEXT_API_KEY=wrong-secretive-key\n")
    env = {name: value for name, value in service.env.items() if name != "TASKHOOK_FLUX_CONTEXT_API_KEY"}
    env |= {"TASKHOOK_PUBLIC_URL": service.url, "TASKHOOK_DATABASE_URL": "postgresql://me:secretive@127.0.0.1:9/x"}
    ended = await run(tmp_path, "doctor", env=env)
    assert ended.code == 1
    for line in (
        "fail\tdatabase\tPostgreSQL can't be reached",
        "fail\tway back\tThe public URL does not answer (connection refused).",
        "fail\tpermissions of .env",
    ):
        assert line in ended.out
    said = ended.out + ended.err
    for secret in (API_KEY, SECRET_KEY, SIGNING_SECRET, "secretive", world.fluxapi_ai.key, world.acedata.key):
        assert secret not in said
    assert "Traceback" not in said


async def test_settings_that_can_not_be_read_are_a_finding(tmp_path: Path) -> None:
    ended = await run(tmp_path, "doctor", "--json", env={"TASKHOOK_PORT": "x"})
    assert (ended.code, findings(ended)["settings"]["grade"]) == (1, "fail")
