"""Why a task is where it is: sentences for every step, state and error code."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.schedule import Policy
from service.core.task import ERROR_CODES, Output, Result, TaskError
from service.core.times import after, to_ms
from service.core.why import Why, explain
from tests.support.env import START, FakeEnv
from tests.support.factory import BLOCKING, CALLS_BACK, POLL_ONLY, make_task

ENV = FakeEnv()
TRACKING = {"status": "running", "step": "tracking", "due_at": after(START, 4)}


def why(policy: Policy | None = CALLS_BACK, paused_s: float = 0, passed_s: float = 0, **changes: Any) -> Why:
    task = make_task(ENV, **changes)
    return explain(task, policy, to_ms(after(START, paused_s)), after(START, passed_s))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (why(), "It is sent as soon as the account's limits leave room, or fails at 00:15:00 UTC."),
        (why(due_at=after(START, 8)), "It is sent in 8 s."),
        (
            why(paused_s=12),
            "The account is paused until 00:00:12 UTC because the provider answered 429; then it is sent.",
        ),
        (why(passed_s=900), "Its deadline is over, so it is about to fail."),
        (why(step="sending"), "The provider's answer decides, within the time limit of the call."),
        (why(BLOCKING, step="sending"), "The answer ends it; without one it fails at 00:15:00 UTC."),
        (
            why(step="unconfirmed", passed_s=400),
            "A callback can still finish it; without one it fails in 500 s.",
        ),
        (why(**TRACKING), "A callback is expected; if it does not come, the next poll is in 4 s."),
        (why(POLL_ONLY, **TRACKING), "The next poll is in 4 s."),
        (why(POLL_ONLY, passed_s=5, **TRACKING), "The next poll is now."),
        (
            why(POLL_ONLY, paused_s=90_000, **TRACKING),
            "The account is paused until 2026-01-02T01:00:00.000Z because the provider answered 429;"
            " then it is polled.",
        ),
        (why(BLOCKING, **TRACKING), "Its callback ends it; without one it fails at 00:15:00 UTC."),
        (why(passed_s=900, **TRACKING), "Its deadline is over: one last poll decides."),
        (why(BLOCKING, passed_s=900, **TRACKING), "Its deadline is over: it fails."),
        (
            why(None, **TRACKING),
            "It continues when the provider's key is set again; its deadline is 00:15:00 UTC.",
        ),
    ],
)
def test_what_comes_next_is_told_with_its_time(found: Why, sentence: str) -> None:
    assert found.next == sentence


def test_a_setback_is_told_with_its_reason() -> None:
    setback = TaskError(code="rate_limited", message="HTTP 429: slow down.", retryable=True)
    assert why(submits=1, setback=setback).why == "The last submit did not get through: HTTP 429: slow down."


def test_a_doubt_is_told_before_a_later_setback() -> None:
    doubt = TaskError(code="submit_unconfirmed", message="it may have been charged.")
    told = "The outcome of an earlier submit is unknown, and the request allows to send it again."
    assert why(submits=1, setback=doubt).why == told


def test_a_task_that_a_poll_did_not_find_says_so() -> None:
    assert "did not find it" in why(lost=True, **TRACKING).why


@pytest.mark.parametrize("code", ERROR_CODES)
def test_each_error_code_has_its_own_reason_and_advice(code: Any) -> None:
    error = TaskError(code=code, message="what they said.")
    found = why(status="failed", step="done", error=error)
    assert found.why.endswith(": what they said.")
    assert found.you_can.endswith(".")
    erased = why(status="failed", step="done", error=error, erased_at=START)
    assert "what they said" not in erased.why


def test_a_result_is_told_with_the_end_of_its_links() -> None:
    result = Result(outputs=(Output(url="http://x/", expires_at="2026-01-15T00:00:00.000Z"),))
    found = why(status="succeeded", step="done", via="callback", result=result)
    assert found.why == "The provider finished it and reported that by a callback."
    assert found.you_can == "Fetch the outputs before their links expire at 2026-01-15T00:00:00.000Z."


def test_a_late_result_is_told() -> None:
    late = Result(outputs=(Output(url="http://x/"),))
    assert "stored as late_result" in why(status="canceled", step="done", late_result=late).next


@given(
    step=st.sampled_from(["submit", "sending", "unconfirmed", "tracking"]),
    final=st.sampled_from([None, "succeeded", "failed", "canceled"]),
    policy=st.sampled_from([None, CALLS_BACK, POLL_ONLY, BLOCKING]),
    paused_s=st.floats(-10, 1e6),
    passed_s=st.floats(0, 1e6),
    submits=st.integers(0, 3),
    lost=st.booleans(),
    erased=st.booleans(),
)
def test_whatever_the_state_there_are_three_sentences(
    step: str, final: str | None, policy: Any, paused_s: float, passed_s: float, submits: int, lost: bool, erased: bool
) -> None:
    state = {"status": final, "step": "done"} if final else {"step": step}
    erased_at = START if erased else None
    found = why(policy, paused_s, passed_s, submits=submits, lost=lost, erased_at=erased_at, **state)
    for sentence in (found.why, found.next, found.you_can):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert ".." not in sentence
