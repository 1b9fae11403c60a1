"""A pgbouncer in transaction mode before the tests' server."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.support.postgres import Server, free_port
from tests.support.wait import PATIENCE_S, until

CONFIG = """
[databases]
{name} = host=127.0.0.1 port={to} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 3
unix_socket_dir =
"""


def find_pooler() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@asynccontextmanager
async def pooler(server: Server, url: str) -> AsyncIterator[str]:
    """The URL of the same database through it, with fewer connections behind it than before it."""
    port, name = free_port(), url.rpartition("/")[2]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(CONFIG.format(name=name, to=server.port, port=port))
        owner = {}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chmod(folder, 0o755)
            owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        process = subprocess.Popen(  # noqa: ASYNC220 (it lives as long as the test)
            [str(find_pooler()), "-q", str(config)], stderr=subprocess.DEVNULL, **owner
        )
        try:
            address = f"postgresql://postgres@127.0.0.1:{port}/{name}"
            await until(lambda: _answers(address))
            yield address
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


async def _answers(address: str) -> bool:
    try:
        connection = await asyncpg.connect(address, statement_cache_size=0)
    except OSError:
        return False
    await connection.close()
    return True
