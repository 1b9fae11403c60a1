"""Where the lines, columns and dots of the pictures stand, in numbers."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from service.core.times import rfc3339
from service.core.views import TimelineItem
from service.dashboard.drawing import LINE_HEIGHT, LINE_WIDTH, Column, draw_columns, draw_line, nice_ceiling
from service.dashboard.story import CLOSEST, draw, tell

START = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


def item(kind: str, seconds: float, **detail: object) -> TimelineItem:
    return TimelineItem(type=kind, at=rfc3339(START + timedelta(seconds=seconds)), detail=detail)


@pytest.mark.parametrize(
    ("value", "most"), [(0, 2), (2, 2), (3, 4), (7, 10), (11, 12), (103, 120), (121, 160), (999, 1000), (1001, 1200)]
)
def test_a_scale_ends_little_above_the_highest(value: int, most: int) -> None:
    assert nice_ceiling(value) == most


def test_a_column_stacks_what_ended_and_leaves_out_what_did_not() -> None:
    (slot,) = draw_columns((Column(at=START, minutes=1, counts={"succeeded": 3, "failed": 1}),)).slots
    good, bad = slot.bars
    assert (good.kind, bad.kind) == ("succeeded", "failed")
    assert bad.y + bad.height == pytest.approx(good.y) and good.height == pytest.approx(3 * bad.height)
    assert slot.label == "03:04: 3 succeeded, 1 failed"


def test_a_line_goes_through_what_is_known_and_fills_the_time() -> None:
    line = draw_line([None, 0.0, None, 1.0], 1.0, ["a", "b", "c", "d"])
    low, high = (point.split() for point in line.path.removeprefix("M").split("L"))
    assert [float(low[0]), float(high[0])] == [LINE_WIDTH * 0.375, LINE_WIDTH * 0.875]
    assert float(low[1]) > float(high[1]) and line.area.endswith(f"V{LINE_HEIGHT}H{low[0]}Z")
    assert [slot.label for slot in line.slots] == ["a", "b", "c", "d"]


def test_one_value_is_a_short_line_and_none_is_no_line() -> None:
    assert draw_line([None, 0.5], 1.0, ["", ""]).path.count("L") == 1
    assert draw_line([None], 1.0, [""]).path == ""


def test_polls_that_stand_side_by_side_are_one_dot_and_one_line() -> None:
    polls = [item("poll.pending", 2.0 * number) for number in range(1, 401)]
    items = [item("task.created", 0), item("submit.accepted", 1), *polls, item("poll.failed", 801)]
    marks = draw(items, START + timedelta(seconds=801), is_final=True).marks
    dots = [mark.x for mark in marks if mark.tone == "busy"]
    assert 100 < len(dots) < 250
    assert all(right - left >= CLOSEST for left, right in pairwise(dots))
    assert marks[-1].tone == "bad", "what is different is never left out"
    assert [line.times for line in tell(items) if line.type == "poll.pending"] == [400]
