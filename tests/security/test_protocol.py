"""HTTP as other programs speak it: offers of other protocols, HTTP/1.0, and connections that are kept for long."""

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from service.core.tokens import CallbackTokens
from tests.flows.conftest import World
from tests.security.raw import Heard, hear, send
from tests.support.api import new_prompt
from tests.support.service import API_KEY, SECRET_KEY, Service
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("protocol")]

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
OFFERS = {
    "h2c as Java and curl send it": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA",
    "h2c": "Upgrade: h2c\r\nConnection: upgrade",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==",
    "TLS": "Connection: Upgrade\r\nUpgrade: TLS/1.0",
    "several": "Connection: keep-alive, Upgrade, te\r\nUpgrade: TLS/1.3, HTTP/2.0, IRC/6.9",
    "in two lines": "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: foo/1",
    "without Connection": "Upgrade: h2c",
    "without Upgrade": "Connection: Upgrade",
    "an empty one": "Connection: Upgrade\r\nUpgrade:",
    "an odd list": "Connection: ,, upgrade ,\t,x\r\nUpgrade: ,h2c,",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start()


def request(line: str, headers: str, body: bytes, *, chunked: bool = False) -> bytes:
    head = (
        f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n{headers}"
    )
    if not chunked:
        return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    halves = (body[:7], body[7:])
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves)
    return f"{head}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def task_body() -> bytes:
    return json.dumps({"model": "acedata/flux-dev", "input": {"prompt": new_prompt()}}).encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["a length", "chunks"])
@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_an_offer_of_another_protocol_is_ignored(service: Service, offer: str, chunked: bool) -> None:
    """RFC 9110 7.8: the body is read, and the connection stays for what is pipelined behind it."""
    heard = await send(service.port, request("POST /v1/tasks", offer, task_body(), chunked=chunked) + GET, answers=2)
    assert heard.statuses == [202, 200], heard
    assert not heard.closed


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_a_callback_that_offers_another_protocol_is_not_lost(service: Service, offer: str) -> None:
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", new_prompt())
    provider_task_id = (await service.api.accepted(task["id"]))["provider_task_id"]
    links = {"resultImageUrl": "https://cdn.example/a.jpg", "originImageUrl": ""}
    body = json.dumps({"code": 200, "msg": "ok", "data": {"taskId": provider_task_id, "info": links}}).encode()
    token = CallbackTokens([SECRET_KEY], ["fluxapi-ai"]).sign("fluxapi-ai", task["id"])
    heard = await send(service.port, request(f"POST /callbacks/fluxapi-ai/{token}", offer, body), answers=1)
    assert heard.statuses == [200]
    assert (await service.api.task(task["id"]))["status"] == "succeeded"


@pytest.mark.parametrize(
    "line", ["GET /healthz", "GET /v1/tasks", "GET /", "HEAD /healthz", "GET /openapi.json", "GET /x"]
)
async def test_an_offer_without_a_body_is_ignored_on_every_route(service: Service, line: str) -> None:
    offer = OFFERS["h2c as Java and curl send it"]
    plain = await send(service.port, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + GET, answers=2)
    heard = await send(service.port, f"{line} HTTP/1.1\r\nHost: x\r\n{offer}\r\n\r\n".encode() + GET, answers=2)
    assert heard.statuses == plain.statuses and len(heard.statuses) == 2


async def test_offers_come_in_pieces_and_one_behind_the_other(service: Service) -> None:
    whole = request("POST /v1/tasks", OFFERS["h2c"], task_body()) * 3
    pieces = [whole[start : start + 97] for start in range(0, len(whole), 97)]
    heard = await send(service.port, *pieces, pause_s=0.01, answers=3)
    assert heard.statuses == [202, 202, 202]


async def test_an_offer_that_waits_to_send_its_body_is_told_to(service: Service) -> None:
    body = task_body()
    whole = request("POST /v1/tasks", f"{OFFERS['h2c']}\r\nExpect: 100-continue", body)
    heard = await send(service.port, whole[: -len(body)], body, pause_s=0.3, answers=2)
    assert heard.data.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 ")


async def test_an_offer_hides_nothing_that_is_refused(service: Service) -> None:
    """A head that could be read in two ways is refused whether or not it offers something."""
    for line in ("Content-Length: 3\r\nContent-Length: 4", "Transfer-Encoding: gzip, chunked", "Host: y"):
        heard = await send(service.port, request("POST /v1/tasks", f"{OFFERS['h2c']}\r\n{line}", b"{}"), quiet_s=60)
        assert heard.statuses == [400], line
        assert heard.closed


# HTTP/1.0


async def old(service: Service, line: str) -> Heard:
    head = f"{line} HTTP/1.0\r\nAuthorization: Bearer {API_KEY}\r\n\r\n"
    return await send(service.port, head.encode(), quiet_s=60)


@pytest.mark.parametrize(
    "line", ["GET /healthz", "GET /v1/tasks", "HEAD /v1/tasks", "GET /", "GET /nothing", "GET /docs"]
)
async def test_a_client_of_http_1_0_gets_a_whole_answer_and_its_end(service: Service, line: str) -> None:
    heard = await old(service, line)
    head, _, body = heard.data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    assert b"transfer-encoding" not in head and b"\r\nconnection: close" in head
    assert length is not None and (line.startswith("HEAD") or len(body) == int(length[1]))
    assert heard.closed


async def test_a_stream_over_http_1_0_has_no_chunks_and_ends_with_the_connection(world: World) -> None:
    service = await world.start()
    task = await service.api.submit("acedata/flux-dev", new_prompt())
    readers = []
    for path in ("/v1/events/stream", f"/v1/tasks/{task['id']}/stream"):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(f"GET {path} HTTP/1.0\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding" not in head and b"connection: close" in head
        assert await reader.readuntil(b"\n\n") == b": connected\n\n"
        readers.append((reader, writer))
    await service.client.post(f"/v1/tasks/{task['id']}/cancel")
    (events, _), (states, _) = readers
    assert (await events.readline()).startswith(b"id: evt_")
    assert b"event: task.canceled" in (await hear(states, 60)).data
    await service.terminate()
    assert (await hear(events, 60)).closed
    for _, writer in readers:
        writer.close()


# Connections that are kept


async def test_an_idle_connection_is_kept_for_the_time_that_is_set(world: World) -> None:
    service = await world.start({"TASKHOOK_KEEPALIVE_S": "1"})
    heard = await send(service.port, GET, quiet_s=60)
    assert heard.statuses == [200] and heard.closed
    assert "keepalive" not in service.log()


async def test_an_idle_connection_outlives_the_idle_time_of_load_balancers(service: Service) -> None:
    """The answer to a body that came late starts that time, too: nothing else would close the connection."""
    head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    heard = await send(service.port, head, b"{}", GET, pause_s=0.3, answers=2)
    assert heard.statuses == [401, 200] and not heard.closed
    await until(lambda: service.client.get("/healthz"))
