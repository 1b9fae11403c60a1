"""Clients that wait: 1,000 of the event stream, 10,000 long polls; what a process gives each of them, and when."""

import tempfile
from collections.abc import Sequence
from typing import Any

from bench.calls import callback_requests, new_database, packed, request, service_env
from bench.figures import Figure, Plan
from bench.listeners import ALONE
from bench.processes import free_port, process, tool
from bench.stock import Stock

FOLLOWERS = 1_000
EVENTS = 150
POLLS = 10_000


def stream(plan: Plan) -> Sequence[Figure]:
    """All of them hear of every event."""
    clients = plan.of(FOLLOWERS)
    opening = [request("GET", "/v1/events/stream")] * clients
    found = _one_round("stream", opening, plan.of(EVENTS) + ALONE)
    name = f"event stream, {clients:,} clients"
    return [
        _held(name, clients, found),
        Figure(
            name=f"{name}: events to clients",
            unit="/s",
            values=(found["per_s"],),
            note=f"{found['cpu_us']:.0f} us each",
        ),
        _until_heard(f"{name}: callback to the last of them, p50", found, 0.5),
        _until_heard(f"{name}: callback to the last of them, p99", found, 0.99),
    ]


def polls(plan: Plan) -> Sequence[Figure]:
    """Each waits for a task of its own."""
    return _polls(plan, "long polls", None)


def polls_on_postgres(plan: Plan) -> Sequence[Figure]:
    return _polls(plan, "long polls, PostgreSQL", new_database(plan.server)) if plan.server else []


def _polls(plan: Plan, kind: str, database: str | None) -> Sequence[Figure]:
    clients = plan.of(POLLS)
    found = _one_round("polls", None, clients, database)
    name = f"{kind}, {clients:,} clients"
    return [
        _held(name, clients, found),
        Figure(
            name=f"{name}: answered in a burst of callbacks",
            unit="/s",
            values=(found["per_s"],),
            note=f"{found['cpu_us']:.0f} us each, callback included",
        ),
        _until_heard(f"{name}: callback to answer, p50", found, 0.5),
        _until_heard(f"{name}: callback to answer, p99", found, 0.99),
    ]


def _held(name: str, clients: int, found: dict[str, Any]) -> Figure:
    beside = f"{found['mib']:.0f} MiB with them, {found['idle'] * 100:.1f} % of a core while nothing happens"
    told = f"; {found['refused']:,} told to come again, {found['lost']:,} cut off" if found["held"] < clients else ""
    return Figure(name=f"{name}: held at once", unit="", values=(found["held"],), note=beside + told)


def _until_heard(name: str, found: dict[str, Any], share: float) -> Figure:
    ordered = sorted(found["ms"])
    return Figure(name=name, unit="ms", values=(ordered[int(len(ordered) * share)],))


def _one_round(kind: str, opening: list[bytes] | None, callbacks: int, database: str | None = None) -> dict[str, Any]:
    """Without `opening` each client waits for the task of one callback."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = service_env(port, folder, database)
        ids = Stock(env["TASKHOOK_DATABASE_URL"]).fill(running=callbacks)
        opening = opening or [request("GET", f"/v1/tasks/{task_id}?wait=60") for task_id in ids]
        with process(["-m", "service", "serve"], port, "/readyz", folder, env) as pid:
            given = packed([*opening, *callback_requests(ids)])
            found: dict[str, Any] = tool(["-m", "bench.listeners", kind, str(port), str(pid), str(len(opening))], given)
    return found
