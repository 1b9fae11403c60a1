"""Dockerfile, units and Procfile: what their own programs say of them, and that each command really starts."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.deploy.files import DEPLOY, GRACE_S, ROOT, unknown_settings
from tests.support.service import free_port
from tests.support.wait import PATIENCE_S, soon, until

BIN = Path(sys.executable).parent
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
EXPOSURE_MAX = 2.0
"""Of systemd's ten: 9.6 is a unit without any protection, below 2 is "OK" with a network."""
PROCESSES = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line[0] != "#")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- Dockerfile and YAML ----------------------------------------------------------------------------------------------


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    run(BIN / "hadolint", "--failure-threshold", "style", "deploy/Dockerfile")


def test_yamllint_finds_nothing() -> None:
    run(BIN / "yamllint", "--strict", "deploy")


def test_the_image_has_pinned_bases_and_settings_that_are_some() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases and all(re.fullmatch(r"[a-z]+:\d+\.\d+-slim-[a-z]+", base) for base in bases)
    given = dict(re.findall(r"\b(TASKHOOK_[A-Z_]+)=(\S+)", DOCKERFILE))
    assert unknown_settings(given) == ()
    assert f"EXPOSE {given['TASKHOOK_PORT']}" in DOCKERFILE and given["TASKHOOK_WORKER_PORT"] == given["TASKHOOK_PORT"]
    assert re.search(r"^USER (?!0)\d+:\d+$", DOCKERFILE, re.MULTILINE)


def test_the_image_installs_nothing_that_is_not_pinned_by_a_hash() -> None:
    installs = re.findall(r"pip (?:install|wheel) (.+?)(?: \\|$)", DOCKERFILE, re.MULTILINE)
    assert len(installs) == 4
    for options in installs:
        locked = "--require-hashes -r requirements" in options
        assert locked or "--no-build-isolation" in options or "--no-index" in options, options
    assert "hatchling==" in (ROOT / "requirements-build.lock").read_text()


def test_all_that_the_image_copies_is_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for line in copied for name in line.split()} == allowed
    assert all((ROOT / name).exists() for name in allowed)


# --- systemd ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def verifiable(tmp_path: Path) -> Path:
    """The units with a program that exists on this machine, under the names of real instances."""
    for name in UNITS:
        text = (DEPLOY / name).read_text().replace("/opt/taskhook/bin/taskhook", str(BIN / "taskhook"))
        (tmp_path / name.replace("@", "@8001")).write_text(text.replace("%i", "8001"))
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(verifiable: Path, name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", verifiable / name.replace("@", "@8001")],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    of_ours = [line for line in done.stderr.splitlines() if "taskhook" in line]
    assert of_ours == []


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_calls_the_unit_confined(name: str) -> None:
    said = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX * 10:.0f}", DEPLOY / name)
    assert "Overall exposure level" in said


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_stops_in_time_and_sets_what_there_is(name: str) -> None:
    lines = [line.partition("=")[::2] for line in (DEPLOY / name).read_text().splitlines() if "=" in line]
    unit = dict(lines)
    assert int(unit["TimeoutStopSec"]) > GRACE_S
    assert unit["CapabilityBoundingSet"] == "" and unit["DynamicUser"] == "yes"
    assert unit["EnvironmentFile"] == "/etc/taskhook.env"
    words = [word.partition("=")[::2] for word in re.findall(r"TASKHOOK_\w+=\S+", (DEPLOY / name).read_text())]
    assert unknown_settings({setting: value.replace("%i", "8001") for setting, value in words}) == ()


# --- every command that deploy/ and the Procfile name -----------------------------------------------------------------


KEY = "key-of-these-tests"


def environment(folder: Path, port: int) -> dict[str, str]:
    return {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PORT": str(port),
        "TASKHOOK_WORKER_PORT": str(port),
        "TASKHOOK_DATABASE_URL": f"sqlite:///{folder}/taskhook.db",
        "TASKHOOK_SECRET_KEYS_FILE": str(folder / "secret_keys"),
        "TASKHOOK_API_KEYS": KEY,
        "TASKHOOK_FLUX_CONTEXT_API_KEY": "key",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret_keys").write_text("a secret key of the test\n")
    return tmp_path


async def test_the_procfile_runs_web_and_worker_that_find_each_other(folder: Path) -> None:
    """Each gets a PORT of its own, and both read the one port of .env, where the sandbox is."""
    port = free_port()
    shutil.copy(ROOT / "Procfile", folder)
    keys = f"TASKHOOK_API_KEYS={KEY}\nTASKHOOK_SECRET_KEYS_FILE={folder}/secret_keys\n"
    (folder / ".env").write_text(f"{keys}TASKHOOK_SANDBOX=true\nTASKHOOK_PORT={port}\nTASKHOOK_POLL_FIRST_S=0.2\n")
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "honcho", "start"),
            cwd=folder,
            env={"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
        )
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"model": "flux-context/flux-kontext-pro", "input": {"prompt": "a lighthouse at dusk"}}
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False, headers=headers
    )

    async def made() -> str | None:
        assert process.returncode is None, (folder / "log").read_text()
        with suppress(httpx.TransportError):
            return str((await client.post("/v1/tasks", json=body)).json()["id"])
        return None

    async def succeeded() -> bool:
        task = (await client.get(f"/v1/tasks/{task_id}?wait=20")).json()
        assert task["status"] in ("queued", "running", "succeeded"), task
        return bool(task["status"] == "succeeded")

    try:
        task_id = await until(made, what="a task is taken")
        await until(succeeded, what="the worker found the sandbox")
    finally:
        await client.aclose()
        process.send_signal(signal.SIGTERM)
        await soon(process.wait())


@pytest.mark.parametrize(
    ("command", "path", "missing"),
    [
        (PROCESSES["web"], "/readyz", "/nothing"),
        (PROCESSES["worker"], "/readyz", "/docs"),
        ("taskhook serve", "/readyz", "/nothing"),
    ],
)
async def test_each_process_starts_answers_its_probes_and_stops(
    folder: Path, command: str, path: str, missing: str
) -> None:
    port = free_port()
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), cwd=folder, env=environment(folder, port), stdout=log, stderr=log
        )

    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)

    async def answers() -> bool:
        assert process.returncode is None, (folder / "log").read_text()
        return await status(client, path) == 200

    try:
        await until(answers, 30, f"{command}: {path}")
        assert await status(client, "/healthz") == await status(client, "/metrics") == 200
        assert await status(client, missing) == 404
    finally:
        await client.aclose()
        process.send_signal(signal.SIGTERM)
    assert await soon(process.wait()) == 0


async def test_a_log_that_takes_nothing_makes_no_stop_fail(folder: Path) -> None:
    port = free_port()
    command = "exec taskhook serve >/dev/full 2>&1"
    process = await asyncio.create_subprocess_shell(command, cwd=folder, env=environment(folder, port))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as client:

        async def answers() -> bool:
            return await status(client, "/readyz") == 200

        await until(answers)
    process.send_signal(signal.SIGTERM)
    assert await soon(process.wait()) == 0


async def status(client: httpx.AsyncClient, path: str) -> int:
    try:
        return (await client.get(path)).status_code
    except httpx.TransportError:
        return 0
