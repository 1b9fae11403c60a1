"""No test has a deadline of its own below half a minute: a busy machine is no fault of the service."""

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
LEAST_S = 30
WAITS = {"until": 1, "until_sync": 1, "wait_for": 1, "timeout": 0}
"""Calls that end a wait, by the place of their time among the arguments."""
CLIENTS = {"httpx.AsyncClient", "httpx.Client"}
"""Their own timeout is five seconds."""
SITTING_OUT = {"tests/support/test_support.py", "tests/client_python/test_retries.py"}
"""Here waits end without what they wait for, which is what is tested."""


def found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {word.arg: word.value for word in node.keywords}
        times = [node.args[WAITS[name]]] if name in WAITS and len(node.args) > WAITS[name] else []
        times += [keywords[word] for word in ("timeout", "at_most_s") if word in keywords]
        if name != "wait":  # a wait for what must not come is no deadline
            yield from ((node.lineno, "a short deadline") for time in times if is_short(time))
        if (
            ast.unparse(node.func) in CLIENTS
            and "timeout" not in keywords
            and "transport" not in keywords
            and None not in keywords
        ):
            yield node.lineno, "httpx's own deadline of 5 s"


def defaults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Deadlines that a function has where its caller names none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            positional = node.args.posonlyargs + node.args.args
            values = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults + node.args.kw_defaults
            for argument, value in zip(positional + node.args.kwonlyargs, values, strict=True):
                if argument.arg in ("timeout", "timeout_s", "at_most_s") and value is not None and is_short(value):
                    yield node.lineno, "a short deadline by default"


def is_short(time: ast.expr) -> bool:
    return isinstance(time, ast.Constant) and isinstance(time.value, int | float) and 0 < time.value < LEAST_S


def test_no_wait_ends_before_a_busy_machine_is_done() -> None:
    short = [
        f"{path.relative_to(HERE.parent)}:{line}: {what}"
        for path in sorted(HERE.rglob("*.py"))
        if str(path.relative_to(HERE.parent)) not in SITTING_OUT
        for tree in [ast.parse(path.read_text())]
        for line, what in (*found(tree), *defaults(tree))
    ]
    assert short == []
