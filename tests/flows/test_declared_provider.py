"""A provider invented for this test works from a TOML file alone."""

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.api import new_prompt
from tests.support.server import Reply, Request, ScriptedServer
from tests.support.service import Service
from tests.support.wait import PATIENCE_S, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("declared")]

ID = "acme-art"
SECRET = "acme-secret-1"
DECLARATION = """\
schema = 1
id = "acme-art"
base_url = "https://api.acme.test/v9"
hosts = ["api.acme.test"]
secrets = ["key", "webhook_secret"]
errors = [ { http = [422], code = "invalid_request" } ]
[auth]
header = "X-Acme"
value = "k={key}"
[submit]
path = "/make/{+model}"
map = { "input.text" = "input.prompt" }
input = "input"
id = "body.job"
remember = { look = "body.look" }
[poll]
url = "{look}"
every_s = 0.2
state = "body.state"
states = { 0 = "queued", 1 = "running", 2 = "succeeded", 3 = "failed" }
[result]
urls = "body.files[].href"
[callback]
place = "header:X-Callback"
id = "body.job"
[callback.verify]
when_secret = "webhook_secret"
algorithm = "hmac-sha256"
message = "{timestamp}:{raw}"
signature = { header = "X-Acme-Sign", encoding = "hex" }
timestamp = { header = "X-Acme-Time" }
[models]
open = true
"""


class Acme:
    """The invented API. A job is done as soon as `done` names it."""

    def __init__(self) -> None:
        self.server = ScriptedServer(self._answer)
        self.submits: dict[str, Request] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self._ids = itertools.count(1)

    async def _answer(self, request: Request) -> Reply:
        if request.method == "POST":
            job = f"job-{next(self._ids)}"
            self.submits[job] = request
            return Reply(200, {"job": job, "look": f"{self.server.url}/elsewhere/{job}?sig=%7Ea"})
        job = request.path.rpartition("/")[2]
        return Reply(200, self.done.get(job, {"job": job, "state": 1}))

    def job_of(self, prompt: str) -> str:
        return next(job for job, sent in self.submits.items() if sent.json["input"]["text"] == prompt)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acme() -> AsyncIterator[Acme]:
    made = Acme()
    await made.server.listen()
    yield made
    await made.server.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(acme: Acme, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    directory = tmp_path_factory.mktemp("declared")
    (directory / "providers").mkdir()
    (directory / "providers" / "acme.toml").write_text(DECLARATION)
    env = {
        "TASKHOOK_PROVIDERS_DIR": str(directory / "providers"),
        "TASKHOOK_ACME_ART_API_KEY": "key-default",
        "TASKHOOK_ACME_ART_WEBHOOK_SECRET": SECRET,
        "TASKHOOK_ACME_ART_BASE_URL": f"{acme.server.url}/v9",
    }
    made = Service(directory, (), env)
    await made.start()
    yield made
    await made.close()


async def send(acme: Acme, job: str, body: bytes, *, secret: str = SECRET) -> int:
    """Call back as the invented API does."""
    sent_at = str(int(time.time()))
    signature = hmac.new(secret.encode(), f"{sent_at}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Acme-Time": sent_at, "X-Acme-Sign": signature}
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
        return (await client.post(acme.submits[job].headers["x-callback"], content=body, headers=headers)).status_code


async def submitted(service: Service, acme: Acme, **rest: Any) -> tuple[dict[str, Any], str]:
    prompt = new_prompt()
    task = await service.api.submit(f"{ID}/any/model-1", prompt, **rest)
    await service.api.accepted(task["id"])
    return task, acme.job_of(prompt)


async def test_a_signed_callback_ends_the_task(service: Service, acme: Acme) -> None:
    task, job = await submitted(service, acme)
    assert acme.submits[job].target == "/v9/make/any/model-1"
    assert acme.submits[job].headers["x-acme"] == "k=key-default"
    body = json.dumps({"job": job, "state": 2, "files": [{"href": "https://cdn.test/a b.png"}]}).encode()
    assert await send(acme, job, body, secret="wrong") == 403
    assert await send(acme, job, body) == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["tracking"]["via"], after["provider_task_id"]) == ("succeeded", "callback", job)
    assert "https://cdn.test/a%20b.png" in json.dumps(after["result"])


async def test_a_poll_goes_to_the_remembered_url_with_the_key(service: Service, acme: Acme) -> None:
    task, job = await submitted(service, acme)
    acme.done[job] = {"job": job, "state": 2, "files": [{"href": "https://cdn.test/b.png"}]}
    await service.client.post(f"/v1/tasks/{task['id']}/poll")
    after = await service.api.finished(task["id"])
    assert (after["status"], after["tracking"]["via"]) == ("succeeded", "poll")
    polls = [request for request in acme.server.requests if request.path == f"/elsewhere/{job}"]
    assert {(request.target, request.headers["x-acme"]) for request in polls} == {
        (f"/elsewhere/{job}?sig=%7Ea", "k=key-default")
    }


async def test_a_broken_declaration_stops_the_start_with_one_line(service: Service, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text(DECLARATION.replace("state = ", "stat = "))
    broken = Service(tmp_path, (), {"TASKHOOK_PROVIDERS_DIR": str(tmp_path)})
    await broken.launch()

    async def ended() -> bool:
        return broken.process is not None and broken.process.returncode is not None

    await until(ended, what="the service to stop")
    lines = [line for line in broken.log_path.read_text().splitlines() if line.strip()]
    assert len(lines) == 1
    assert "broken.toml:19:1: poll.stat: unknown key; did you mean state?" in lines[0]
    await broken.close()
