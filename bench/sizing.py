"""How much a web replica and a worker carry, and two beside one: on SQLite and on PostgreSQL, alternating, median.

python -m bench.sizing [--rounds 3] [--count 2000]
"""

import argparse
import asyncio
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.run import KEY, cpu_seconds, free_port, post, service_env, wait_for
from tests.support.postgres import Server, command, find_binaries

CONNECTIONS = 32
ANSWER = '{"created":1,"data":[{"url":"https://example.com/image.png"}]}'
TASK = {
    "model": "fluxapi-org/flux-dev",
    "input": {"prompt": "a lighthouse at dusk, " * 8},
    "timeout_s": 3600,
}
OPEN = ("tasks?status=queued", "tasks?status=running", "deliveries?status=pending", "deliveries?status=sending")
Figures = dict[str, float]


@contextmanager
def started(arguments: list[str], folder: str, env: dict[str, str], ready: str | None = None) -> Iterator[int]:
    with (Path(folder) / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log
        )
    try:
        if ready:
            wait_for(ready)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def resident_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def load(ports: list[int], requests: list[bytes]) -> float:
    """Requests a second over all the ports together."""
    begun, share = time.perf_counter(), len(requests) // len(ports)
    clients = []
    for port in ports:
        arguments = [sys.executable, "-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS // len(ports))]
        clients.append(subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
    packed = b"".join(struct.pack("!I", len(request)) + request for request in requests[:share])
    for client in clients:
        assert client.stdin
        client.stdin.write(packed)
        client.stdin.close()
    for client in clients:
        assert client.stdout
        found = json.loads(client.stdout.read())
        assert found["statuses"] == {"202": share}, found
        client.wait()
    return share * len(ports) / (time.perf_counter() - begun)


def is_any(port: int, path: str) -> bool:
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/{path}&limit=1")
    asked.add_header("Authorization", f"Bearer {KEY}")
    with urllib.request.urlopen(asked) as reply:
        return bool(json.load(reply)["data"])


def one_round(count: int, replicas: int, database_url: str, folder: str) -> Figures:
    """So many web replicas take the tasks; then, with one of them, so many workers submit and deliver them."""
    with ExitStack() as stack:
        other = free_port()
        bare_env = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent), "BARE_ANSWER": ANSWER}
        stack.enter_context(started(["-m", "bench.bare", str(other)], folder, bare_env, f"http://127.0.0.1:{other}/"))
        ports, pids = [free_port() for _ in range(replicas)], []
        env = {
            "TASKHOOK_DATABASE_URL": database_url,
            "TASKHOOK_FLUXAPI_ORG_API_KEY": "key",
            "TASKHOOK_FLUXAPI_ORG_BASE_URL": f"http://127.0.0.1:{other}/v1",
            "TASKHOOK_FLUXAPI_ORG_SUBMITS_PER_S": "100000",
            "TASKHOOK_FLUXAPI_ORG_MAX_IN_FLIGHT": "100000",
            "TASKHOOK_LOG_LEVEL": "warning",
        }
        for port in ports:
            settings = service_env(port, folder) | env
            ready = f"http://127.0.0.1:{port}/healthz"
            pids.append(stack.enter_context(started(["-m", "service", "web"], folder, settings, ready)))
        body = json.dumps({**TASK, "webhook_url": f"http://127.0.0.1:{other}/hook"})
        before = sum(map(cpu_seconds, pids))
        figures = {"web per s": load(ports, [post("/v1/tasks", body)] * count)}
        figures["web cpu us"] = (sum(map(cpu_seconds, pids)) - before) / count * 1e6
        figures["web MiB"] = max(map(resident_mib, pids))
        settings = service_env(ports[0], folder) | env
        workers = [stack.enter_context(started(["-m", "service", "worker"], folder, settings)) for _ in range(replicas)]
        while not is_any(ports[0], "tasks?status=succeeded"):
            time.sleep(0.05)
        begun = time.perf_counter()
        while any(is_any(ports[0], path) for path in OPEN):
            time.sleep(0.1)
        figures["worker per s"] = count / (time.perf_counter() - begun)
        figures["worker cpu us"] = sum(map(cpu_seconds, workers)) / count * 1e6
        figures["worker MiB"] = max(map(resident_mib, workers))
        return figures


def measure(server: Server | None, rounds: int, count: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {}
    for number in range(rounds):
        for replicas in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                name, url = f"SQLite, {replicas}", f"sqlite:///{folder}/taskhook.db"
                found.setdefault(name, []).append(one_round(count, replicas, url, folder))
                if server:
                    name, database = f"PostgreSQL, {replicas}", f"sizing_{number}_{replicas}"
                    asyncio.run(command(server, f"create database {database}"))
                    found.setdefault(name, []).append(one_round(count, replicas, server.url(database), folder))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    binaries = find_binaries()
    server = Server(binaries) if binaries else None
    try:
        if server:
            server.start()
        found = measure(server, given.rounds, given.count)
    finally:
        if server:
            server.remove()
    show(found)


def show(found: dict[str, list[Figures]]) -> None:
    names = list(next(iter(found.values()))[0])
    print(f"{'replicas':<16}" + "".join(f"{name:>16}" for name in names))
    for title, rounds in found.items():
        cells: list[Any] = [statistics.median(figures[name] for figures in rounds) for name in names]
        print(f"{title:<16}" + "".join(f"{cell:>16.0f}" for cell in cells))


if __name__ == "__main__":
    main()
