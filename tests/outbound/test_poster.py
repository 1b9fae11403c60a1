"""A post to a subscriber: what it sends, what it makes of each answer, and what no answer can do to it."""

import asyncio
import time

import pytest

from service.outbound.client import Poster
from service.outbound.guard import Guard
from tests.outbound.answers import BAD_2XX, BOMB, COMPLETE_HEADS, CUT_SHORT, OK, SURPLUS, UNREADABLE, Kept
from tests.outbound.conftest import FakeNames, Script
from tests.support.server import Answer, Drip, Endless, Hang, Raw, Reply
from tests.support.wait import PATIENCE_S, until

METADATA = "http://169.254.169.254/latest/meta-data/"


async def test_the_request_arrives_as_given_and_the_connection_is_used_again(script: Script, poster: Poster) -> None:
    url = script.url() + "?a=1&b=%2F"
    for _ in range(2):
        attempted = await poster.post(url, {"Content-Type": "application/json", "webhook-id": "evt_1"}, b'{"id":1}')
    first = script.server.requests[0]
    assert (first.method, first.target, first.raw_body) == ("POST", "/0?a=1&b=%2F", b'{"id":1}')
    assert first.headers["webhook-id"] == "evt_1"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["accept-encoding"] == "identity"
    assert first.headers["user-agent"] == "Taskhook"
    assert "transfer-encoding" not in first.headers
    assert script.server.connections == 1
    assert attempted.received
    assert (attempted.status_code, attempted.error, attempted.excerpt) == (200, None, "fine")


async def test_a_body_over_a_mebibyte_arrives_whole(script: Script, poster: Poster) -> None:
    body = bytes(range(256)) * 6000
    assert (await poster.post(script.url(), {}, body)).received
    assert script.server.requests[0].raw_body == body
    assert script.server.requests[0].headers["content-length"] == str(len(body))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
async def test_any_2xx_is_received(script: Script, poster: Poster, status: int) -> None:
    attempted = await poster.post(script.url(Reply(status)), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (True, status, None)


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 410, 413, 429, 500, 502, 503, 999])
async def test_no_other_status_is_received(script: Script, poster: Poster, status: int) -> None:
    reply = Reply(status, b"" if status == 304 else b"no\0pe\xff", headers={"Retry-After": "7"})
    attempted = await poster.post(script.url(reply), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (False, status, f"status {status}")
    assert attempted.retry_after == "7"
    assert attempted.excerpt == ("" if status == 304 else "nope\N{REPLACEMENT CHARACTER}")


async def test_a_switch_of_protocols_is_not_received(script: Script, poster: Poster) -> None:
    switch = Raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello")
    attempted = await poster.post(script.url(switch), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (False, 101, "status 101")


async def test_interim_answers_are_passed_over(script: Script, poster: Poster) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
    attempted = await poster.post(script.url(Raw(interim + OK + b"Content-Length: 2\r\n\r\nok")), {}, b"{}")
    assert (attempted.received, attempted.excerpt) == (True, "ok")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("second", [True, False])
async def test_a_redirect_is_named_and_never_followed(
    script: Script, poster: Poster, status: int, second: bool
) -> None:
    target = script.server.url + "/elsewhere" if second else METADATA
    url = script.url(Reply(status, headers={"Location": target}))
    attempted = await poster.post(url, {}, b"{}")
    assert (attempted.received, attempted.status_code) == (False, status)
    assert (attempted.error, attempted.location) == (f"redirect to {target}", target)
    assert [request.target for request in script.server.requests] == ["/0"]


async def test_header_bytes_that_are_no_text_can_be_stored(script: Script, poster: Poster) -> None:
    wild = b"HTTP/1.1 302 \xff\r\nLocation: http://x/\xff\x80\t\r\nRetry-After: \xfe\r\nContent-Length: 2\r\n\r\n\xff\0"
    attempted = await poster.post(script.url(Raw(wild)), {}, b"{}")
    for text in (attempted.error, attempted.location, attempted.retry_after, attempted.excerpt):
        assert text
        assert "\0" not in text
        assert text.encode()


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_that_is_none_has_a_typed_reason(script: Script, poster: Poster, name: str) -> None:
    answer, reason = UNREADABLE[name]
    attempted = await poster.post(script.url(answer), {}, b"{}")
    status, error = (200, None) if name in COMPLETE_HEADS else (None, reason)
    assert (attempted.status_code, attempted.error, attempted.excerpt) == (status, error, "")
    assert len(script.server.requests) == 1


@pytest.mark.parametrize("name", BAD_2XX)
@pytest.mark.parametrize("piece", [1_000, 9])
async def test_an_event_is_received_once_the_head_says_2xx(
    script: Script, poster: Poster, name: str, piece: int
) -> None:
    data, status = BAD_2XX[name]
    attempted = await poster.post(script.url(Kept(data, piece)), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (True, status, None)
    if name not in SURPLUS:
        assert (await poster.post(script.url(), {}, b"{}")).received


@pytest.mark.parametrize("status", [304, 400, 410, 503])
async def test_another_status_stands_too_when_its_body_breaks_the_rules(
    script: Script, poster: Poster, status: int
) -> None:
    two_framings = b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n"
    answer = Raw(b"HTTP/1.1 %d No\r\nRetry-After: 7\r\n" % status + two_framings)
    attempted = await poster.post(script.url(answer), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (False, status, f"status {status}")
    assert attempted.retry_after == "7"


@pytest.mark.parametrize("name", CUT_SHORT)
async def test_a_2xx_whose_body_breaks_off_is_received(script: Script, poster: Poster, name: str) -> None:
    attempted = await poster.post(script.url(CUT_SHORT[name]), {}, b"{}")
    assert (attempted.received, attempted.status_code, attempted.error) == (True, 200, None)
    assert "abcde".startswith(attempted.excerpt)


async def test_the_body_of_a_2xx_is_not_waited_for(script: Script) -> None:
    poster = Poster(Guard(allow_private=True), timeout_s=PATIENCE_S)
    attempted = await poster.post(script.url(Drip(Reply(200, b"x" * 1_000), 0.3)), {}, b"{}")
    assert attempted.received and attempted.duration_ms < 20_000
    assert set(attempted.excerpt) <= {"x"} and len(attempted.excerpt) < 100
    await poster.close()


@pytest.mark.parametrize("answer", [Endless(), Reply(200, b"x" * 10_000_000)], ids=["endless", "10 MB"])
async def test_a_large_answer_is_received_after_its_first_kib_and_its_connection_ends(
    script: Script, poster: Poster, answer: Answer
) -> None:
    url = script.url(answer)
    for _ in range(2):
        attempted = await poster.post(url, {}, b"{}")
        assert (attempted.received, attempted.excerpt) == (True, "x" * 1024)
    assert script.server.connections == 2


async def test_a_body_of_exactly_one_kib_leaves_the_connection_usable(script: Script, poster: Poster) -> None:
    url = script.url(Reply(200, b"x" * 1024))
    for _ in range(2):
        assert len((await poster.post(url, {}, b"{}")).excerpt) == 1024
    assert script.server.connections == 1


async def test_a_gzip_bomb_stays_packed(script: Script, poster: Poster) -> None:
    attempted = await poster.post(script.url(Reply(200, BOMB, headers={"Content-Encoding": "gzip"})), {}, b"{}")
    assert attempted.received
    assert attempted.excerpt.startswith("\x1f\N{REPLACEMENT CHARACTER}")
    assert len(attempted.excerpt) <= 1024


@pytest.mark.parametrize(
    ("answer", "status"),
    [(Hang(), None), (Drip(Reply(500, b"abcdefgh"), 0.1), 500)],
    ids=["no answer", "an error, a byte at a time"],
)
async def test_the_time_is_for_the_whole_answer(script: Script, answer: Answer, status: int | None) -> None:
    poster = Poster(Guard(allow_private=True), timeout_s=0.3)
    started = time.monotonic()
    attempted = await poster.post(script.url(answer), {}, b"{}")
    assert time.monotonic() - started > 0.29
    assert (attempted.received, attempted.status_code) == (False, status)
    assert attempted.error == "timed out after 0.3 s"
    assert attempted.duration_ms >= 290
    assert attempted.excerpt == ("" if status is None else "abcdefgh"[: len(attempted.excerpt)])
    await poster.close()


async def test_nobody_listening_is_refused(poster: Poster, closed_port: int) -> None:
    attempted = await poster.post(f"http://127.0.0.1:{closed_port}/", {}, b"{}")
    assert (attempted.status_code, attempted.error) == (None, "connection refused")


async def test_a_name_that_fails_and_then_heals(script: Script) -> None:
    names = FakeNames(flaky_example=[[], ["127.0.0.1"]])
    poster = Poster(Guard(allow_private=True, resolver=names))
    url = f"http://flaky.example:{script.server.port}/"
    assert (await poster.post(url, {}, b"{}")).error == "dns: name does not resolve"
    assert (await poster.post(url, {}, b"{}")).received
    await poster.close()


async def test_cookies_are_not_kept(script: Script) -> None:
    poster = Poster(Guard(allow_private=True, resolver=FakeNames(shop_example=[["127.0.0.1"]])))
    path = script.url(Reply(200, headers={"Set-Cookie": "session=1; Path=/"})).removeprefix(script.server.url)
    for _ in range(2):
        await poster.post(f"http://shop.example:{script.server.port}{path}", {}, b"{}")
    await poster.close()
    assert "cookie" not in script.server.requests[1].headers


async def test_a_proxy_of_the_environment_is_not_used(
    script: Script, poster: Poster, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    assert (await poster.post(script.url(), {}, b"{}")).received


@pytest.mark.parametrize("headers", [{"x": "a\r\nb: c"}, {"x\n": "a"}, {"x": "a\0"}])
async def test_a_header_that_would_be_two_is_not_sent(script: Script, poster: Poster, headers: dict[str, str]) -> None:
    attempted = await poster.post(script.url(), headers, b"{}")
    assert (attempted.received, attempted.error) == (False, "invalid URL or header")
    assert script.server.requests == []


async def test_a_cancelled_post_closes_its_connection(script: Script, poster: Poster) -> None:
    task = asyncio.create_task(poster.post(script.url(Hang()), {}, b"{}"))
    await until(lambda: script.server.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await poster.post(script.url(), {}, b"{}")).received
    assert script.server.connections == 2


async def test_a_host_that_hangs_holds_up_no_other(script: Script) -> None:
    names = FakeNames(slow_example=[["127.0.0.1"]], quick_example=[["127.0.0.1"]])
    poster = Poster(Guard(allow_private=True, resolver=names), limit_per_host=2)
    path = script.url(Hang()).removeprefix(script.server.url)
    slow = f"http://slow.example:{script.server.port}{path}"
    hanging = [asyncio.create_task(poster.post(slow, {}, b"{}")) for _ in range(8)]
    await until(lambda: len(script.server.requests) == 2)
    assert (await poster.post(f"http://quick.example:{script.server.port}/", {}, b"{}")).received
    assert len(script.server.requests) == 3
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    await poster.close()
