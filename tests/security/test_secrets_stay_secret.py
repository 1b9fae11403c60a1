"""Canaries: every secret is unmistakable, every path is driven, then all that was printed, answered or kept is read.

No secret is found where it does not belong, in no spelling.
"""

import asyncio
import base64
import json
import re
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio

from service.web.routes import OPERATIONS
from tests.flows.conftest import World
from tests.security.raw import send
from tests.support.api import Api
from tests.support.process import ROOT
from tests.support.receiver import status
from tests.support.server import Reply, Request
from tests.support.service import Service
from tests.support.upstream import FakeProvider, accept, answer, refuse
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("canaries")]


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


NEW_KEY, OLD_KEY = canary("secret-key"), canary("old-secret-key")
API_KEY, CLIENT_KEY = canary("api-key"), canary("second-api-key")
HMAC_KEY = canary("hmac-key")
SIGNING_SECRET = "whsec_" + base64.b64encode(canary("signing-secret").encode()[:40]).decode()
PROVIDER_KEYS = {name: canary(f"key-of-{name}") for name in ("flux-context", "fluxapi-ai", "acedata", "fluxapi-org")}
HEADER, URL_TOKEN, URL_PATH = canary("header"), canary("url-token"), canary("url-path")
PROMPT, PICTURE, METADATA = canary("prompt"), canary("picture"), canary("metadata")
IDEMPOTENCY = canary("idempotency-key")
INJECTED = "line\r\nlevel=error event=forged \x1b[31mred\x1b[0m \x9b31m"

ENVIRONMENT = {
    "TASKHOOK_SECRET_KEYS": f"{NEW_KEY},{OLD_KEY}",
    "TASKHOOK_API_KEYS": f"{API_KEY},{CLIENT_KEY}",
    "TASKHOOK_SIGNING_SECRET": SIGNING_SECRET,
    "TASKHOOK_FLUXAPI_AI_HMAC_KEY": HMAC_KEY,
    "TASKHOOK_LOG_LEVEL": "debug",
    "TASKHOOK_LOG_FORMAT": "json",
    "TASKHOOK_CALLBACK_GRACE_S": "0.5",
}
SHOWN_NOWHERE = {
    "secret keys": [NEW_KEY, OLD_KEY],
    "API keys": [API_KEY, CLIENT_KEY],
    "the HMAC key": [HMAC_KEY],
    "the signing secret": [SIGNING_SECRET, SIGNING_SECRET.removeprefix("whsec_")],
    "provider keys": list(PROVIDER_KEYS.values()),
    "header values": [HEADER],
}
SHOWN_TO_WHO_SENT_IT = {"prompts": [PROMPT], "pictures": [PICTURE], "metadata": [METADATA]}
"""In the answers about the task, and so in the database; never in a log."""
SHOWN_WITH_DELIVERIES = {"tokens of a webhook_url": [URL_TOKEN, URL_PATH]}
"""In the answers about deliveries, to keys that may see them; never in a log, and encrypted in the database."""


def spellings(secret: str) -> set[str]:
    """As it is, escaped, in base64 at each of the three offsets, in hex."""
    raw = secret.encode()
    encoded = {base64.b64encode(b"x" * offset + raw)[4:-4].decode() for offset in range(3)}
    return {secret, quote(secret, safe=""), raw.hex(), *encoded}


def found_in(text: str, wanted: dict[str, list[str]]) -> dict[str, str]:
    """Which secrets stand in the text, with what is around each."""
    found = {}
    for name, values in wanted.items():
        for value in values:
            for spelling in spellings(value):
                if (at := text.find(spelling)) >= 0:
                    found[name] = text[max(0, at - 80) : at + 20]
    return found


class Run:
    """Everything that a whole life of the service left behind."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.answers: dict[str, str] = {}
        """By request; one that is repeated is added to."""
        self.made: dict[str, list[str]] = {"endpoint secrets": [], "callback tokens": [], "keys of the store": []}
        self.shown_once: dict[str, list[str]] = {}
        self.printed = ""
        self.processes = ""
        self.kept = ""

    async def keep(self, reply: httpx.Response) -> None:
        if reply.headers.get("content-type", "").startswith("text/event-stream"):
            return
        await reply.aread()
        text = f"{reply.headers}\n{reply.text}"
        name = f"{reply.request.method} {reply.request.url.path}"
        self.answers[name] = self.answers.get(name, "") + text


async def start(world: World, env: dict[str, str] | None = None) -> Run:
    """A service with all of the secrets, among providers that know theirs."""
    for name, fake in world.fakes.items():
        fake.key = PROVIDER_KEYS[name]
    world.fluxapi_ai.hmac_key = HMAC_KEY
    service = world.service(ENVIRONMENT | (env or {}))
    service.anew = True  # its own command line is looked at, too
    service.client.headers["Authorization"] = f"Bearer {API_KEY}"
    service.client.event_hooks["response"].append((made := Run(service)).keep)
    await service.start()
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(world: World) -> AsyncIterator[Run]:
    made = await start(world)
    service = made.service
    await drive_deliveries(world, made)
    await drive_providers(world, made)
    await drive_callbacks(world, made)
    await drive_strangers(made)
    await drive_every_read(made)
    made.processes = list_processes(service)
    made.kept = b"".join(path.read_bytes() for path in service.directory.glob("taskhook.db*")).decode("latin-1")
    await drive_a_crash(made)
    made.printed = service.log()
    yield made


async def drive_deliveries(world: World, run: Run) -> None:
    """Subscribers that answer with all they got, redirect with it, refuse, and are gone."""

    api = run.service.api
    world.receiver.server._answer = echoing(world.receiver.server._answer)
    for name, code in (("echoes", 200), ("refuses", 500), ("redirects", 302), ("gone", 410)):
        subscriber = world.receiver.subscriber(name, then=status(code))
        endpoint = await api.endpoint(subscriber.url, headers={"X-Secret": HEADER, "Authorization": f"Bearer {HEADER}"})
        run.made["endpoint secrets"].append(endpoint["secret"])
        rotated = (await run.service.client.post(f"/v1/endpoints/{endpoint['id']}/rotate-secret")).json()
        run.made["endpoint secrets"].append(rotated["secret"])
        await run.service.client.post(f"/v1/endpoints/{endpoint['id']}/test")
    hook = world.receiver.subscriber(f"hook/{URL_PATH}", then=status(302))
    for number in range(2):
        prompt = f"{PROMPT} delivered {number} {INJECTED}"
        world.fluxapi_ai.script(prompt, callback="success")
        url = f"{hook.url}?token={URL_TOKEN}"
        task = await api.submit("fluxapi-ai/flux-kontext-pro", prompt, webhook_url=url, metadata={"order": METADATA})
        await api.finished(task["id"])
    await until(lambda: len(hook.received) >= 2)

    async def attempted() -> bool:
        deliveries = await api.deliveries()
        return len([1 for one in deliveries if one["attempts"]]) >= 8

    await until(attempted)


def echoing(receive: Any) -> Any:
    """The answer's body and Location are the request itself, its headers and all."""

    async def answered(request: Request) -> Reply:
        planned = (await receive(request)).answer
        said = json.dumps({"url": request.target, **request.headers})[:900]
        location = f"http://127.0.0.1:9{request.target}&secret={request.headers.get('x-secret')}"
        return Reply(planned.status, said, {"Location": location} if planned.status == 302 else {})

    return answered


async def drive_providers(world: World, run: Run) -> None:
    """Answers that hold all that the provider was sent, refusals of each kind, lost connections, cancel and erase."""
    api = run.service.api
    number = 0
    for fake in world.fakes.values():
        said = {"error": f"bad key {fake.key} {INJECTED}", "key": fake.key, "code": 401, "msg": f"Bearer {fake.key}"}
        for step in (
            answer(Reply(401, said)),
            answer(Reply(400, f"<html>{fake.key} {INJECTED}</html>")),
            answer(Reply(500, said), accepted=True),
            refuse("bad_key"),
            refuse("moderated"),
            accept(),
        ):
            number += 1
            prompt = f"{PROMPT} provider {number}"
            fake.script(prompt, submit=[step], poll=["failed"], callback=None)
            more = (
                {"input": {"image_url": f"https://pictures.example.com/{PICTURE}.png"}} if step.kind == "accept" else {}
            )
            reply = await api.post_task(
                f"{fake.provider}/{fake.default_model}", prompt, timeout_s=3, key=f"{IDEMPOTENCY}-{number}", **more
            )
            if reply.status_code == 202 and number % 3 == 0:
                await run.service.client.post(f"/v1/tasks/{reply.json()['id']}/cancel")
    prompt = f"{PROMPT} to be polled"
    plan = world.fluxapi_ai.script(prompt, poll=["running"])
    task = await api.submit("fluxapi-ai/flux-kontext-pro", prompt)
    await api.accepted(task["id"])
    plan.polls.clear()
    leaked = json.dumps({"callBackUrl": plan.job.callback_url, "key": PROVIDER_KEYS["fluxapi-ai"]})
    body = world.fluxapi_ai.polled(plan.job, "success").body
    assert isinstance(body, dict)
    body["data"]["paramJson"] = leaked
    plan.polls.append(answer(Reply(body=body)))
    await api.finished(task["id"])
    assert "(token)" in json.dumps((await api.task(task["id"]))["result"]["raw"])

    async def all_final() -> bool:
        return not await api.pages("/v1/tasks", status="running") and not await api.pages("/v1/tasks", status="queued")

    await until(all_final)


async def drive_callbacks(world: World, run: Run) -> None:
    """Good ones, ones that quote their own URL, unsigned, forged, unreadable and about another task."""
    for fake in (world.fluxapi_ai, world.acedata):
        await drive_callbacks_of(fake, run)


async def drive_callbacks_of(fake: FakeProvider, run: Run) -> None:
    api = run.service.api
    for number, body in enumerate(
        (b"no json {url}", b'{"code": 200, "data": {"taskId": "other", "url": "{url}"}}', b'{"{url}": "{key}"}')
    ):
        prompt = f"{PROMPT} called back by {fake.provider} {number}"
        plan = fake.script(prompt)
        task = await api.submit(f"{fake.provider}/{fake.default_model}", prompt)
        await api.accepted(task["id"])
        url = plan.job.callback_url
        assert url is not None
        run.made["callback tokens"].append(plan.job.token)
        sent = body.replace(b"{url}", url.encode()).replace(b"{key}", fake.key.encode())
        await fake.callback(plan.job, body=sent)
        await fake.callback(plan.job, body=sent, headers={"X-Webhook-Signature": HMAC_KEY})
        await fake.callback(plan.job, body=sent, url=f"{url[:-3]}AAA")
        await fake.callback(plan.job, "success")
        await api.finished(task["id"])


async def drive_strangers(run: Run) -> None:
    """Wrong keys, keys in the wrong place, keys of the store, and requests that are none."""
    client = run.service.client
    for scope in ("tasks:read", "admin"):
        made = (await client.post("/v1/keys", json={"name": f"of the test {scope}", "scopes": [scope]})).json()
        run.made["keys of the store"].append(made["key"])
        headers = {"Authorization": f"Bearer {made['key']}"}
        for path in ("/v1/tasks", "/v1/endpoints", "/v1/nothing"):
            await client.get(path, headers=headers)
        await client.delete(f"/v1/keys/{made['id']}")
    secret = HEADER
    for headers in (
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": f"Basic {secret}"},
        {"X-Request-ID": f"{secret} {secret}"},
        {"Idempotency-Key": f"{secret}" * 20},
        {"Last-Event-ID": secret},
        {"Content-Type": f"text/{secret}"},
    ):
        for method, path in (("GET", "/v1/tasks"), ("POST", "/v1/tasks"), ("GET", f"/callbacks/acedata/{secret}")):
            reply = await client.request(method, path, headers=headers, content=b"{")
            assert reply.status_code >= 400 or method == "GET"
    port = run.service.port
    await send(port, f"GET /{secret} HTTP/1.1\r\nHost: x\r\nX: {secret}\0\r\n\r\n".encode(), quiet_s=0.2)
    await send(
        port, f"GET /v1/{secret}?{secret} HTTP/1.1\r\nHost: {secret}\r\nX: {secret}\r\n\r\n".encode(), quiet_s=0.2
    )


async def drive_every_read(run: Run) -> None:
    """Every GET there is, for every id there is."""
    api = run.service.api
    ids = await ids_of(api)
    for operation in OPERATIONS:
        if operation.method == "GET" and "stream" not in operation.path:
            noun = operation.path.split("/")[2] if operation.path.startswith("/v1/") else ""
            for thing in ids[noun] if "{id}" in operation.path else [""]:
                await run.service.client.get(operation.path.replace("{id}", thing))
    first = (await api.events())[0]["id"]
    async with api.stream(last_event_id=first) as stream:
        for _ in range(10):
            event = await stream.next()
            run.answers["stream"] = run.answers.get("stream", "") + json.dumps(event.data)


async def ids_of(api: Api) -> dict[str, list[str]]:
    return {
        "tasks": [task["id"] for task in await api.pages("/v1/tasks")],
        "events": [event["id"] for event in await api.events()],
        "endpoints": [one["id"] for one in await api.pages("/v1/endpoints")],
        "deliveries": [one["id"] for one in await api.deliveries()],
    }


def list_processes(service: Service) -> str:
    assert service.process is not None
    return Path(f"/proc/{service.process.pid}/cmdline").read_bytes().decode(errors="replace")


async def drive_a_crash(run: Run) -> None:
    """A row that can't be read makes a request fail; then the process itself dies of a wrong start."""
    service = run.service
    prompt = f"{PROMPT} before the crash"
    task = await service.api.submit("flux-context/flux-kontext-pro", prompt)
    await service.api.accepted(task["id"])
    with sqlite3.connect(service.directory / "taskhook.db") as database:
        damaged = json.dumps({"input": {"prompt": prompt, "n": HEADER}, "metadata": PROVIDER_KEYS["acedata"]})
        database.execute("update tasks set doc = ?, due_ms = 0 where id = ?", (damaged, task["id"]))
    assert (await service.client.get(f"/v1/tasks/{task['id']}")).status_code == 500
    await until(lambda: "request.failed" in service.log())
    assert service.process is not None
    service.process.send_signal(signal.SIGABRT)
    await service.process.wait()
    with sqlite3.connect(service.directory / "taskhook.db") as database:
        database.execute("delete from tasks where id = ?", (task["id"],))
    for changes in (
        {"TASKHOOK_DATABASE_URL": "sqlite:////dev/null/taskhook.db"},
        {"TASKHOOK_PORT": "70000"},
        {"TASKHOOK_SIGNING_SECRET": HMAC_KEY},
        {"TASKHOOK_LOG_FORMAT": "console", "TASKHOOK_HOST": "192.0.2.1"},
    ):
        service.env |= (before := dict(service.env)) | changes
        await service.launch()
        assert service.process is not None
        assert await service.process.wait() != 0
        service.env = before


async def test_nothing_that_was_printed_holds_a_secret(run: Run) -> None:
    everything = SHOWN_NOWHERE | SHOWN_TO_WHO_SENT_IT | SHOWN_WITH_DELIVERIES | run.made
    lines = run.printed
    assert "request.failed" in lines
    assert "delivery.attempted" in lines
    assert found_in(lines, everything | {"idempotency keys": [IDEMPOTENCY]}) == {}


async def test_no_line_was_forged(run: Run) -> None:
    for line in run.printed.splitlines():
        assert line.isprintable(), repr(line)
        assert "event=forged" not in line or line.startswith("{")
    for line in run.printed.splitlines():
        if line.startswith("{"):
            assert json.loads(line)["event"] != "forged"


async def test_no_answer_holds_a_secret_of_the_service(run: Run) -> None:
    for request, text in run.answers.items():
        wanted = SHOWN_NOWHERE | {"callback tokens": run.made["callback tokens"]}
        assert found_in(text, wanted) == {}, request


async def test_made_secrets_are_answered_by_nothing_but_their_making(run: Run) -> None:
    for request, text in run.answers.items():
        if request != "POST /v1/endpoints" and not request.endswith("/rotate-secret"):
            assert found_in(text, {"endpoint secrets": run.made["endpoint secrets"]}) == {}, request
        if request != "POST /v1/keys":
            assert found_in(text, {"keys": run.made["keys of the store"]}) == {}, request


async def test_what_belongs_to_a_task_is_answered_with_the_task_alone(run: Run) -> None:
    for request, text in run.answers.items():
        sends_event = request.endswith("/body") or request.startswith(("GET /v1/events", "stream"))
        if not sends_event and not request.startswith(("GET /v1/tasks", "POST /v1/tasks")):
            allowed = ("prompts", "metadata") if "/v1/deliveries" in request else ()
            wanted = {name: values for name, values in SHOWN_TO_WHO_SENT_IT.items() if name not in allowed}
            assert found_in(text, wanted) == {}, request
        if not request.startswith("GET /v1/deliveries"):
            assert found_in(text, SHOWN_WITH_DELIVERIES) == {}, request


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/openapi.json", "/readyz", "/healthz", "/v1/providers"])
async def test_what_everybody_may_read_was_read_and_holds_nothing(run: Run, path: str) -> None:
    everything = SHOWN_NOWHERE | SHOWN_TO_WHO_SENT_IT | SHOWN_WITH_DELIVERIES | run.made
    assert found_in(run.answers[f"GET {path}"], everything) == {}


async def test_the_database_holds_what_is_encrypted_in_no_readable_form(run: Run) -> None:
    assert PROMPT in run.kept, "the right files were read"
    assert found_in(run.kept, SHOWN_NOWHERE | SHOWN_WITH_DELIVERIES | run.made) == {}


async def test_the_process_list_holds_nothing(run: Run) -> None:
    assert "service" in run.processes
    assert found_in(run.processes, SHOWN_NOWHERE) == {}


async def test_the_printed_settings_hold_nothing(run: Run) -> None:
    for options in ([], ["--json"]):
        command = [sys.executable, "-m", "service", "config", *options]
        env = {**run.service.env, "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        done = await asyncio.to_thread(
            subprocess.run, command, env=env, capture_output=True, text=True, cwd=run.service.directory, check=True
        )
        assert "TASKHOOK_SECRET_KEYS" in done.stdout
        assert found_in(done.stdout + done.stderr, SHOWN_NOWHERE) == {}


async def test_the_search_itself_finds_every_spelling() -> None:
    for spelled in (HEADER, quote(HEADER), HEADER.encode().hex(), base64.b64encode(f"ab{HEADER}c".encode()).decode()):
        assert found_in(f"before {spelled} after", {"header": [HEADER]}), spelled
    assert re.fullmatch(r"canary-[a-z-]+-[0-9a-f]{24}", HEADER)
