"""How many instructions a request takes, and in whose code, counted by Valgrind, however busy the machine is.

The kernel's are not among them. What Valgrind runs is some fifty times slower, so nothing of it tells a time.
"""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from bench.calls import PROTOTYPE, TASKHOOK, create_requests, load, probes, service_env
from bench.end_to_end import running
from bench.figures import Figure, Plan
from bench.processes import free_port, process
from bench.stock import awaited_callbacks

COUNT, WARM = 600, 100
BARE, WHOLE, AT_LEAST = "a bare request", "a whole task", ", a prototype"
ASKED: dict[str, Callable[[str, int], Sequence[bytes]]] = {
    "an answer without work": lambda _, count: probes(count),
    "a callback": awaited_callbacks,
    "a task accepted": lambda _, count: create_requests(count),
}
"""So many requests, and what must be in the database for them."""
TARGETS = {"a callback": 1.67, "a task accepted": 2.0, WHOLE: 9.5}
"""In bare requests; the first two are what 0.6 and 0.5 of the bare route's speed leave."""
SHARES = {"libpython": "interpreter", "python": "interpreter", "libsqlite3": "SQLite", "libc.so": "libc"}
_LIBRARY = re.compile(r"(c?)ob=\((\d+)\)(?: (.*))?")
_COST = re.compile(r"[+*\d-]")


def of_a_request(plan: Plan) -> Sequence[Figure]:
    if shutil.which("valgrind") is None:
        raise SystemExit("Instructions are counted by valgrind, which is not here (Debian: apt-get install valgrind).")
    count = plan.of(COUNT)
    found = {BARE: _of_the_bare_route(count)}
    for name, asked in ASKED.items():
        found[name] = _of_the_service(asked, count, TASKHOOK)
        if name in TARGETS:
            found[f"{name}{AT_LEAST}"] = _of_the_service(asked, count, PROTOTYPE)
    found |= {WHOLE: _of_whole_tasks(count, TASKHOOK), f"{WHOLE}{AT_LEAST}": _of_whole_tasks(count, PROTOTYPE)}
    return [_figure(name, parts, found[BARE].total()) for name, parts in found.items()]


def _of_the_bare_route(count: int) -> Counter[str]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["-m", "bench.bare", str(port)]
        return _of_requests(arguments, port, "/", folder, {}, create_requests(WARM + count))


def _of_the_service(asked: Callable[[str, int], Sequence[bytes]], count: int, program: Sequence[str]) -> Counter[str]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        env = service_env(port, folder)
        requests = asked(env["TASKHOOK_DATABASE_URL"], WARM + count)
        return _of_requests([*program, "web"], port, "/readyz", folder, env, requests)


def _of_requests(
    arguments: Sequence[str], port: int, path: str, folder: str, env: Mapping[str, str], requests: Sequence[bytes]
) -> Counter[str]:
    left, profile = iter(requests), Path(folder) / "profile"
    with process(arguments, port, path, folder, env, under=_valgrind(profile)) as pid:
        return _count(profile, pid, len(requests) - WARM, lambda count: load(port, list(islice(left, count)), pid))


def _of_whole_tasks(count: int, program: Sequence[str]) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        with running(under=_valgrind(profile), program=program) as service:
            return _count(profile, service.pid, count, service.take)


def _valgrind(profile: Path) -> Sequence[str]:
    return ("valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}")


def _count(profile: Path, pid: int, count: int, send: Callable[[int], object]) -> Counter[str]:
    """Of each of so many behind the first ones, by the library that they are in."""
    send(WARM)
    _tell_valgrind("--zero", pid)
    send(count)
    _tell_valgrind("--dump", pid)
    seen = _read(profile.with_name("profile.1"))
    return Counter({library: round(total / count) for library, total in seen.items()})


def _tell_valgrind(what: str, pid: int) -> None:
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)


def _read(profile: Path) -> Counter[str]:
    """By library. Callgrind tells functions' own costs, and behind `calls=` those of the called, which don't count."""
    seen, names = Counter[str](), dict[str, str]()
    library, is_of_called = "", False
    for line in profile.read_text().splitlines():
        if named := _LIBRARY.fullmatch(line):
            called, number, path = named.groups()
            name = names.setdefault(number, Path(path or "").name)
            library = library if called else name
        elif line.startswith("calls="):
            is_of_called = True
        elif _COST.match(line):
            if not is_of_called:
                seen[library] += int(line.split()[1])
            is_of_called = False
    return seen


def _figure(name: str, parts: Counter[str], bare: int) -> Figure:
    shares = Counter[str]()
    for library, count in parts.items():
        shares[next((share for start, share in SHARES.items() if library.startswith(start)), "others")] += count
    told = ", ".join(f"{share} {count // 1000:,}" for share, count in shares.most_common())
    return Figure(
        name=f"instructions: {name}",
        unit="thousand",
        values=(parts.total() / 1000,),
        yardsticks=() if name == BARE else (bare / 1000,),
        target=TARGETS.get(name),
        at_most=True,
        note=told,
    )
