"""The real service as a process of its own, in a directory of its own: started, killed, stopped, started again."""

import asyncio
import base64
import secrets
import signal
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import msgspec

from service.wiring import Timings
from tests.support.api import Api
from tests.support.clock import Clock
from tests.support.process import COMMON, INHERITED, Process, start_python
from tests.support.upstream import FakeProvider
from tests.support.wait import PATIENCE_S, until

API_KEY = "test-api-key-" + secrets.token_hex(8)
SECRET_KEY = "test-secret-key-" + secrets.token_hex(16)
SIGNING_SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


MOVABLE = Timings(look_again_s=0.2)
"""For a service whose clock a test moves: it soon looks at what the new time has made due."""


@dataclass(frozen=True)
class Stopped:
    """How a process ended after SIGTERM."""

    code: int
    seconds: float


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Service:
    """An instance; two with the same directory share the database."""

    def __init__(
        self,
        directory: Path,
        fakes: Iterable[FakeProvider] = (),
        env: dict[str, str] | None = None,
        command: str = "serve",
        timings: Timings | None = None,
    ) -> None:
        """With `timings` it has those, and `pass_time` moves its clock."""
        self.directory = directory
        self.command = command
        self.module = "service" if timings is None else "tests.support.timed"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = directory / f"{command}-{self.port}.log"
        self.env = {
            "TASKHOOK_DATABASE_URL": f"sqlite:///{directory / 'taskhook.db'}",
            "TASKHOOK_SECRET_KEYS": SECRET_KEY,
            "TASKHOOK_API_KEYS": API_KEY,
            "TASKHOOK_SIGNING_SECRET": SIGNING_SECRET,
            "TASKHOOK_ALLOW_PRIVATE_NETWORKS": "true",
            "TASKHOOK_PUBLIC_URL": self.url,
            "TASKHOOK_HOST": "127.0.0.1",
            "TASKHOOK_PORT": str(self.port),
            "TASKHOOK_POLL_FIRST_S": "0.2",
            "TASKHOOK_POLL_MAX_S": "0.5",
            "TASKHOOK_CALLBACK_GRACE_S": "1",
            "TASKHOOK_RETRY_SCHEDULE": "0.2,0.2,0.2,0.2,0.5,0.5,1,1,2,2,5,5,5",
            "TASKHOOK_LOG_FORMAT": "json",
        }
        for fake in fakes:
            self.env |= fake.environment
        self.env |= env or {}
        self.clock = None if timings is None else Clock(directory / "clock")
        if timings is not None:
            self.env |= {"TEST_TIMINGS": msgspec.json.encode(timings).decode(), "TEST_CLOCK": str(directory / "clock")}
        self.process: Process | None = None
        self.anew = False
        """Whether it is to be a process by itself, not one forked from another."""
        self._said_before = 0
        self.client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=PATIENCE_S,
            trust_env=False,
            limits=httpx.Limits(max_connections=200),
        )
        self.api = Api(self.client)

    async def start(self) -> Self:
        await self.launch()
        await self.ready()
        return self

    async def launch(self) -> None:
        """Starts the process and does not wait for it."""
        self._said_before = self.log().count("worker.started")
        with self.log_path.open("ab") as log:
            self.process = await start_python(
                *(self.module, self.command), cwd=self.directory, env=self.env, output=log, anew=self.anew
            )

    async def launch_by(self, *command: str) -> None:
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                cwd=self.directory,
                env=INHERITED | COMMON | self.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self) -> None:
        """Waits until /readyz says yes; a worker has no port, its log tells."""

        async def up() -> bool:
            assert self.process is not None
            if self.process.returncode is not None:
                raise AssertionError(f"the service ended with {self.process.returncode}:\n{self.log(tail=40)}")
            if self.command == "worker":
                return self.log().count("worker.started") > self._said_before
            try:
                return (await self.client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await until(up, what="/readyz answers 200")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log(tail=40)}") from None

    async def kill(self) -> None:
        """SIGKILL: nothing of ours runs after it."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it runs no further, and keeps all that it has open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def pass_time(self, seconds: float) -> None:
        """Move its clock, and that of all services with the same directory."""
        assert self.clock is not None, "start it with timings"
        self.clock.pass_time(seconds)

    async def terminate(self, at_most_s: float = PATIENCE_S) -> Stopped:
        """SIGTERM, and how it ended."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(at_most_s):
                code = await self.process.wait()
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"still running {at_most_s} s after SIGTERM:\n{self.log(tail=40)}") from None
        return Stopped(code, time.monotonic() - begun)

    async def restart(self, env: dict[str, str] | None = None) -> None:
        """Killed if it still runs, then started on the same port and database, with changed settings if any."""
        await self.kill()
        self.env |= env or {}
        await self.start()

    async def close(self) -> None:
        await self.client.aclose()
        await self.kill()

    async def metrics(self) -> list[str]:
        """Return a text for each process that serves it."""
        return [(await self.client.get("/metrics")).text]

    def logs(self) -> list[str]:
        """Return a log for each process."""
        return [self.log()]

    def log(self, tail: int | None = None) -> str:
        if not self.log_path.exists():
            return ""
        text = self.log_path.read_text(errors="replace")
        return text if tail is None else "\n".join(text.splitlines()[-tail:])
