"""Fields of forms that hold one value a line."""

import pytest

from service.core.problems import InvalidRequest
from service.dashboard.forms import LINES_MAX, TEXT_MAX, read_lines


def test_each_line_is_a_name_and_a_value() -> None:
    assert read_lines("team=data\n\n order = 1=2 ", "=", "metadata") == {"team": "data", "order": "1=2"}


@pytest.mark.parametrize(
    "text",
    ["\n" * (LINES_MAX + 1), "\u2028" * (LINES_MAX + 1), "a" * (TEXT_MAX + 1), "a=b\n" * 300_000],
    ids=["line ends", "odd line ends", "one long line", "many lines"],
)
def test_more_than_a_field_can_hold_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_lines(text, "=", "metadata")
    assert refused.value.errors[0].loc == ["body", "metadata"]
    assert "at most 500 lines" in refused.value.errors[0].msg
