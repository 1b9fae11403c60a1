"""Requests to the service, its settings, and the bare route that it is compared with."""

import asyncio
import itertools
import json
import struct
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from bench.processes import ELSE, cpu_seconds, free_port, process, tool
from service.core.tokens import CallbackTokens
from service.providers.registry import build_registry
from tests.support.postgres import Server, command, find_binaries

SECRET, KEY = "a secret of the benchmark alone", "key-of-the-benchmark"
CONNECTIONS = 64
CALLBACK = (
    '{{"code":200,"msg":"BFL image generated successfully.","data":{{"taskId":"{id}","info":'
    '{{"originImageUrl":"https://example.com/original/{id}.jpg",'
    '"resultImageUrl":"https://example.com/result/{id}.jpg"}}}}}}'
)
CREATE = json.dumps(
    {
        "model": "fluxapi-ai/flux-kontext-pro",
        "input": {"prompt": "a lighthouse at dusk, " * 8, "aspect_ratio": "16:9", "output_format": "jpeg"},
        "metadata": {"order": "1234"},
        "timeout_s": 3600,
    }
)
_databases = itertools.count(1)


def request(method: str, path: str, body: str = "") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    )
    return (head + body).encode()


def probes(count: int) -> list[bytes]:
    """The requests with the least work behind them."""
    return [request("GET", "/healthz")] * count


def create_requests(count: int) -> list[bytes]:
    return [request("POST", "/v1/tasks", CREATE)] * count


def callback_paths(task_ids: Sequence[str]) -> list[str]:
    tokens = CallbackTokens([SECRET], tuple(build_registry()))
    return [f"/callbacks/fluxapi-ai/{tokens.sign('fluxapi-ai', task_id)}" for task_id in task_ids]


def callback_requests(task_ids: Sequence[str]) -> list[bytes]:
    """Callbacks of tasks whose provider task id is `p` and our id."""
    paths = callback_paths(task_ids)
    return [
        request("POST", path, CALLBACK.format(id=f"p{task_id}")) for path, task_id in zip(paths, task_ids, strict=True)
    ]


def ask(port: int, path: str, body: object = None, method: str | None = None) -> Any:
    """Call the service's API or the world once; a body is sent as JSON, bytes as they are."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, method=method)
    asked.add_header("Authorization", f"Bearer {KEY}")
    asked.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(asked, timeout=30) as reply:
        return json.load(reply)


def packed(requests: Sequence[bytes]) -> bytes:
    """As the generators read them on their standard input."""
    return b"".join(struct.pack("!I", len(one)) + one for one in requests)


def load(port: int, requests: Sequence[bytes], pid: int, rate: float = 0.0, cores: set[int] = ELSE) -> Any:
    """Return the load generator's figures, and `cpu_us`: the server's CPU time per request."""
    before = cpu_seconds(pid)
    seen = tool(["-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS), str(rate)], packed(requests), cores)
    if any(not status.startswith("2") for status in seen["statuses"]):
        raise SystemExit(f"answers that should not be: {seen['statuses']}")
    return {**seen, "cpu_us": (cpu_seconds(pid) - before) / len(requests) * 1e6}


def bare(requests: Sequence[bytes]) -> Any:
    """The yardstick: the same load on a route that only reads the body and answers."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        process(["-m", "bench.bare", str(port)], port, "/", folder, {}) as pid,
    ):
        return load(port, requests, pid)


def bare_us(count: int = 6_000) -> float:
    """The processor time of one bare request, here and now."""
    return float(bare(create_requests(count))["cpu_us"])


def service_env(port: int, folder: str, database_url: str | None = None) -> dict[str, str]:
    """Return the required settings; everything else has its default."""
    return {
        "TASKHOOK_DATABASE_URL": database_url or f"sqlite:///{folder}/taskhook.db",
        "TASKHOOK_SECRET_KEYS": SECRET,
        "TASKHOOK_API_KEYS": KEY,
        "TASKHOOK_PORT": str(port),
        "TASKHOOK_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TASKHOOK_ALLOW_PRIVATE_NETWORKS": "true",
        "TASKHOOK_FLUXAPI_AI_API_KEY": "key",
        "TASKHOOK_FLUXAPI_AI_BASE_URL": "http://127.0.0.1:9",
    }


def with_provider(port: int) -> dict[str, str]:
    """Settings for a provider without limits of its own."""
    return {
        "TASKHOOK_FLUXAPI_AI_BASE_URL": f"http://127.0.0.1:{port}",
        "TASKHOOK_FLUXAPI_AI_SUBMITS_PER_S": "100000",
        "TASKHOOK_FLUXAPI_AI_MAX_IN_FLIGHT": "100000",
    }


@contextmanager
def world(folder: str) -> Iterator[int]:
    """A provider and a subscriber, on the cores of everything else; their port."""
    port = free_port()
    with process(["-m", "bench.world", str(port)], port, "/figures", folder, {}, ELSE):
        yield port


@contextmanager
def postgres() -> Iterator[Server | None]:
    """A server that syncs to disk; None where there are no binaries."""
    binaries = find_binaries()
    if binaries is None:
        yield None
        return
    server = Server(binaries)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def new_database(server: Server) -> str:
    """The URL of an empty one."""
    name = f"bench_{next(_databases)}"
    asyncio.run(command(server, f"create database {name}"))
    return server.url(name)


def main_process(server: Server) -> int:
    """Of the PostgreSQL server; all that it starts is its child."""
    return asyncio.run(_main_process(server.url()))


async def _main_process(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)"))
    finally:
        await connection.close()
