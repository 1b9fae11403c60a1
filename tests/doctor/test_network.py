"""Findings about the public URL, the providers, and their clocks."""

import asyncio
import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.client import utc_now
from service.doctor.finding import Finding
from service.doctor.network import Clock, Said, check_network, judge_certificate, judge_clocks, judge_way_back
from service.settings import load
from tests.doctor.test_configuration import GOOD
from tests.support.env import START
from tests.support.server import Answer, Hang, Reply, Request, ScriptedServer
from tests.support.stand_in import closed_port


@asynccontextmanager
async def serving(rules: Callable[[Request], Answer]) -> AsyncIterator[ScriptedServer]:
    async def answer(request: Request) -> Answer:
        return rules(request)

    server = ScriptedServer(answer)
    await server.listen()
    try:
        yield server
    finally:
        await server.close()


async def examined(
    clocks: list[Clock] | None = None, now: Callable[[], datetime] = lambda: START, **changes: str
) -> dict[str, Finding]:
    settings = load(GOOD | {f"TASKHOOK_{name}": value for name, value in changes.items()}, None)
    found = await asyncio.to_thread(lambda: list(check_network(settings, clocks or [], now)))
    return {finding.check: finding for finding in found}


@pytest.mark.parametrize(
    ("reply", "grade", "says"),
    [
        (Reply(200, {"code": 422, "msg": "recordInfo is null"}), "ok", "takes the key"),
        (Reply(200, {"code": 401, "msg": "unauthorized"}), "fail", "refuses the key"),
        (Reply(401, {"error": "no"}), "fail", "refuses the key"),
        (Reply(403, "<html>"), "warn", "no balance"),
        (Reply(429), "warn", "limits us"),
        (Reply(502, "<html>"), "warn", "answers 502"),
        (Reply(200, "x" * 1_000_000), "warn", "answers 200"),
    ],
)
async def test_a_provider_is_asked_for_a_task_that_is_not_there(reply: Reply, grade: str, says: str) -> None:
    async with serving(lambda _: reply) as server:
        found = (await examined(PUBLIC_URL="", FLUXAPI_AI_BASE_URL=server.url))["fluxapi-ai"]
        (request,) = server.requests
    assert (found.grade, says in found.says) == (grade, True), found
    assert (request.method, request.query) == ("GET", {"taskId": "taskhook-doctor"})
    assert request.headers["authorization"] == "Bearer a-key-of-the-provider"


async def test_a_provider_that_is_not_there_or_can_not_be_asked_is_told() -> None:
    with closed_port() as url:
        found = await examined(PUBLIC_URL="", FLUXAPI_AI_BASE_URL=url, FLUXAPI_ORG_API_KEY="key-of-another")
    assert (found["fluxapi-ai"].grade, "(connection refused)" in found["fluxapi-ai"].says) == ("fail", True)
    assert (found["fluxapi-org"].grade, found["fluxapi-org"].says[:11]) == ("skipped", "Not checked")
    assert found["acedata"].says == "Not configured."
    assert not any("key-of" in finding.says + finding.advice for finding in found.values())


REFUSAL = {"detail": "This callback URL is not one of ours."}


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(200, {"hello": "world"}), "something else answers (200"),
        (Reply(404, "<h1>nginx"), "something else answers (404"),
        (
            Reply(301, "", {"Location": "https://new.example.com/callbacks/x/secret-token"}),
            "redirects to https://new.exa",
        ),
        (Reply(502, "<h1>nginx"), "something answers with 502"),
        (Reply(403, "<h1>nginx"), "other secret keys, or to something like one"),
        (Reply(403, REFUSAL), "other secret keys"),
    ],
)
async def test_whoever_else_is_at_the_public_url_is_found_out(reply: Reply, says: str) -> None:
    async with serving(lambda _: reply) as server:
        found = await examined(PUBLIC_URL=server.url, FLUXAPI_AI_BASE_URL=server.url)
    assert (found["way back"].grade, says in found["way back"].says) == ("fail", True), found["way back"]
    assert "secret-token" not in found["way back"].says


@pytest.mark.parametrize(
    ("status", "detail", "grade"),
    [
        (404, "There is no such task.", "ok"),
        (403, "The signature of this callback does not hold.", "ok"),
        (403, REFUSAL["detail"], "fail"),
        (200, "", "fail"),
    ],
)
def test_who_tells_our_token_from_a_forged_one_has_our_keys(status: int, detail: str, grade: str) -> None:
    """Where a provider signs its callbacks, too, that check comes after the token's, and refuses in other words."""
    forged = Said(at=START, status=403, body=json.dumps(REFUSAL).encode())
    genuine = Said(at=START, status=status, body=json.dumps({"detail": detail}).encode())
    assert judge_way_back(forged, genuine).grade == grade


async def test_what_is_sent_to_the_public_url_moves_no_task_wherever_it_arrives() -> None:
    async with serving(lambda _: Reply(403, REFUSAL)) as server:
        await examined(PUBLIC_URL=server.url, FLUXAPI_AI_BASE_URL=server.url)
        sent = [request for request in server.requests if request.method == "POST"]
    tokens = [request.path.rpartition("/")[2] for request in sent]
    assert [token.partition(".")[0] for token in tokens] == ["task_" + "0" * 32] * 2
    assert tokens[0] != tokens[1]
    assert {request.raw_body for request in sent} == {b"{}"}


async def test_clocks_are_read_from_whoever_answers() -> None:
    date = format_datetime(START.replace(minute=3), usegmt=True)
    clocks: list[Clock] = [Clock(whose="nobody's", ahead_s=0.0)]
    async with serving(lambda _: Reply(404, "", {"Date": date})) as server:
        await examined(clocks, PUBLIC_URL="", FLUXAPI_AI_BASE_URL=server.url)
    assert clocks[1:] == [Clock(whose="fluxapi-ai's", ahead_s=-180.5)]


@pytest.mark.parametrize(
    ("skews", "grade"),
    [([0.4], "ok"), ([-6.0], "warn"), ([121.0], "fail"), ([0.1, 9_000.0, 0.2], "ok"), ([], "skipped")],
)
def test_one_wrong_clock_among_many_is_not_ours(skews: list[float], grade: str) -> None:
    assert judge_clocks([Clock(whose="a", ahead_s=skew) for skew in skews]).grade == grade


@pytest.mark.parametrize(("days", "grade"), [(90.0, "ok"), (13.9, "warn"), (2.9, "fail"), (-1.0, "fail")])
def test_a_certificate_is_told_of_before_it_expires(days: float, grade: str) -> None:
    assert judge_certificate(days).grade == grade


@contextmanager
def tls_server(folder: Path) -> Iterator[str]:
    """With a certificate for localhost that holds for ten days, its own authority."""
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "10", "-nodes"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "cert.pem", *subject]
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(418)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refuses) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_the_certificate_of_the_public_url_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_server(tmp_path) as url:
        changes = {"PUBLIC_URL": url, "FLUXAPI_AI_BASE_URL": "http://127.0.0.1:9"}
        unknown = await examined(now=utc_now, **changes)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        known = await examined(now=utc_now, **changes)
    assert (unknown["certificate"].grade, known["certificate"].grade) == ("fail", "warn")
    assert known["certificate"].says == "It expires in 10 days."
    assert "its certificate is not valid" in unknown["way back"].says
    assert "something else answers (418" in known["way back"].says


async def test_a_public_url_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.doctor.network.TIMEOUT_S", 0.2)
    async with serving(lambda _: Hang()) as server:
        found = await examined(
            PUBLIC_URL=server.url, FLUXAPI_AI_API_KEY="", ACEDATA_API_KEY="k", ACEDATA_BASE_URL=server.url
        )
    assert "(no answer within 0.2 s)" in found["way back"].says
    assert "(no answer within 0.2 s)" in found["acedata"].says
