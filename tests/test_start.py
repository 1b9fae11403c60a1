"""A start of the service loads what it needs: what only commands, the other database or the sandbox use comes later."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

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


def refusal(*arguments: str, **changes: str) -> str:
    """The one line that a start ends with."""
    command = [sys.executable, "-m", "service", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=SETTINGS | changes)
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


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a..b", "192.0.2.1"])
def test_a_host_that_is_none_of_this_machine_is_one_line_with_its_setting(host: str) -> None:
    assert "TASKHOOK_HOST" in refusal("serve", TASKHOOK_HOST=host)


def test_a_port_in_use_is_one_line_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal("serve", TASKHOOK_PORT=str(port))
    assert f"TASKHOOK_PORT can't be listened on: 127.0.0.1:{port}: Address already in use." in line
