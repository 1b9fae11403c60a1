"""A start of the service loads what it needs: what only commands, the other database or the sandbox use comes later."""

import subprocess
import sys

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
