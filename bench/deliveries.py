"""Deliveries a second: claimed, signed, sent, recorded; of many that wait for one endpoint."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.calls import ask, bare_us, service_env, world
from bench.figures import Figure, Pair, Plan, ratio_figure
from bench.processes import SERVICE, cpu_seconds, free_port, process, tool, until
from bench.stock import Stock, count_rows, make_due

COUNT = 3_000
CONCURRENCY = 64
LEAD_S = 2.0
"""From the start of the service until all is due at once."""
OPEN = "status in ('pending', 'sending')"


def to_one_endpoint(plan: Plan) -> Sequence[Figure]:
    note = f"yardstick: aiohttp alone, {CONCURRENCY} at a time, as the endpoint's max_in_flight"
    return [ratio_figure("deliveries, SQLite", _rounds(plan.of(COUNT), plan.rounds), 0.5, note)]


def _rounds(count: int, times: int) -> Sequence[Pair]:
    """So many deliveries each time; beside them those of aiohttp alone, with the processor time of a bare request."""
    with tempfile.TemporaryDirectory() as folder, world(folder) as hook_port:
        url = f"http://127.0.0.1:{hook_port}/hook"
        filled = f"{folder}/filled.db"
        Stock(f"sqlite:///{filled}", endpoint_url=url, max_in_flight=CONCURRENCY).fill(waiting=count)
        body, found = _one_body(filled), []
        for _ in range(times):
            seen = _one_round(filled, folder, hook_port, count)
            found.append((seen, {**_bare_posts(url, count, body), "cpu_us": bare_us(2_000)}))
    return found


def _one_body(path: str) -> bytes:
    with closing(sqlite3.connect(path)) as connection:
        return str(connection.execute("select body from events limit 1").fetchone()[0]).encode()


def _bare_posts(url: str, count: int, body: bytes) -> dict[str, float]:
    """On the core that the service has in its turn."""
    told: dict[str, float] = tool(["-m", "bench.bare_client", url, str(count), str(CONCURRENCY)], body, SERVICE)
    return told


def _one_round(filled: str, folder: str, hook_port: int, count: int) -> dict[str, Any]:
    path, port = f"{folder}/taskhook.db", free_port()
    for old in Path(folder).glob("taskhook.db*"):
        old.unlink()
    shutil.copyfile(filled, path)
    make_due(path, "deliveries", LEAD_S)
    ask(hook_port, "/figures")
    began = time.monotonic()
    with process(["-m", "service", "serve"], port, "/readyz", folder, service_env(port, folder)) as pid:
        time.sleep(max(LEAD_S - 0.5 - (time.monotonic() - began), 0.0))
        before = cpu_seconds(pid)
        until(lambda: not count_rows(path, "deliveries", OPEN), "all is delivered", 0.2)
        cpu_us = (cpu_seconds(pid) - before) / count * 1e6
    seen = ask(hook_port, "/figures")
    if seen["hooks"] != count:
        raise SystemExit(f"{seen['hooks']} posts for {count} deliveries")
    return {"per_s": count / (seen["last_at"] - seen["first_at"]), "cpu_us": cpu_us}
