"""A call to a provider: nothing is called "not sent" that may have arrived, and no POST leaves twice."""

import asyncio
import gzip
import threading
import time
import tracemalloc
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from service.core.observation import NotSent, Unconfirmed
from service.outbound.client import REPLY_MAX, ProviderClient
from service.providers.base import HttpReply, HttpRequest
from tests.outbound.answers import BOMB, CUT_SHORT, OK, UNREADABLE
from tests.outbound.conftest import NOW, FakeEnv, FakeNames, Script, submit
from tests.support.server import Answer, Drip, Endless, Hang, Raw, Reply
from tests.support.wait import PATIENCE_S, until


async def test_the_call_arrives_as_given_and_the_answer_comes_back_whole(
    script: Script, client: ProviderClient
) -> None:
    url = script.url(Reply(202, {"id": "1"}, headers={"X-Trace": "a", "Retry-After": "3"}))
    reply = await client.send(submit(url, headers={"Authorization": "Bearer key", "User-Agent": "Taskhook/1"}))
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body, reply.received_at) == (202, b'{"id": "1"}', NOW)
    assert reply.headers["x-trace"] == "a"
    assert reply.headers["retry-after"] == "3"
    (request,) = script.server.requests
    assert (request.method, request.target, request.raw_body) == ("POST", "/0", b'{"prompt":"x"}')
    assert request.headers["authorization"] == "Bearer key"
    assert request.headers["user-agent"] == "Taskhook/1"
    assert request.headers["content-length"] == "14"


async def test_a_poll_has_no_body(script: Script, client: ProviderClient) -> None:
    poll = HttpRequest(method="GET", url=script.url() + "?id=1", headers={}, body=None, timeout_s=PATIENCE_S)
    assert isinstance(await client.send(poll), HttpReply)
    (request,) = script.server.requests
    assert (request.method, request.target, request.raw_body) == ("GET", "/0?id=1", b"")


@pytest.mark.parametrize("status", [200, 204, 301, 302, 307, 400, 401, 402, 404, 429, 500, 502, 503])
async def test_every_status_is_an_answer_and_no_redirect_is_followed(
    script: Script, client: ProviderClient, status: int
) -> None:
    headers = {"Location": script.server.url + "/elsewhere", "Set-Cookie": "session=1; Path=/"}
    url = script.url(Reply(status, headers=headers))
    for _ in range(2):
        reply = await client.send(submit(url))
        assert isinstance(reply, HttpReply)
        assert reply.status == status
    assert [request.target for request in script.server.requests] == ["/0", "/0"]
    assert "cookie" not in script.server.requests[1].headers


async def test_nobody_listening_was_not_sent(client: ProviderClient, closed_port: int) -> None:
    outcome = await client.send(submit(f"http://127.0.0.1:{closed_port}/"))
    assert outcome == NotSent(reason="connection refused")


async def test_a_name_that_does_not_resolve_was_not_sent() -> None:
    client = ProviderClient(FakeEnv(), resolver=FakeNames())
    assert await client.send(submit("http://gone.example/")) == NotSent(reason="dns: name does not resolve")
    await client.close()


async def test_a_tls_handshake_that_hangs_was_not_sent(script: Script, client: ProviderClient) -> None:
    url = script.url().replace("http:", "https:")
    outcome = await client.send(submit(url, timeout_s=0.4))
    assert outcome == NotSent(reason="connect timed out after 0.2 s")


async def test_no_free_connection_was_not_sent(script: Script) -> None:
    client = ProviderClient(FakeEnv(), limit=1)
    hanging = asyncio.create_task(client.send(submit(script.url(Hang()), timeout_s=PATIENCE_S)))
    await until(lambda: script.server.requests)
    outcome = await client.send(submit(script.url(), timeout_s=0.4))
    assert outcome == NotSent(reason="connect timed out after 0.2 s")
    assert len(script.server.requests) == 1
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    await client.close()


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer \N{SNOWMAN}"}, {"X-\ud800": "a"}])
async def test_a_header_that_is_none_was_not_sent(
    script: Script, client: ProviderClient, headers: dict[str, str]
) -> None:
    assert await client.send(submit(script.url(), headers=headers)) == NotSent(reason="invalid URL or header")
    assert script.server.requests == []


async def test_nothing_is_sent_after_the_end(script: Script, client: ProviderClient) -> None:
    await client.close()
    assert await client.send(submit(script.url())) == NotSent(reason="shutting down")


@pytest.mark.parametrize("name", UNREADABLE)
async def test_once_sent_a_missing_answer_is_unconfirmed(script: Script, client: ProviderClient, name: str) -> None:
    answer, reason = UNREADABLE[name]
    assert await client.send(submit(script.url(answer))) == Unconfirmed(reason=reason)
    assert len(script.server.requests) == 1, "sent once"


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_body_that_breaks_off_is_unconfirmed(script: Script, client: ProviderClient, name: str) -> None:
    assert await client.send(submit(script.url(CUT_SHORT[name]))) == Unconfirmed(reason="answer was cut short")


async def test_a_reset_before_the_request_was_read_is_unconfirmed(script: Script, client: ProviderClient) -> None:
    script.server.reset_unread = 1
    assert await client.send(submit(script.url())) == Unconfirmed(reason="connection reset")
    assert (script.server.connections, script.server.requests) == (1, [])


async def test_a_submit_on_a_connection_that_breaks_is_not_sent_on_another(
    script: Script, client: ProviderClient
) -> None:
    assert isinstance(await client.send(submit(script.url())), HttpReply)
    script.server.reset_unread = 1
    assert await client.send(submit(script.url())) == Unconfirmed(reason="connection reset")
    assert (script.server.connections, len(script.server.requests)) == (1, 1)


@pytest.mark.parametrize("answer", [Hang(), Drip(Reply(200, b"abcdefgh"), 0.1)], ids=["no answer", "a byte at a time"])
async def test_the_time_is_for_the_whole_answer(script: Script, client: ProviderClient, answer: Answer) -> None:
    outcome = await client.send(submit(script.url(answer), timeout_s=0.3))
    assert outcome == Unconfirmed(reason="timed out after 0.3 s")
    assert len(script.server.requests) == 1


async def test_an_answer_that_came_while_the_process_stood_still_is_read(client: ProviderClient) -> None:
    """The server has a thread of its own, so that it goes on while nothing else here does."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.set()
            standing_still.wait()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"taken")

        def log_message(self, *_: object) -> None:
            pass

    arrived, standing_still = threading.Event(), threading.Event()
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        call = asyncio.create_task(client.send(submit(f"http://127.0.0.1:{server.server_port}/", timeout_s=0.5)))
        await until(arrived.is_set)
        standing_still.set()
        time.sleep(2)  # noqa: ASYNC251 (standing still is the point)
        reply = await call
    assert isinstance(reply, HttpReply)
    assert reply.body == b"taken"


@pytest.mark.parametrize(
    "answer",
    [Endless(chunk=b"x" * 65536), Reply(200, b"x" * (REPLY_MAX + 1)), Reply(200, BOMB, {"Content-Encoding": "gzip"})],
    ids=["endless", "a byte too many", "a gzip bomb"],
)
async def test_an_answer_over_the_limit_keeps_its_status_alone(
    script: Script, client: ProviderClient, answer: Answer
) -> None:
    reply = await client.send(submit(script.url(answer)))
    assert isinstance(reply, HttpReply)
    assert (reply.status, reply.body, reply.too_long) == (200, b"", REPLY_MAX)


async def test_a_gzip_bomb_takes_no_memory(script: Script, client: ProviderClient) -> None:
    url = script.url(Reply(200, BOMB, {"Content-Encoding": "gzip"}))
    tracemalloc.start()
    try:
        await client.send(submit(url))
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
    finally:
        tracemalloc.stop()


async def test_an_answer_of_the_limit_is_read_whole(script: Script, client: ProviderClient) -> None:
    reply = await client.send(submit(script.url(Reply(200, b"x" * REPLY_MAX))))
    assert isinstance(reply, HttpReply)
    assert len(reply.body) == REPLY_MAX


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(b"plain")), ("X-GZIP", gzip.compress(b"plain")), ("deflate", zlib.compress(b"plain"))],
    ids=["gzip", "x-gzip", "deflate"],
)
async def test_an_encoding_that_nobody_asked_for_is_undone(
    script: Script, client: ProviderClient, encoding: str, body: bytes
) -> None:
    reply = await client.send(submit(script.url(Reply(200, body, headers={"Content-Encoding": encoding}))))
    assert isinstance(reply, HttpReply)
    assert reply.body == b"plain"
    assert script.server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("body", [gzip.compress(b"plain")[:-6], b"plain"], ids=["cut", "plain"])
async def test_a_broken_encoding_is_unconfirmed(script: Script, client: ProviderClient, body: bytes) -> None:
    outcome = await client.send(submit(script.url(Reply(200, body, headers={"Content-Encoding": "gzip"}))))
    assert outcome == Unconfirmed(reason="answer is not gzip")


async def test_an_answer_until_the_connection_ends_is_whole(script: Script, client: ProviderClient) -> None:
    reply = await client.send(submit(script.url(Raw(OK + b"\r\nabc"))))
    assert isinstance(reply, HttpReply)
    assert reply.body == b"abc"


async def test_reasons_hold_neither_key_nor_query(script: Script, client: ProviderClient, closed_port: int) -> None:
    headers = {"Authorization": "Bearer canary"}
    answers = [answer for answer, _ in UNREADABLE.values()]
    urls = [script.url(answer) + "?token=canary" for answer in answers]
    for url in [*urls, f"http://127.0.0.1:{closed_port}/?token=canary"]:
        outcome = await client.send(submit(url, headers=headers))
        assert "canary" not in repr(outcome)
