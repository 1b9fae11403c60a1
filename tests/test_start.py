"""A start of the service loads what it needs: what only commands, the other database or the sandbox use comes later."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.core.signing import derive_secret, render_secret
from tests.support.postgres import command, database, shared_server

UNUSED = ("httpx", "rich.live", "PIL", "asyncpg", "opentelemetry", "service.client", "service.cli.commands")
SETTINGS = {
    "TASKHOOK_SECRET_KEYS": "a secret key of this test",
    "TASKHOOK_API_KEYS": "an API key of this test",
    "TASKHOOK_PORT": "0",
    "TASKHOOK_DATABASE_URL": "sqlite:////dev/null/taskhook.db",
}


def test_a_start_loads_neither_the_client_nor_the_sandbox_nor_a_database_that_is_not_used() -> None:
    """It gets as far as its database, which can't be opened."""
    program = (
        "import atexit, sys; from service.cli import main; sys.argv = ['taskhook', 'serve']; "
        f"atexit.register(lambda: print([name for name in {UNUSED!r} if name in sys.modules])); main()"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=SETTINGS)
    assert (found.returncode, found.stdout.strip()) == (1, "[]"), found.stderr
    assert "service.stopped" in found.stderr


IMPORTS = {"PYTHONPATH": str(Path(__file__).parents[1])}


def refusal(*arguments: str, before: Sequence[str] = (), cwd: Path | None = None, **changes: str) -> str:
    """The one line that a start ends with."""
    process = [*before, sys.executable, "-m", "service", *arguments]
    found = subprocess.run(
        process, capture_output=True, text=True, check=False, env=SETTINGS | IMPORTS | changes, cwd=cwd
    )
    assert found.returncode in (1, 3), found
    (line,) = (found.stdout + found.stderr).splitlines()
    return line


@pytest.mark.parametrize("command", ["serve", "web", "worker", "migrate", "keys rotate-encryption"])
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////dev/null/x/taskhook.db", "sqlite:////dev/null/x/taskhook.db"),
        ("postgresql://someone:geheim@127.0.0.1:1/x", "postgresql://someone:(hidden)@127.0.0.1:1/x"),
    ],
)
def test_a_database_that_can_not_be_opened_is_one_line_with_its_setting_and_no_password(
    command: str, url: str, shown: str
) -> None:
    line = refusal(*command.split(), TASKHOOK_DATABASE_URL=url)
    assert f"TASKHOOK_DATABASE_URL, {shown}: The database can't be used right now." in line
    assert "geheim" not in line


def test_a_backup_of_no_database_is_one_line_with_its_setting(tmp_path: Path) -> None:
    line = refusal("backup", str(tmp_path / "copy.db"), TASKHOOK_DATABASE_URL=f"sqlite:///{tmp_path}/none.db")
    assert "TASKHOOK_DATABASE_URL names a file that is not there." in line


NO_SUPERUSER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
"""Root is denied nothing by the modes of files, unless it gives that up."""


@pytest.mark.skipif(os.getuid() == 0 and shutil.which("setpriv") is None, reason="root needs setpriv of util-linux")
@pytest.mark.parametrize(
    ("name", "why"), [("folder", "Is a directory"), ("closed.db", "Permission denied"), ("closed/x.db", "READONLY")]
)
def test_a_database_that_can_not_be_written_is_one_line_with_its_setting(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "x.db").touch()
    (tmp_path / "closed.db").touch(0o400)
    (tmp_path / "closed").chmod(0o500)
    line = refusal(
        "migrate", before=NO_SUPERUSER if os.getuid() == 0 else [], TASKHOOK_DATABASE_URL=url(tmp_path / name)
    )
    assert f"TASKHOOK_DATABASE_URL, {url(tmp_path / name)}: The database can't be used right now. ({why}" in line


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def test_a_user_without_rights_on_postgresql_is_one_line_with_the_grant() -> None:
    server, role = shared_server(), f"start_{os.getpid()}"
    await command(server, f"create role {role} login")
    try:
        async with database(server, migrated=False) as admin:
            revoke = f"alter role {role} set search_path = nowhere"
            await command(server, revoke)
            there = admin.replace("postgres@", f"{role}@")
            line = await asyncio.to_thread(refusal, "serve", TASKHOOK_DATABASE_URL=there)
    finally:
        await command(server, f"drop role {role}")
    assert f"TASKHOOK_DATABASE_URL, {there}: The user {role} may use no schema of its search_path" in line
    assert f"(GRANT USAGE, CREATE ON SCHEMA public TO {role})" in line


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "192.0.2.1"])
def test_a_host_that_is_none_of_this_machine_is_one_line_with_its_setting(host: str) -> None:
    assert "TASKHOOK_HOST" in refusal("serve", TASKHOOK_HOST=host)


@pytest.mark.parametrize("command", ["serve", "web", "worker", "dev"])
def test_a_port_in_use_is_one_line_with_the_setting_of_one_that_is_free(command: str, tmp_path: Path) -> None:
    setting = "TASKHOOK_WORKER_PORT" if command == "worker" else "TASKHOOK_PORT"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(command, cwd=tmp_path, **{setting: str(port), "TASKHOOK_LOG_FORMAT": "console"})
    said, _, free = line.rpartition("=")
    assert said == f"Error: port {port} is in use, try {setting}" and port < int(free) <= port + 20


def test_the_port_of_a_platform_that_is_in_use_is_one_line_for_programs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal("serve", TASKHOOK_PORT="", PORT=str(port))
    assert f"port {port} is in use, try TASKHOOK_PORT=" in json.loads(line)["reason"]


def reveal(*arguments: str, cwd: Path, env: dict[str, str]) -> str:
    process = [sys.executable, "-m", "service", "config", "--reveal-signing-secret", *arguments]
    found = subprocess.run(process, capture_output=True, text=True, check=True, env=env | IMPORTS, cwd=cwd)
    assert found.stderr == ""
    return found.stdout.strip()


def test_the_signing_secret_is_printed_alone_as_it_is_set_or_derived(tmp_path: Path) -> None:
    given = render_secret(b"g" * 32)
    assert reveal(cwd=tmp_path, env=SETTINGS | {"TASKHOOK_SIGNING_SECRET": given}) == given
    derived = derive_secret(SETTINGS["TASKHOOK_SECRET_KEYS"])
    assert reveal(cwd=tmp_path, env=SETTINGS) == derived
    assert json.loads(reveal("--json", cwd=tmp_path, env=SETTINGS)) == {"TASKHOOK_SIGNING_SECRET": derived}


def test_the_signing_secret_of_a_folder_of_dev_is_derived_from_the_key_that_was_made_up(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    kept = {"api_key": "tk_dev_0123456789abcdef", "secret_key": "0123456789abcdef0123456789abcdef"}
    (tmp_path / "var/dev.json").write_text(json.dumps(kept))
    assert reveal(cwd=tmp_path, env={}) == derive_secret(kept["secret_key"])
