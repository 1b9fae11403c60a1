"""How an answer to a check is judged, where no server can be made to give it quickly."""

import pytest

from service.core.delivering import Outcome
from service.core.receiver_plan import DUPLICATE, GOOD, IDLE, WRONG_SIGNATURE, judge, judge_transport
from tests.support.env import START


def outcome(status: int | None, duration_ms: int = 3, error: str | None = None) -> Outcome:
    received = status is not None and 200 <= status < 300 and error is None
    return Outcome(at=START, received=received, status_code=status, duration_ms=duration_ms, error=error)


@pytest.mark.parametrize(("duration_ms", "grade"), [(5_000, "pass"), (5_001, "warn"), (14_999, "warn")])
def test_a_slow_answer_is_a_warning(duration_ms: int, grade: str) -> None:
    finding = judge(DUPLICATE, outcome(204, duration_ms))
    assert finding.grade == grade
    assert ("Answer first" in finding.fix) == (grade == "warn")


@pytest.mark.parametrize(
    ("status", "grade"), [(200, "fail"), (204, "fail"), (302, "warn"), (400, "pass"), (401, "pass"), (403, "pass")]
)
def test_a_forgery_must_be_refused_by_a_check(status: int, grade: str) -> None:
    assert judge(WRONG_SIGNATURE, outcome(status)).grade == grade


@pytest.mark.parametrize("status", [408, 429, 500, 503, None])
def test_a_refusal_for_another_reason_says_nothing_of_the_check(status: int | None) -> None:
    assert judge(WRONG_SIGNATURE, outcome(status, error="said")).grade == "warn"


def test_a_forgery_taken_without_its_answer_being_read_is_taken_all_the_same() -> None:
    assert judge(WRONG_SIGNATURE, outcome(200, error="answer was cut short")).grade == "fail"


def test_a_connection_that_broke_after_a_pause_is_told_as_such() -> None:
    finding = judge(IDLE, outcome(None, error="connection reset"))
    assert (finding.grade, finding.got) == ("fail", "no answer: connection reset")
    assert "idle connections" in finding.fix
    assert "reachable" in judge(GOOD, outcome(None, error="connection reset")).fix


@pytest.mark.parametrize(
    ("url", "is_public", "grade"),
    [("https://a", True, "pass"), ("http://a", True, "warn"), ("http://a", False, "pass"), ("HTTP://a", True, "warn")],
)
def test_what_can_be_read_on_the_way_is_a_warning(url: str, is_public: bool, grade: str) -> None:
    assert judge_transport(url, is_public=is_public).grade == grade
