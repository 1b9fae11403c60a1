"""Requests that two servers could read in two ways: each is refused, and nothing behind it is taken for a request."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.security.raw import Heard, send
from tests.support.service import API_KEY, Service

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("smuggling")]

HOST = "Host: x\r\n"
GET = f"GET /healthz HTTP/1.1\r\n{HOST}"
POST = f"POST /v1/tasks HTTP/1.1\r\n{HOST}Authorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n"
SECOND = f"GET /openapi.json HTTP/1.1\r\n{HOST}\r\n"
CHUNKS = f"0\r\n\r\n{SECOND}"

REFUSED = {
    "a length and chunks": f"{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "chunks and a length": f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n{CHUNKS}",
    "two lengths": f"{POST}Content-Length: 3\r\nContent-Length: 40\r\n\r\nabc{SECOND}",
    "the same length twice": f"{POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc{SECOND}",
    "a list of lengths": f"{POST}Content-Length: 3, 3\r\n\r\nabc{SECOND}",
    "a signed length": f"{POST}Content-Length: +3\r\n\r\nabc{SECOND}",
    "a negative length": f"{POST}Content-Length: -3\r\n\r\nabc{SECOND}",
    "a length in hex": f"{POST}Content-Length: 0x3\r\n\r\nabc{SECOND}",
    "a length beyond 64 bits": f"{POST}Content-Length: 99999999999999999999999\r\n\r\nabc{SECOND}",
    "a space before the colon": f"{POST}Content-Length : 3\r\n\r\nabc{SECOND}",
    "an unknown coding": f"{POST}Transfer-Encoding: xchunked\r\n\r\n{CHUNKS}",
    "identity": f"{POST}Transfer-Encoding: identity\r\n\r\n{CHUNKS}",
    "chunked but not last": f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n{CHUNKS}",
    "a coding before chunked": f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n{CHUNKS}",
    "chunked twice": f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "chunked behind a vertical tab": f"{POST}Transfer-Encoding: \x0bchunked\r\n\r\n{CHUNKS}",
    "chunked in HTTP/1.0": f"{POST.replace('1.1', '1.0')}Transfer-Encoding: chunked\r\n\r\n{CHUNKS}",
    "a folded header": f"{GET}X-A: a\r\n b\r\n\r\n{SECOND}",
    "a folded coding": f"{POST}Transfer-Encoding:\r\n chunked\r\n\r\n{CHUNKS}",
    "a fold before all headers": f"GET /healthz HTTP/1.1\r\n X-A: a\r\n{HOST}\r\n{SECOND}",
    "bare line feeds": f"GET /healthz HTTP/1.1\nHost: x\n\n{SECOND}",
    "one bare line feed": f"GET /healthz HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n{SECOND}",
    "an end by a bare line feed": f"{GET}\n{SECOND}",
    "a carriage return in a value": f"{GET}X-A: a\rX-B: b\r\n\r\n{SECOND}",
    "a NUL in a value": f"{GET}X-A: a\0b\r\n\r\n{SECOND}",
    "an escape in a value": f"{GET}X-A: a\x1bb\r\n\r\n{SECOND}",
    "a NUL in a name": f"{GET}X\0A: b\r\n\r\n{SECOND}",
    "a space in a name": f"{GET}X A: b\r\n\r\n{SECOND}",
    "no name": f"{GET}: b\r\n\r\n{SECOND}",
    "no colon": f"{GET}abc\r\n\r\n{SECOND}",
    "a chunk size that is no number": f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n{CHUNKS}",
    "a chunk size with a prefix": f"{POST}Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n{CHUNKS}",
    "a negative chunk size": f"{POST}Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n{CHUNKS}",
    "a chunk size beyond 64 bits": f"{POST}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n{CHUNKS}",
    "a chunk longer than its size": f"{POST}Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n{CHUNKS}",
    "chunks with bare line feeds": f"{POST}Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n{SECOND}",
    "a line feed in a chunk extension": f"{POST}Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n{CHUNKS}",
    "no host": f"GET /healthz HTTP/1.1\r\n\r\n{SECOND}",
    "two hosts": f"{GET}{HOST}\r\n{SECOND}",
    "two keys": f"{POST}Authorization: Bearer other\r\nContent-Length: 2\r\n\r\n{{}}{SECOND}",
    "two content types": f"{POST}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}{SECOND}",
    "two idempotency keys": f"{POST}Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: 2\r\n\r\n{{}}{SECOND}",
    "no version": f"GET /healthz\r\n\r\n{SECOND}",
    "another version": f"GET /healthz HTTP/2.0\r\n{HOST}\r\n{SECOND}",
    "the preface of HTTP/2": f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{SECOND}",
    "a tunnel": f"CONNECT other:80 HTTP/1.1\r\n{HOST}\r\n{SECOND}",
    "a space in the target": f"GET /healthz x HTTP/1.1\r\n{HOST}\r\n{SECOND}",
    "a tab for a space": f"GET\t/healthz HTTP/1.1\r\n{HOST}\r\n{SECOND}",
    "a byte beyond ASCII in the target": f"GET /health\xffz HTTP/1.1\r\n{HOST}\r\n{SECOND}",
    "a NUL in the method": f"G\0T /healthz HTTP/1.1\r\n{HOST}\r\n{SECOND}",
    "TLS": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
TOO_LARGE = {
    "one header": f"{GET}X-A: {'a' * 40_000}\r\n\r\n{SECOND}",
    "one header without an end": f"{GET}X-A: {'a' * 200_000}",
    "many headers": GET + "X-A: a\r\n" * 101 + "\r\n" + SECOND,
    "a target": f"GET /healthz?{'a' * 40_000} HTTP/1.1\r\n{HOST}\r\n{SECOND}",
}


def check_problem(heard: Heard, status: int, title: str) -> None:
    """In the one form of all refusals."""
    head, _, content = heard.data.partition(b"\r\n\r\n")
    body = json.loads(content)
    assert b"\r\ncontent-type: application/problem+json\r\n" in head
    assert b"\r\nx-request-id: %b\r\n" % body["request_id"].encode() in head
    assert b"\r\ncontent-length: %d\r\n" % len(content) in head
    assert (body["status"], body["title"]) == (status, title)
    assert body["type"].startswith("urn:taskhook:problem:") and body["detail"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start()


@pytest.mark.parametrize("shape", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused_and_ends_the_connection(service: Service, shape: str) -> None:
    heard = await send(service.port, REFUSED[shape].encode("latin-1"), quiet_s=3)
    assert heard.statuses == [400], heard
    assert heard.closed
    assert b"openapi" not in heard.data
    check_problem(heard, 400, "Malformed request")


@pytest.mark.parametrize("shape", TOO_LARGE)
async def test_headers_beyond_the_limits_are_refused_and_end_the_connection(service: Service, shape: str) -> None:
    heard = await send(service.port, TOO_LARGE[shape].encode(), quiet_s=3)
    assert heard.statuses == [431], heard
    assert heard.closed
    check_problem(heard, 431, "Headers too large")


async def test_a_body_that_looks_like_a_request_is_none(service: Service) -> None:
    heard = await send(service.port, f"{GET}Content-Length: {len(SECOND)}\r\n\r\n{SECOND}{GET}\r\n".encode(), answers=2)
    assert heard.statuses == [200, 200]
    assert b"openapi" not in heard.data


async def test_requests_one_behind_the_other_are_answered_in_their_order(service: Service) -> None:
    heard = await send(service.port, f"{GET}\r\n{GET.replace('healthz', 'nothing')}\r\n{GET}\r\n".encode(), answers=3)
    assert heard.statuses == [200, 404, 200]


async def test_a_refusal_is_never_taken_for_the_answer_to_the_request_before(service: Service) -> None:
    """The first is still being answered when the second turns out to be none."""
    slow = f"GET /v1/tasks?limit=200 HTTP/1.1\r\n{HOST}Authorization: Bearer {API_KEY}\r\n\r\n"
    heard = await send(service.port, f"{slow}{REFUSED['two hosts']}".encode(), quiet_s=3)
    assert heard.statuses == [200]
    assert heard.closed


async def test_none_of_it_left_more_than_a_count(service: Service) -> None:
    before = service.log()
    await asyncio.gather(*(send(service.port, raw.encode("latin-1")) for raw in REFUSED.values()))
    assert service.log() == before
    metrics = (await service.client.get("/metrics")).text
    for outcome in ("malformed", "ambiguous"):
        assert f'taskhook_connections_refused_total{{outcome="{outcome}"}}' in metrics
