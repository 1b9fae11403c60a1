"""Runs the benchmarks and prints each figure as a ratio to its yardstick, alternating, median of the rounds.

python -m bench.run [--rounds 5] [--count 6000] [--json]
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from service.core.change import Change
from service.core.task import Task, TaskInput
from service.core.times import after, to_ms
from service.core.tokens import CallbackTokens
from service.providers import PROVIDERS
from service.store.batch import Keys
from service.store.bus import Bus
from service.store.migrate import migrate
from service.store.sqlite import SqliteDriver
from service.store.writer import Writer
from service.wiring import RealEnv

SECRET, KEY = "a secret of the benchmark alone", "key-of-the-benchmark"
CONNECTIONS = 64
TARGETS = {"callbacks": 0.6, "tasks": 0.5}
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(path: str, body: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body.encode())}\r\n\r\n"
    )
    return (head + body).encode()


def pinned(core: int) -> dict[str, Any]:
    """Where there are two cores, the service has one to itself and everything else the other."""
    if (os.cpu_count() or 1) < 2:
        return {}
    return {"preexec_fn": lambda: os.sched_setaffinity(0, {core})}


@contextmanager
def process(arguments: list[str], port: int, path: str, folder: str, env: dict[str, str]) -> Iterator[int]:
    with open(Path(folder) / "log", "ab") as log:
        started = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log, **pinned(0)
        )
    try:
        wait_for(f"http://127.0.0.1:{port}{path}")
        yield started.pid
    finally:
        started.terminate()
        started.wait(30)


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{url} does not answer")


def cpu_seconds(pid: int) -> float:
    """User and system time of the process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, requests: list[bytes], pid: int) -> dict[str, Any]:
    """What the load generator saw, and `cpu_us`: the server's processor time a request."""
    before = cpu_seconds(pid)
    packed = b"".join(struct.pack("!I", len(request)) + request for request in requests)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS)],
        input=packed,
        capture_output=True,
        check=True,
        **pinned(1),
    )
    return {**json.loads(done.stdout), "cpu_us": (cpu_seconds(pid) - before) / len(requests) * 1e6}


async def fill(path: str, count: int) -> list[str]:
    """Running tasks, ready to be called back about; their ids."""
    env, driver = RealEnv(), SqliteDriver(path)
    await driver.open()
    await migrate(driver, to_ms(env.now()))
    writer = Writer(driver, Bus(), env)
    writer.start()
    tasks = [running_task(env) for _ in range(count)]
    for at in range(0, count, 1000):
        some = tasks[at : at + 1000]
        await asyncio.gather(*(writer.change(Keys(), lambda _, task=task: Change(tasks=(task,))) for task in some))
    await writer.stop()
    await driver.close()
    return [task.id for task in tasks]


def running_task(env: RealEnv) -> Task:
    now = env.now()
    task = Task(
        id=env.new_id("task"),
        provider="fluxapi-ai",
        model="flux-kontext-pro",
        input=TaskInput(prompt="a lighthouse at dusk, " * 8, aspect_ratio="16:9"),
        metadata={"order": "1234"},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=now,
        deadline_at=after(now, 3600),
    )
    due_at = after(now, 600)
    sent = replace(task, provider_task_id=f"p{task.id}", submitted_at=now, due_at=due_at)
    return replace(sent, status="running", step="tracking")


def service_env(port: int, folder: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "TASKHOOK_DATABASE_URL": f"sqlite:///{folder}/taskhook.db",
        "TASKHOOK_SECRET_KEYS": SECRET,
        "TASKHOOK_API_KEYS": KEY,
        "TASKHOOK_PORT": str(port),
        "TASKHOOK_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TASKHOOK_ALLOW_PRIVATE_NETWORKS": "true",
        "TASKHOOK_FLUXAPI_AI_API_KEY": "key",
        "TASKHOOK_FLUXAPI_AI_BASE_URL": "http://127.0.0.1:9",
    }


def bare(requests: list[bytes]) -> dict[str, Any]:
    port = free_port()
    env = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    command = ["-m", "bench.bare", str(port)]
    with tempfile.TemporaryDirectory() as folder, process(command, port, "/", folder, env) as pid:
        return load(port, requests, pid)


def callbacks(count: int) -> tuple[dict[str, Any], list[bytes]]:
    """Callbacks verified, matched, stored with event and deliveries, durable before the 200."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        ids = asyncio.run(fill(f"{folder}/taskhook.db", count))
        tokens = CallbackTokens([SECRET], tuple(PROVIDERS))
        requests = [
            post(f"/callbacks/fluxapi-ai/{tokens.sign('fluxapi-ai', key)}", CALLBACK.format(id=f"p{key}"))
            for key in ids
        ]
        with process(["-m", "service", "serve"], port, "/readyz", folder, service_env(port, folder)) as pid:
            return load(port, requests, pid), requests


def tasks(count: int) -> tuple[dict[str, Any], list[bytes]]:
    """Tasks accepted at POST /v1/tasks, durable; the worker is another process, so that accepting alone is measured."""
    port = free_port()
    requests, command = [post("/v1/tasks", CREATE)] * count, ["-m", "service", "web"]
    with (
        tempfile.TemporaryDirectory() as folder,
        process(command, port, "/healthz", folder, service_env(port, folder)) as pid,
    ):
        return load(port, requests, pid), requests


def measure(rounds: int, count: int) -> list[dict[str, Any]]:
    rows = []
    for name, run in (("callbacks", callbacks), ("tasks", tasks)):
        ratios: list[float] = []
        figures: list[tuple[Any, ...]] = []
        for _ in range(rounds):
            figure, requests = run(count)
            yardstick = bare(requests)
            ratios.append(figure["per_s"] / yardstick["per_s"])
            pairs = [(figure[name], yardstick[name]) for name in ("per_s", "cpu_us")]
            figures.append((*pairs[0], *pairs[1], figure["statuses"], figure["ms"]))
        rows.append({"name": name, "ratios": ratios, "target": TARGETS[name], "figures": figures})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = measure(given.rounds, given.count)
    if given.json:
        print(json.dumps(rows))
        return
    heads = (
        ("figure", "<12"),
        ("a second", ">10"),
        ("yardstick", ">11"),
        ("ratio", ">8"),
        ("min", ">7"),
        ("max", ">7"),
    )
    heads += (("target", ">8"), ("cpu us", ">9"), ("bare", ">7"))
    print("".join(f"{name:{width}}" for name, width in heads), " statuses, ms")
    for row in rows:
        ratios = row["ratios"]
        middle = [statistics.median(figure[n] for figure in row["figures"]) for n in range(4)]
        last = row["figures"][-1]
        print(
            f"{row['name']:<12}{middle[0]:>10.0f}{middle[1]:>11.0f}"
            f"{statistics.median(ratios):>8.2f}{min(ratios):>7.2f}"
            f"{max(ratios):>7.2f}{row['target']:>8}{middle[2]:>9.0f}{middle[3]:>7.0f}  {last[4]} {last[5]}"
        )


if __name__ == "__main__":
    main()
