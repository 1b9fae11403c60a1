"""How much a web replica and a worker carry, and two beside one: on SQLite and on PostgreSQL, alternating, median.

python -m bench.sizing [--rounds 3] [--count 2000]
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench.calls import ask, new_database, packed, postgres, request, service_env
from bench.processes import CORES, ROOT, cpu_seconds, free_port, process, resident_mib, until
from tests.support.postgres import Server

CONNECTIONS = 32
ALL = set(CORES)
ANSWER = '{"created":1,"data":[{"url":"https://example.com/image.png"}]}'
TASK = {
    "model": "fluxapi-org/flux-dev",
    "input": {"prompt": "a lighthouse at dusk, " * 8},
    "timeout_s": 3600,
}
OPEN = ("tasks?status=queued", "tasks?status=running", "deliveries?status=pending", "deliveries?status=sending")
Figures = dict[str, float]


def load(ports: list[int], requests: list[bytes]) -> float:
    """Requests a second over all the ports together."""
    begun, share = time.perf_counter(), len(requests) // len(ports)
    clients, pipe = [], subprocess.PIPE
    for port in ports:
        arguments = [sys.executable, "-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS // len(ports))]
        clients.append(subprocess.Popen(arguments, stdin=pipe, stdout=pipe, cwd=ROOT))
    given = packed(requests[:share])
    for client in clients:
        assert client.stdin
        client.stdin.write(given)
        client.stdin.close()
    for client in clients:
        assert client.stdout
        found = json.loads(client.stdout.read())
        assert found["statuses"] == {"202": share}, found
        client.wait()
    return share * len(ports) / (time.perf_counter() - begun)


def one_round(count: int, replicas: int, database_url: str | None, folder: str) -> Figures:
    """So many web replicas take the tasks, while so many workers stand still; then these submit and deliver them."""
    with ExitStack() as stack:
        other = free_port()
        bare = process(["-m", "bench.bare", str(other)], other, "/", folder, {"BARE_ANSWER": ANSWER}, ALL)
        stack.enter_context(bare)
        ports, webs, workers = [free_port() for _ in range(replicas)], [], []
        for port in ports:
            settings = _settings(port, folder, database_url, other)
            web = process(["-m", "service", "web"], port, "/readyz", folder, settings, ALL)
            webs.append(stack.enter_context(web))
        for _ in range(replicas):
            port = free_port()
            settings = _settings(ports[0], folder, database_url, other) | {"TASKHOOK_WORKER_PORT": str(port)}
            worker = process(["-m", "service", "worker"], port, "/readyz", folder, settings, ALL)
            workers.append(stack.enter_context(worker))
        with _frozen(workers):
            figures = _accept(count, ports, webs, f"http://127.0.0.1:{other}/hook")
        return figures | _work(count, ports[0], workers)


@contextmanager
def _frozen(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _accept(count: int, ports: list[int], webs: list[int], webhook_url: str) -> Figures:
    body = json.dumps({**TASK, "webhook_url": webhook_url})
    before = sum(map(cpu_seconds, webs))
    return {
        "web per s": load(ports, [request("POST", "/v1/tasks", body)] * count),
        "web cpu us": (sum(map(cpu_seconds, webs)) - before) / count * 1e6,
        "web MiB": max(map(resident_mib, webs)),
    }


def _settings(port: int, folder: str, database_url: str | None, other: int) -> dict[str, str]:
    return service_env(port, folder, database_url) | {
        "TASKHOOK_FLUXAPI_ORG_API_KEY": "key",
        "TASKHOOK_FLUXAPI_ORG_BASE_URL": f"http://127.0.0.1:{other}/v1",
        "TASKHOOK_FLUXAPI_ORG_SUBMITS_PER_S": "100000",
        "TASKHOOK_FLUXAPI_ORG_MAX_IN_FLIGHT": "100000",
        "TASKHOOK_LOG_LEVEL": "warning",
    }


def _work(count: int, port: int, workers: list[int]) -> Figures:
    """Until nothing is open."""
    before, begun = sum(map(cpu_seconds, workers)), time.perf_counter()
    until(lambda: not any(_is_any(port, path) for path in OPEN), "all is delivered")
    return {
        "worker per s": count / (time.perf_counter() - begun),
        "worker cpu us": (sum(map(cpu_seconds, workers)) - before) / count * 1e6,
        "worker MiB": max(map(resident_mib, workers)),
    }


def _is_any(port: int, path: str) -> bool:
    return bool(ask(port, f"/v1/{path}&limit=1")["data"])


def measure(server: Server | None, rounds: int, count: int) -> dict[str, list[Figures]]:
    found: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for replicas in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                found.setdefault(f"SQLite, {replicas}", []).append(one_round(count, replicas, None, folder))
            if server:
                with tempfile.TemporaryDirectory() as folder:
                    figures = one_round(count, replicas, new_database(server), folder)
                found.setdefault(f"PostgreSQL, {replicas}", []).append(figures)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    with postgres() as server:
        show(measure(server, given.rounds, given.count))


def show(found: dict[str, list[Figures]]) -> None:
    names = list(next(iter(found.values()))[0])
    print(f"{'replicas':<16}" + "".join(f"{name:>16}" for name in names))
    for title, rounds in found.items():
        cells = [statistics.median(figures[name] for figures in rounds) for name in names]
        print(f"{title:<16}" + "".join(f"{cell:>16.0f}" for cell in cells))


if __name__ == "__main__":
    main()
