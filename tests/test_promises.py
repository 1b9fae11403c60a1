"""The page of promises names tests that exist, and each promise has one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text()
ROWS = re.findall(r"^\| (.*?) ?\| (.*) \|$", PAGE, re.MULTILINE)
PROMISES = [(promise, proof) for promise, proof in ROWS if proof != "proven by"]


def functions(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_promise_names_tests_that_exist() -> None:
    assert len(PROMISES) > 40
    for promise, proof in PROMISES:
        found = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", proof)
        assert found, (promise, proof)
        assert (ROOT / found[1]).exists() and found[2] in functions(ROOT / found[1]), proof


def test_every_table_has_a_promise_in_its_first_row() -> None:
    for table in PAGE.split("|---|---|\n")[1:]:
        assert not table.startswith("| |")
