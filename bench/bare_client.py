"""The yardstick of deliveries: a bare aiohttp client that posts the same bytes at the same concurrency.

python -m bench.bare_client URL COUNT CONCURRENCY < body
"""

import asyncio
import json
import resource
import sys
import time

import aiohttp
import uvloop

HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "bare",
    "webhook-id": "evt_019a0000000070008000000000000000",
    "webhook-timestamp": "1767225600",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
}


async def post_all(session: aiohttp.ClientSession, url: str, body: bytes, left: list[None]) -> None:
    while left:
        left.pop()
        async with session.post(url, data=body, headers=HEADERS) as answer:
            await answer.read()
            assert answer.status == 204


async def run(url: str, count: int, concurrency: int) -> dict[str, float]:
    body, left = sys.stdin.buffer.read(), [None] * count
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        before, started = _cpu_seconds(), time.perf_counter()
        await asyncio.gather(*(post_all(session, url, body, left) for _ in range(concurrency)))
        took, cpu_s = time.perf_counter() - started, _cpu_seconds() - before
    return {"per_s": count / took, "cpu_us": cpu_s / count * 1e6}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
