"""Every key of a TOML document is found at its line and column."""

import pytest

from service.providers.declared.positions import Path, Positions

DOCUMENT = '''\
# a comment with [brackets] = "and quotes"
schema = 1
text = """
[not.a.table]
key = "still text \\""" here"""
literal = \'\'\'a 'quoted' # text\'\'\'
"quoted key" = "x"   # { [ "
a.b = { c = [1, 2, { d = "}" }], "e.f" = 07:32:00 }

[table.sub]
when = [
  { is = "x" },   # first
  { is = 'y' },
]
[[list]]
name = 1
[[list]]
name = 2
[list.inner]
deep = 1979-05-27 07:32:00
[[list.more]]
z = 1
'''


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("schema",), (2, 1)),
        (("literal",), (6, 1)),
        (("quoted key",), (7, 1)),
        (("a", "b"), (8, 3)),
        (("a", "b", "c", 2, "d"), (8, 22)),
        (("a", "b", "e.f"), (8, 34)),
        (("table", "sub"), (10, 1)),
        (("table", "sub", "when", 1), (13, 3)),
        (("table", "sub", "when", 1, "is"), (13, 5)),
        (("list", 0, "name"), (16, 1)),
        (("list", 1, "name"), (18, 1)),
        (("list", 1, "inner", "deep"), (20, 1)),
        (("list", 1, "more", 0, "z"), (22, 1)),
    ],
)
def test_a_key_is_found_at_its_line_and_column(path: Path, place: tuple[int, int]) -> None:
    assert Positions(DOCUMENT).find(path) == place


def test_a_key_that_is_missing_is_found_at_its_table() -> None:
    assert Positions(DOCUMENT).find(("table", "sub", "absent")) == (10, 1)
    assert Positions(DOCUMENT).find(("absent",)) == (1, 1)
