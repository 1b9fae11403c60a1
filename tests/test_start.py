"""A start of the service loads what it needs: what only commands, the other database or the sandbox use comes later."""

import subprocess
import sys

UNUSED = ("httpx", "rich.live", "PIL", "asyncpg", "opentelemetry", "service.client", "service.cli.commands")


def test_a_start_loads_neither_the_client_nor_the_sandbox_nor_a_database_that_is_not_used() -> None:
    program = (
        "import sys, service.cli, service.app; from service.wiring import build_driver; "
        f"build_driver('sqlite:///x.db'); print([name for name in {UNUSED!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
