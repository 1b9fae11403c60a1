"""Bodies that are compressed, and bodies that begin with a byte order mark."""

import gzip
import json
import zlib

import httpx
import pytest

from service.web.bodies import BODY_MAX
from service.web.codings import MEMBERS_MAX
from tests.web.conftest import MODEL, Site, errors
from tests.web.test_callbacks import body_of, call, counted, url_of

GOOD = json.dumps({"model": MODEL, "input": {"prompt": "灯塔"}}).encode()
JSON = {"Content-Type": "application/json"}
BOM = b"\xef\xbb\xbf"
EMPTY = gzip.compress(b"")


async def post(client: httpx.AsyncClient, body: bytes, coding: str | None = "gzip") -> httpx.Response:
    return await client.post("/v1/tasks", content=body, headers=JSON | ({"Content-Encoding": coding} if coding else {}))


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "identity, gzip", " gzip "])
async def test_a_gzip_body_is_decoded(client: httpx.AsyncClient, coding: str) -> None:
    reply = await post(client, gzip.compress(GOOD), coding)
    assert reply.status_code == 202
    assert reply.json()["input"]["prompt"] == "灯塔"


async def test_streams_one_after_the_other_and_padding_are_one_body(client: httpx.AsyncClient) -> None:
    body = gzip.compress(GOOD[:10]) + EMPTY + gzip.compress(GOOD[10:]) + b"\0" * 100
    assert (await post(client, body)).status_code == 202


@pytest.mark.parametrize("coding", [None, "identity", "Identity", ""])
async def test_a_plain_body_may_say_so(client: httpx.AsyncClient, coding: str | None) -> None:
    assert (await post(client, GOOD, coding)).status_code == 202


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "gzip, br", "x" * 5_000, "*"])
async def test_any_other_coding_is_refused_and_told_what_is_taken(client: httpx.AsyncClient, coding: str) -> None:
    reply = await post(client, GOOD, coding)
    errors(reply, 415)
    assert reply.headers["accept-encoding"] == "gzip"


BROKEN = {
    "not gzip": GOOD,
    "cut": gzip.compress(GOOD)[:-1],
    "a wrong sum": gzip.compress(GOOD)[:-8] + b"\0" * 8,
    "zlib": zlib.compress(GOOD),
    "something after it": gzip.compress(GOOD) + b"x",
    "many streams": EMPTY * (MEMBERS_MAX + 1),
    "nothing": b"",
    "nothing in it": EMPTY,
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_gzip_is_malformed(client: httpx.AsyncClient, body: bytes) -> None:
    errors(await post(client, body), 400)


async def test_a_body_counts_as_decoded_and_no_more_than_the_limit_is_decoded(client: httpx.AsyncClient) -> None:
    fits = GOOD + b" " * (BODY_MAX - len(GOOD))
    assert (await post(client, gzip.compress(fits))).status_code == 202
    errors(await post(client, gzip.compress(fits + b" ")), 413)
    errors(await post(client, gzip.compress(b" " * (100 * BODY_MAX))), 413)
    errors(await post(client, gzip.compress(fits[:600_000]) + gzip.compress(fits[:600_000])), 413)


async def test_a_byte_order_mark_before_a_body_is_dropped(client: httpx.AsyncClient) -> None:
    assert (await post(client, BOM + GOOD, None)).status_code == 202
    assert (await post(client, gzip.compress(BOM + GOOD))).status_code == 202
    errors(await post(client, BOM, None), 400)


async def test_a_callback_may_be_compressed_too(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    body = gzip.compress(BOM + json.dumps(body_of()).encode())
    url = url_of(site, task)
    for coding, status, outcome in (("br", 415, "unsupported"), ("gzip", 200, "accepted")):
        reply = await client.post(url, content=body, headers={"Authorization": "", "Content-Encoding": coding})
        assert reply.status_code == status, reply.text
        assert counted(site, outcome) == 1
    reply = await client.post(url, content=b"x", headers={"Authorization": "", "Content-Encoding": "gzip"})
    assert reply.status_code == 400
    assert (await client.get(f"/v1/tasks/{task['id']}")).json()["status"] == "succeeded"


async def test_a_callback_with_a_byte_order_mark_is_read(site: Site, client: httpx.AsyncClient) -> None:
    task = await site.run(client)
    assert (await call(client, url_of(site, task), BOM + json.dumps(body_of()).encode())).status_code == 200
    assert (await client.get(f"/v1/tasks/{task['id']}")).json()["status"] == "succeeded"
