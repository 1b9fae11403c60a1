"""Throughput of a web replica and a worker, and of two compared with one, on SQLite and PostgreSQL.

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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import msgspec

from bench.calls import ask, new_database, packed, postgres, request, service_env
from bench.processes import CORES, ROOT, cpu_seconds, free_port, process, resident_mib, until

CONNECTIONS = 32
WARM = 300
"""So many tasks come to each replica first: their code is cold, and so are its connections."""
ALL = set(CORES)
ANSWER = '{"created":1,"data":[{"url":"https://example.com/image.png"}]}'
TASK = {
    "model": "fluxapi-org/flux-dev",
    "input": {"prompt": "a lighthouse at dusk, " * 8},
    "timeout_s": 3600,
}
OPEN = ("tasks?status=queued", "tasks?status=running", "deliveries?status=pending", "deliveries?status=sending")
Figures = dict[str, float]


def load(ports: Sequence[int], requests: Sequence[bytes]) -> float:
    """Requests a second over all the ports together, each as busy as one alone would be."""
    begun, share = time.perf_counter(), len(requests) // len(ports)
    clients, pipe = [], subprocess.PIPE
    for port in ports:
        arguments = [sys.executable, "-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS)]
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


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas of one installation, all there from the beginning and warm: who works is chosen turn by turn."""

    ports: Sequence[int]
    webs: Sequence[int]
    workers: Sequence[int]
    webhook_url: str

    def turn(self, which: slice, count: int) -> Figures:
        """These web replicas take the tasks, while no worker runs; then these workers submit and deliver them."""
        figures = _accept(count, self.ports[which], self.webs[which], self.webhook_url)
        _signal(self.workers[which], signal.SIGCONT)
        figures |= _work(count, self.ports[0], self.workers[which])
        _signal(self.workers[which], signal.SIGSTOP)
        return figures


ONE, TWO = slice(0, 1), slice(1, 3)
"""Of a fleet: one alone, and two beside it, so that both are measured within seconds on the same machine."""


@contextmanager
def fleet(database_url: str | None, folder: str) -> Iterator[Fleet]:
    with ExitStack() as stack:
        other = free_port()
        bare = process(["-m", "bench.bare", str(other)], other, "/", folder, {"BARE_ANSWER": ANSWER}, ALL)
        stack.enter_context(bare)
        ports, webs, workers = [free_port() for _ in range(TWO.stop)], [], []
        for port in ports:
            settings = _settings(port, folder, database_url, other)
            web = process(["-m", "service", "web"], port, "/readyz", folder, settings, ALL)
            webs.append(stack.enter_context(web))
        for _ in ports:
            port = free_port()
            settings = _settings(ports[0], folder, database_url, other) | {"TASKHOOK_WORKER_PORT": str(port)}
            worker = process(["-m", "service", "worker"], port, "/readyz", folder, settings, ALL)
            workers.append(stack.enter_context(worker))
        here = Fleet(ports=ports, webs=webs, workers=workers, webhook_url=f"http://127.0.0.1:{other}/hook")
        stack.callback(_signal, workers, signal.SIGCONT)
        _signal(workers, signal.SIGSTOP)
        for which in (ONE, TWO):
            here.turn(which, WARM * len(ports[which]))
        yield here


def _signal(pids: Sequence[int], what: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, what)


def _accept(count: int, ports: Sequence[int], webs: Sequence[int], webhook_url: str) -> Figures:
    create = request("POST", "/v1/tasks", json.dumps({**TASK, "webhook_url": webhook_url}))
    before = sum(map(cpu_seconds, webs))
    return {
        "web per s": load(ports, [create] * count),
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


def _work(count: int, port: int, workers: Sequence[int]) -> Figures:
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


def measure(database_url: str | None, rounds: int, count: int) -> list[tuple[Figures, Figures]]:
    """Of one replica and of two, in turn."""
    with tempfile.TemporaryDirectory() as folder, fleet(database_url, folder) as here:
        return [(here.turn(ONE, count), here.turn(TWO, count)) for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=2000)
    given = parser.parse_args()
    with postgres() as server:
        found = {"SQLite": measure(None, given.rounds, given.count)}
        if server:
            found["PostgreSQL"] = measure(new_database(server), given.rounds, given.count)
    show(found)


def show(found: dict[str, list[tuple[Figures, Figures]]]) -> None:
    names = list(next(iter(found.values()))[0][0])
    print(f"{'replicas':<16}" + "".join(f"{name:>16}" for name in names))
    for database, rounds in found.items():
        for replicas, turns in enumerate(zip(*rounds, strict=True), start=1):
            cells = [statistics.median(figures[name] for figures in turns) for name in names]
            print(f"{f'{database}, {replicas}':<16}" + "".join(f"{cell:>16.0f}" for cell in cells))


if __name__ == "__main__":
    main()
