"""Draws the structure as it is into docs/architecture.md: layers, their imports, every file with its purpose.

python scripts/draw_architecture.py
"""

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn: begin -->", "<!-- drawn: end -->"


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / "service").rglob("*.py"))
    }


def room(module: str) -> str:
    """The part of the service that a module belongs to."""
    return [*module.split("."), ""][1]


def imports(path: Path) -> set[str]:
    """Every import, also those inside functions: an arrow is an arrow."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return {name for name in found if name.startswith("service.")}


def arrows() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in modules().items():
        for target in imports(path):
            if room(module) and room(target) != room(module):
                found[room(module)].add(room(target))
    return found


def layers() -> list[list[str]]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [[part.strip() for part in row.split("|")] for row in contracts[0]["layers"]]


def purpose(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].replace("\n", " ")


def draw() -> str:
    lines = ["```", "layer                       imports", ""]
    found = arrows()
    for row in layers():
        lines += [f"{part:<28}{', '.join(sorted(found[part])) or '-'}" for part in row]
        lines.append("   │")
    lines[-1] = "```"
    lines += ["", "| file | what it is for |", "|---|---|"]
    for path in modules().values():
        if purpose(path):
            lines.append(f"| `{path.relative_to(ROOT)}` | {purpose(path).replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def page_with(drawing: str, page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{drawing}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with(draw(), PAGE.read_text()))
