"""The parts the flows are tested with, tested by themselves."""

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.process import Forked, run_python, start_python
from tests.support.receiver import Receiver, redirect, status
from tests.support.server import Answer, Cut, Drip, Endless, Hang, Raw, Reply, Request, Reset, ScriptedServer
from tests.support.upstream import (
    FAKES,
    FakeAcedata,
    FakeFluxapiAi,
    FakeFluxapiOrg,
    FakeFluxContext,
    FakeProvider,
    accept,
    answer,
    hang,
    kie_signature,
    refuse,
    reset,
    throttle,
)
from tests.support.wait import PATIENCE_S, soon, until

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def client(fake: FakeProvider, key: str | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=fake.server.url,
        headers={"User-Agent": "tests/1", "Authorization": f"Bearer {key or fake.key}"},
        timeout=PATIENCE_S,
        trust_env=False,
    )


async def serve(server: ScriptedServer, path: str = "/") -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as plain:
        return await plain.get(path)


def scripted(*answers: object) -> ScriptedServer:
    left = list(answers)

    async def next_answer(_: Request) -> object:
        return left.pop(0)

    return ScriptedServer(next_answer)  # type: ignore[arg-type]


async def test_a_wait_that_never_comes_true_fails_and_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match="the moon"):
        await until(lambda: False, at_most_s=0.05, what="the moon")


async def test_a_connection_is_kept_and_every_request_is_recorded() -> None:
    server = scripted(Reply(200, {"a": 1}), Reply(503, "later", {"Retry-After": "2"}))
    await server.listen()
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as plain:
        assert (await plain.post("/x?b=2", json={"c": 3})).json() == {"a": 1}
        second = await plain.get("/y")
    assert (second.status_code, second.headers["retry-after"], second.text) == (503, "2", "later")
    assert server.connections == 1
    first = server.requests[0]
    assert (first.method, first.path, first.query, first.json) == ("POST", "/x", {"b": "2"}, {"c": 3})
    await server.close()


async def test_a_chunked_body_is_read_whole() -> None:
    server = scripted(Reply())
    await server.listen()

    async def parts():
        yield b"one "
        yield b"two"

    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as plain:
        await plain.post("/", content=parts())
    assert server.requests[0].raw_body == b"one two"
    await server.close()


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Reset(), httpx.ReadError),
        (Reset(rst=False), httpx.RemoteProtocolError),
        (Hang(), httpx.ReadTimeout),
        (Raw(b"\x00\xff nonsense\r\n\r\n"), httpx.RemoteProtocolError),
        (Cut(Reply(200, "x" * 100), 60), httpx.TransportError),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else "",
)
async def test_a_bad_answer_is_as_bad_as_scripted(bad: object, error: type[Exception]) -> None:
    server = scripted(bad)
    await server.listen()
    timeout = httpx.Timeout(PATIENCE_S, read=0.5 if error is httpx.ReadTimeout else PATIENCE_S)
    async with httpx.AsyncClient(base_url=server.url, timeout=timeout, trust_env=False) as plain:
        with pytest.raises(error):
            await plain.get("/")
    await until(lambda: len(server.requests) == 1)
    await server.close()


@pytest.mark.parametrize("slow", [Endless(), Drip(Reply(200, "x" * 50), 0.05)], ids=["endless", "drip"])
async def test_an_answer_may_come_in_parts_and_not_end(slow: Answer) -> None:
    server = scripted(slow)
    await server.listen()
    plain = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False)
    async with plain, plain.stream("GET", "/") as reply:
        parts = reply.aiter_raw()
        assert [await anext(parts) for _ in range(3)]
        assert server.connections == 1
    await server.close()


async def test_a_request_can_be_reset_before_it_is_read() -> None:
    server = scripted(Reply())
    await server.listen()
    server.reset_unread = 1
    with pytest.raises(httpx.TransportError):
        await serve(server)
    assert server.requests == []
    assert (await serve(server)).status_code == 200
    await server.close()


async def test_a_closed_server_refuses_and_listens_again_on_its_port() -> None:
    server = scripted(Reply(), Reply())
    await server.listen()
    port = server.port
    await serve(server)
    await server.close()
    with pytest.raises(httpx.ConnectError):
        await serve(server)
    await server.listen()
    assert server.port == port
    assert (await serve(server)).status_code == 200
    await server.close()


def submit_body(fake: FakeProvider, prompt: str, **rest: object) -> tuple[str, dict[str, object]]:
    return {
        "flux-context": ("/v1/images/generations", {"prompt": prompt, "model": "flux-kontext-pro"}),
        "fluxapi-ai": (
            "/api/v1/flux/kontext/generate",
            {"prompt": prompt, "model": "flux-kontext-pro", "outputFormat": "png"},
        ),
        "acedata": ("/flux/images", {"prompt": prompt, "model": "flux-dev", "action": "generate", "async": True}),
        "fluxapi-org": ("/v1/images/generations", {"prompt": prompt, "model": "flux-dev"}),
    }[fake.provider]


@pytest.mark.parametrize("kind", FAKES)
async def test_a_provider_follows_its_script_step_by_step(kind: type[FakeProvider]) -> None:
    async with kind() as fake, client(fake) as plain:
        plan = fake.script("p", submit=[throttle("1"), refuse("no_credits"), reset(), accept()])
        path, body = submit_body(fake, "p")
        assert (await plain.post(path, json=body)).status_code == 429
        await plain.post(path, json=body)
        with pytest.raises(httpx.TransportError):
            await plain.post(path, json=body)
        assert len(plan.jobs) == 0
        assert (await plain.post(path, json=body)).status_code in (200, 202)
        assert (len(plan.submits), len(plan.jobs)) == (4, 1)
        fake.check_requests()


@pytest.mark.parametrize("kind", FAKES)
async def test_a_provider_refuses_a_wrong_key_and_a_nameless_client(kind: type[FakeProvider]) -> None:
    async with kind() as fake:
        path, body = submit_body(fake, "p")
        async with client(fake, "wrong") as plain:
            refused = await plain.post(path, json=body)
            assert refused.status_code == 401 or refused.json()["code"] == 401
        with pytest.raises(AssertionError):
            fake.check_requests()
        async with client(fake) as plain:
            assert (await plain.post(path, json=body, headers={"User-Agent": "python-httpx/0"})).status_code == 403


async def test_flux_context_is_polled_from_processing_to_completed() -> None:
    async with FakeFluxContext() as fake, client(fake) as plain:
        plan = fake.script("p")
        job_id = (await plain.post(*[fake.path], json=submit_body(fake, "p")[1])).json()["taskId"]
        assert (await plain.get(f"{fake.path}/{job_id}")).json() == {"status": "processing"}
        assert (await plain.get(f"{fake.path}/{job_id}")).json()["result"]["url"] == fake.image_url(plan.job)
        assert (await plain.get(f"{fake.path}/{job_id}")).json()["status"] == "completed"
        assert (await plain.get(f"{fake.path}/unknown")).status_code == 404
        assert len(plan.poll_requests) == 3


async def test_fluxapi_ai_calls_back_and_its_signature_is_the_published_one() -> None:
    assert kie_signature("test-webhook-hmac-key", "task12345", 1769670760)["X-Webhook-Signature"] == (
        "iJc+9lRS0+RNENe+floXduDty7iYFX8wYWqN4ZFlyfc="
    )
    ours = scripted(Reply(500), Reply(200))
    await ours.listen()
    async with FakeFluxapiAi("test-webhook-hmac-key") as fake, client(fake) as plain:
        plan = fake.script("p", submit=[accept(job_id="task12345")], callback="success", callback_tries=3)
        path, body = submit_body(fake, "p")
        await plain.post(path, json=body | {"callBackUrl": f"{ours.url}/callbacks/fluxapi-ai/abc"})
        await until(lambda: len(plan.callback_answers) == 2)
        assert [one.status for one in plan.callback_answers] == [500, 200]
        first = ours.requests[0]
        assert first.path == f"/callbacks/fluxapi-ai/{plan.job.token}"
        assert first.json["data"]["taskId"] == "task12345"
        assert "x-webhook-signature" in first.headers
        record = (await plain.get(f"{fake.prefix}/record-info?taskId=task12345")).json()
        assert record["data"]["successFlag"] == 1
    await ours.close()


async def test_a_callback_can_come_before_the_answer_to_its_submit() -> None:
    order: list[str] = []

    async def note(_: Request) -> Reply:
        order.append("callback")
        return Reply()

    ours = ScriptedServer(note)
    await ours.listen()
    async with FakeAcedata() as fake, client(fake) as plain:
        fake.script("p", submit=[accept(callback_first=True)], callback="moderated")
        path, body = submit_body(fake, "p")
        await plain.post(path, json=body | {"callback_url": f"{ours.url}/callbacks/acedata/abc"})
        order.append("answer")
    assert order == ["callback", "answer"]
    assert ours.requests[0].json["error"]["code"] == "forbidden"
    await ours.close()


async def test_acedata_complains_of_a_submit_that_would_block() -> None:
    async with FakeAcedata() as fake, client(fake) as plain:
        path, body = submit_body(fake, "p")
        del body["async"]
        finished = (await plain.post(path, json=body)).json()
        assert finished["success"] is True
        with pytest.raises(AssertionError, match="blocks for minutes"):
            fake.check_requests()
        record = (await plain.post("/flux/tasks", json={"id": finished["task_id"]})).json()
        assert "response" not in record
        assert (await plain.post("/flux/tasks", json={"id": "unknown"})).json() == {}


async def test_fluxapi_org_answers_with_as_many_pictures_as_were_asked_for() -> None:
    async with FakeFluxapiOrg() as fake, client(fake) as plain:
        path, body = submit_body(fake, "p")
        pictures = (await plain.post(path, json=body | {"n": 2})).json()["data"]
        assert len({picture["url"] for picture in pictures}) == 2


async def test_a_submit_may_be_taken_and_its_answer_lost() -> None:
    async with FakeFluxContext() as fake, client(fake) as plain:
        plan = fake.script("p", submit=[hang(accepted=True), answer(Reply(502, "<html>"), accepted=True)])
        path, body = submit_body(fake, "p")
        with pytest.raises(httpx.ReadTimeout):
            await plain.post(path, json=body, timeout=httpx.Timeout(PATIENCE_S, read=0.2))
        assert (await plain.post(path, json=body)).status_code == 502
        await until(lambda: (len(plan.submits), len(plan.jobs)) == (2, 2))


def signed(body: bytes, id: str = "evt_1") -> dict[str, str]:
    at = datetime.now(UTC)
    signature = Webhook(SECRET).sign(id, at, body.decode())
    stamp = str(int(at.timestamp()))
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}


async def test_a_subscriber_answers_by_script_and_verifies_what_it_got() -> None:
    body = json.dumps({"id": "evt_1", "type": "task.succeeded", "data": {"id": "task_1"}}).encode()
    async with Receiver() as receiver, httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as plain:
        one = receiver.subscriber("one", [status(500), redirect("http://127.0.0.1:1/"), status(410)])
        codes = [(await plain.post(one.url, content=body, headers=signed(body))).status_code for _ in range(4)]
        assert codes == [500, 302, 410, 204]
        assert one.types() == ["task.succeeded"] * 4
        assert one.received[0].verify(SECRET)["id"] == "evt_1"
        assert len(one.of("task_1")) == 4
        with pytest.raises(WebhookVerificationError):
            one.received[0].verify("whsec_" + "A" * 32)
        await plain.post(receiver.server.url + "/elsewhere")
        assert [stray.path for stray in receiver.strays] == ["/elsewhere"]


async def test_a_receiver_that_is_closed_ends_what_hangs() -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=None) as plain:
        receiver = await Receiver().start()
        one = receiver.subscriber("one", then=Hang())
        waiting = asyncio.create_task(plain.post(one.url, json={"type": "x", "data": {}}))
        await until(lambda: one.in_flight == 1)
        await receiver.stop()
        with pytest.raises(httpx.TransportError):
            await soon(waiting)


TELLS = """
import os, sys
print(os.getcwd(), os.environ["WHO"], sys.argv[1:])
print("on the other", file=sys.stderr)
sys.exit(7)
"""


async def test_a_forked_process_is_like_one_that_was_started(tmp_path: Path) -> None:
    """Where it runs, what it is given, what it says and how it ends; once by a fork and once by a start."""
    (tmp_path / "tells.py").write_text(TELLS)
    forked = await run_python("service", "--no-such-option", cwd=tmp_path, env={})
    assert forked.code == 2 and "No such option" in forked.err
    env = {"WHO": "me", "PYTHONPATH": str(tmp_path)}
    started = await run_python("tells", "a", "b c", cwd=tmp_path, env=env)
    assert (started.code, started.out, started.err) == (7, f"{tmp_path} me ['a', 'b c']\n", "on the other\n")


async def test_a_forked_process_hears_signals_and_its_end_is_told(tmp_path: Path) -> None:
    settings = {"TASKHOOK_SANDBOX": "true", "TASKHOOK_PORT": "0", "TASKHOOK_DATABASE_URL": f"sqlite:///{tmp_path}/db"}
    processes = [await start_python("service", "serve", cwd=tmp_path, env=settings) for _ in range(2)]
    for process, number, code in zip(processes, (signal.SIGTERM, signal.SIGKILL), (0, -signal.SIGKILL), strict=True):
        assert isinstance(process, Forked) or sys.platform != "linux"
        assert process.stderr is not None and process.stdout is not None
        while b"web.started" not in await process.stderr.readline():
            assert process.returncode is None
        process.send_signal(number)
        await asyncio.gather(process.stderr.read(), process.stdout.read())
        assert await process.wait() == code
        process.kill()
