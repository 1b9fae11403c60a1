"""Official libraries verify and read real deliveries in both formats, pings included."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.interop.conftest import HERE, MODEL, installed, needs, python, run
from tests.support.receiver import Received, Receiver
from tests.support.service import Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.xdist_group("interop")]


class Delivered:
    """A ping and an event of a task, as one endpoint got them."""

    def __init__(self, secret: str, received: list[Received]) -> None:
        self.secret = secret
        self.ids = [one.id for one in received]
        self.types = [one.body["type"] for one in received]
        self.lines = "".join(f"{json.dumps(self._line(one))}\n" for one in received)

    @staticmethod
    def _line(one: Received) -> dict[str, Any]:
        return {"headers": one.request.headers, "body": one.request.raw_body.decode()}

    def read_by(self, *command: str | Path, cwd: Path) -> list[dict[str, Any]]:
        env = {**os.environ, "TASKHOOK_SECRET": self.secret}
        done = subprocess.run(command, check=False, cwd=cwd, input=self.lines.encode(), capture_output=True, env=env)
        assert done.returncode == 0, done.stderr.decode()[-3_000:]
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest_asyncio.fixture(scope="module", loop_scope="package", params=["standard", "cloudevents"])
async def delivered(request: pytest.FixtureRequest, service: Service, receiver: Receiver) -> Delivered:
    subscriber = receiver.subscriber(request.param)
    endpoint = await service.api.endpoint(subscriber.url, format=request.param)
    await service.client.post(f"/v1/endpoints/{endpoint['id']}/test")
    task = await service.api.submit(MODEL, "a lighthouse with a ö")
    await service.api.finished(task["id"])
    await until(lambda: len(subscriber.received) == 2, what="a ping and an event")
    await service.client.delete(f"/v1/endpoints/{endpoint['id']}")
    return Delivered(endpoint["secret"], subscriber.received)


def check(delivered: Delivered, read: list[dict[str, Any]]) -> None:
    assert [one["id"] for one in read] == delivered.ids
    assert [one["type"] for one in read] == delivered.types
    assert "taskhook.ping" in delivered.types and "task.succeeded" in delivered.types
    assert all(len(one["sequence"]) == 20 for one in read if "sequence" in one)


async def test_python(delivered: Delivered, python_tools: Path, tmp_path: Path) -> None:
    check(
        delivered, await asyncio.to_thread(lambda: delivered.read_by(*python(python_tools, "verify.py"), cwd=tmp_path))
    )


async def test_node(delivered: Delivered, node_project: Path) -> None:
    check(delivered, await asyncio.to_thread(lambda: delivered.read_by("node", "verify.mjs", cwd=node_project)))


@pytest.fixture(scope="module")
def go_program() -> Path:
    needs("go")

    def install(folder: Path) -> None:
        run("go", "build", "-o", folder / "verify", ".", cwd=HERE / "go")

    return installed("go", [HERE / "go" / name for name in ("go.mod", "go.sum", "verify.go")], install) / "verify"


async def test_go(delivered: Delivered, go_program: Path, tmp_path: Path) -> None:
    check(delivered, await asyncio.to_thread(lambda: delivered.read_by(go_program, cwd=tmp_path)))
