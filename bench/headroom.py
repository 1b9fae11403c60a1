"""Limits of the benchmark tools themselves, to show that none of them limits a figure."""

import tempfile
from collections.abc import Sequence
from typing import Any

from bench.calls import CONNECTIONS, CREATE, bare, create_requests, load, packed, request, world
from bench.figures import Figure, Plan, ratio_figure
from bench.processes import SERVICE, free_port, process, tool

COUNT = 5_000


def tools(plan: Plan) -> Sequence[Figure]:
    """Each beside the fastest thing that it meets."""
    count = plan.of(COUNT)
    driven = [(_generator(count), bare(create_requests(count))) for _ in range(plan.few_rounds)]
    with tempfile.TemporaryDirectory() as folder, world(folder) as port:
        posted = [(_answers(port, "/hook", count), _bare_posts(port, count)) for _ in range(plan.few_rounds)]
        submitted = [_answers(port, "/submit", count) for _ in range(plan.few_rounds)]
    return [
        ratio_figure("headroom: load generator", driven, None, "yardstick: the bare route"),
        Figure(
            name="headroom: subscriber",
            unit="/s",
            values=tuple(posted_per_s for posted_per_s, _ in posted),
            yardsticks=tuple(beside for _, beside in posted),
            note="yardstick: aiohttp alone",
        ),
        Figure(name="headroom: provider", unit="/s", values=tuple(submitted), note="submits answered"),
    ]


def _generator(count: int) -> Any:
    """On a server that answers without reading."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        process(["-m", "bench.raw_server", str(port)], port, "/", folder, {}) as pid,
    ):
        return load(port, create_requests(count), pid)


def _answers(port: int, path: str, count: int) -> float:
    """Of the world, a second, when the core of the service does nothing but ask."""
    requests = packed([request("POST", path, CREATE)] * count)
    seen = tool(["-m", "bench.load", "127.0.0.1", str(port), str(CONNECTIONS), "0"], requests, SERVICE)
    return float(seen["per_s"])


def _bare_posts(port: int, count: int) -> float:
    """A second, of a bare aiohttp client on the core that the service has in its turn."""
    given = [f"http://127.0.0.1:{port}/hook", str(count), str(CONNECTIONS)]
    return float(tool(["-m", "bench.bare_client", *given], CREATE.encode(), SERVICE)["per_s"])
