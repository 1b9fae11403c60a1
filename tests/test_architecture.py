"""The picture in the docs is the code's own."""

from scripts.draw_architecture import BEGIN, END, PAGE, arrows, draw, layers, modules, purpose


def test_the_picture_is_true() -> None:
    drawn = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert drawn == draw(), "run: python scripts/draw_architecture.py"


def test_every_module_says_why_it_exists() -> None:
    assert [str(path) for path in modules().values() if path.name != "__main__.py" and not purpose(path)] == []


def test_imports_go_down_only() -> None:
    depth = {part: number for number, row in enumerate(layers()) for part in row}
    upward = [(source, target) for source, targets in arrows().items() for target in targets if source != "__main__"]
    assert [pair for pair in upward if depth[pair[0]] >= depth[pair[1]]] == []
