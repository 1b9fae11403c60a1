"""Every receiver among the examples, run against real deliveries: a good one, the same again, and two bad ones."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from taskhook import AsyncTaskhook, Endpoint, webhooks

from tests.examples.conftest import EXAMPLES, Process, Scene, python, started
from tests.support.server import Answer, Reply, Request, ScriptedServer
from tests.support.service import free_port
from tests.support.wait import PATIENCE_S, until

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Example:
    """How a receiver is run: as a server on `{port}`, or behind an adapter that calls its handler."""

    command: list[str | Path]
    is_server: bool = True
    needs: str = "python3"


RECEIVERS = {
    "fastapi": Example(
        python("-m", "uvicorn", "--app-dir", EXAMPLES / "python", "fastapi_receiver:app", "--port", "{port}")
    ),
    "cloud function": Example(
        python(
            *("-m", "functions_framework", "--source", EXAMPLES / "python" / "cloud_function.py"),
            *("--target", "receive", "--host", "127.0.0.1", "--port", "{port}"),
        )
    ),
    "lambda": Example(python(HERE / "lambda_adapter.py", EXAMPLES / "python" / "aws_lambda.py"), is_server=False),
    "node": Example(["node", EXAMPLES / "javascript" / "receiver.mjs"], needs="node"),
    "next": Example(
        ["node", HERE / "web_adapter.mjs", EXAMPLES / "javascript" / "next-route.mjs"], is_server=False, needs="node"
    ),
    "worker": Example(
        ["node", HERE / "web_adapter.mjs", EXAMPLES / "javascript" / "cloudflare-worker.mjs"],
        is_server=False,
        needs="node",
    ),
    "go": Example(
        ["sh", "-c", 'go build -o receiver "$0" && exec ./receiver', EXAMPLES / "go" / "receiver.go"], needs="go"
    ),
    "php": Example(["php", "-S", "127.0.0.1:{port}", EXAMPLES / "php" / "receiver.php"], needs="php"),
    "ruby": Example(
        ["ruby", HERE / "rack_adapter.rb", EXAMPLES / "ruby" / "receiver.ru"], is_server=False, needs="ruby"
    ),
}


class Queue:
    """SQS as far as one call of it: a FIFO queue that keeps a message once."""

    def __init__(self) -> None:
        self.server = ScriptedServer(self._answer)
        self.kept: dict[str, str] = {}

    async def _answer(self, request: Request) -> Answer:
        assert request.headers["x-amz-target"] == "AmazonSQS.SendMessage"
        self.kept.setdefault(request.json["MessageDeduplicationId"], request.json["MessageBody"])
        digest = hashlib.md5(request.json["MessageBody"].encode()).hexdigest()
        body = {"MessageId": "1", "MD5OfMessageBody": digest, "SequenceNumber": "1"}
        return Reply(200, body, {"Content-Type": "application/x-amz-json-1.0"})


@dataclass
class Running:
    """A receiver that is subscribed, with what it did with events."""

    client: AsyncTaskhook
    endpoint: Endpoint
    url: str
    process: Process
    queue: Queue
    directory: Path
    poster: httpx.AsyncClient = field(repr=False)

    def handled(self, task_id: str) -> int:
        """Return how often the event about this task was handled."""
        printed = sum(task_id in line for line in self.process.lines)
        queued = sum(task_id in body for body in self.queue.kept.values())
        return printed or queued or sum(task_id in path.read_text() for path in self.directory.glob("*.json"))

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        return (await self.poster.post(self.url, content=body, headers=headers)).status_code


@contextlib.asynccontextmanager
async def running(example: Example, scene: Scene, directory: Path) -> AsyncIterator[Running]:
    queue, port, processes = Queue(), free_port(), list[Process]()
    front = ScriptedServer(lambda request: _pass_on(processes, request))
    async with contextlib.AsyncExitStack() as stack:
        for server in (queue.server, front):
            await server.listen()
            stack.push_async_callback(server.close)
        client = await stack.enter_async_context(scene.client())
        url = f"http://127.0.0.1:{port if example.is_server else front.port}/taskhook"
        endpoint = await client.endpoints.create(url=url, metadata={"for": "receivers"})
        stack.push_async_callback(client.endpoints.delete, endpoint.id)
        env = scene.environment(
            TASKHOOK_SECRET=endpoint.secret or "",
            PORT=str(port),
            EVENTS_DIR=str(directory),
            DATABASE=str(directory / "events.db"),
            QUEUE_URL=f"{queue.server.url}/1/events.fifo",
            AWS_ENDPOINT_URL_SQS=queue.server.url,
            AWS_DEFAULT_REGION="eu-central-1",
            AWS_ACCESS_KEY_ID="none",
            AWS_SECRET_ACCESS_KEY="none",
        )
        command = [str(word).replace("{port}", str(port)) for word in example.command]
        processes.append(await stack.enter_async_context(started(*command, env=env, cwd=directory)))
        poster = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S))
        made = Running(client, endpoint, url, processes[0], queue, directory, poster)
        await until(lambda: _answers(made), 60, f"{made.process} answers")
        yield made


async def _pass_on(processes: list[Process], request: Request) -> Answer:
    return Reply(await processes[0].ask(request)) if processes else Reply(503)


async def _answers(running: Running) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return await running.post(b"{}", {}) == 400
    return False


@pytest.mark.parametrize("name", RECEIVERS)
async def test_a_receiver_takes_an_event_once_and_refuses_what_is_not_signed_just_now(
    name: str, scene: Scene, tmp_path: Path
) -> None:
    example = RECEIVERS[name]
    if shutil.which(example.needs) is None:
        pytest.skip(f"{example.needs} is not installed")
    async with running(example, scene, tmp_path) as receiver:
        client, task_id = receiver.client, scene.task.id
        assert (await client.endpoints.recover(receiver.endpoint.id, since=scene.task.created_at)).events == 1
        (delivery,) = [one async for one in client.deliveries.list(endpoint_id=receiver.endpoint.id)]
        await delivered(client, delivery.id, 1)
        await until(lambda: receiver.handled(task_id) == 1, what=f"{receiver.process} worked on it")

        await client.deliveries.retry(delivery.id)
        await delivered(client, delivery.id, 2)
        body, secret = await client.deliveries.body(delivery.id), receiver.endpoint.secret or ""
        signed = webhooks.sign(body, secret, id=delivery.event_id)
        rotated = {"webhook-signature": f"v1,AAAA {signed['webhook-signature']}"}
        assert await receiver.post(body, signed | rotated) in (200, 204)

        old = webhooks.sign(body, secret, id="evt_old", timestamp=time.time() - 301)
        early = webhooks.sign(body, secret, id="evt_early", timestamp=time.time() + 310)
        other = webhooks.sign(body, "whsec_AAAA", id="evt_other")
        bad: list[Callable[[], dict[str, str]]] = [
            lambda: old,
            lambda: early,
            lambda: other,
            lambda: signed | {"webhook-id": "evt_2"},
            lambda: signed | {"webhook-timestamp": str(int(signed["webhook-timestamp"]) + 1)},
            lambda: signed | {"webhook-signature": "v1,"},
            lambda: signed | {"webhook-signature": signed["webhook-signature"].replace("v1,", "v2,")},
            dict,
        ]
        assert [await receiver.post(body, headers()) for headers in bad] == [400] * len(bad)
        assert await receiver.post(body + b" ", signed) == 400
        assert receiver.handled(task_id) == 1, receiver.process


@pytest.mark.parametrize("secret", ["", "whsec_"])
@pytest.mark.parametrize("name", RECEIVERS)
async def test_a_receiver_without_a_secret_does_not_take_what_anybody_can_sign(
    name: str, secret: str, scene: Scene, tmp_path: Path
) -> None:
    example, port = RECEIVERS[name], free_port()
    if shutil.which(example.needs) is None:
        pytest.skip(f"{example.needs} is not installed")
    forged = _sign_with_empty_key(body := b'{"id":"evt_1","type":"taskhook.ping","data":{}}')
    env = scene.environment(TASKHOOK_SECRET=secret, PORT=str(port), EVENTS_DIR=str(tmp_path), QUEUE_URL="none")
    command = [str(word).replace("{port}", str(port)) for word in example.command]
    async with (
        started(*command, env=env, cwd=tmp_path) as process,
        httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client,
    ):
        ending = asyncio.create_task(process.ended())
        try:
            while not ending.done():
                if not example.is_server:
                    asking = asyncio.create_task(process.ask(Request("POST", "/", forged, body, 0.0)))
                    await asyncio.wait((asking, ending), return_when=asyncio.FIRST_COMPLETED)
                    assert not asking.done() or asking.result() >= 400
                    asking.cancel()
                    break
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post(f"http://127.0.0.1:{port}/taskhook", content=body, headers=forged)
                    assert answer.status_code >= 400, process
                    break
                await asyncio.sleep(0.05)
            assert not ending.done() or ending.result() != 0 or not example.is_server, process
        finally:
            process.kill()
            await ending
    assert list(tmp_path.glob("*.json")) == []


def _sign_with_empty_key(body: bytes) -> dict[str, str]:
    at = str(int(time.time()))
    signature = base64.b64encode(hmac.digest(b"", f"evt_1.{at}.".encode() + body, hashlib.sha256)).decode()
    return {"webhook-id": "evt_1", "webhook-timestamp": at, "webhook-signature": f"v1,{signature}"}


async def delivered(client: AsyncTaskhook, delivery_id: str, attempts: int) -> None:
    async def told() -> bool:
        delivery = await client.deliveries.retrieve(delivery_id)
        return len(delivery.attempts) == attempts and delivery.attempts[-1].error is None

    await until(told, what=f"delivered {attempts} times")
