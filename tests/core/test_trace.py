"""Headers of W3C Trace Context are read or ignored, whatever they hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.trace import MEMBERS_MAX, STATE_MAX, TraceContext, read_trace_context

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def test_a_context_is_taken_as_it_came() -> None:
    found = read_trace_context([PARENT], ["vendor=a b,tenant@sys=1"])
    assert found == TraceContext(traceparent=PARENT, tracestate="vendor=a b,tenant@sys=1")
    assert (found.trace_id, found.span_id, found.flags) == (TRACE, SPAN, 1)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "null",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"{PARENT}\n",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
        PARENT * 1000,
    ],
)
def test_what_is_no_traceparent_is_none(parent: str) -> None:
    assert read_trace_context([parent], []) is None


def test_two_of_them_or_none_are_none() -> None:
    assert read_trace_context([PARENT, PARENT], []) is None
    assert read_trace_context([], ["vendor=1"]) is None


def test_a_later_version_is_read_as_far_as_this_one_goes() -> None:
    found = read_trace_context([f"cc-{TRACE}-{SPAN}-ff-what-comes-later"], [])
    assert found is not None and found.traceparent == PARENT


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        (["a=1", "b=2"], "a=1,b=2"),
        ([" a=1 ,, b=2\t"], "a=1,b=2"),
        (["a=1,a=2"], ""),
        (["A=1"], ""),
        (["a=1,no-value"], ""),
        (["a=1\r\nX-Evil: 1"], ""),
        (["a=\u00e9"], ""),
        (["a=" + "x" * 256], "a=" + "x" * 256),
        (["a=" + "x" * 257], ""),
        ([f"k{n}={'x' * 200}" for n in range(3)], ""),
        ([f"k{n}=1" for n in range(MEMBERS_MAX + 1)], ""),
    ],
)
def test_a_tracestate_is_kept_whole_or_not_at_all(states: list[str], kept: str) -> None:
    found = read_trace_context([PARENT], states)
    assert found is not None and found.tracestate == kept


@given(st.lists(st.text(), max_size=3), st.lists(st.text(), max_size=3))
def test_nothing_that_comes_raises_or_grows(parents: list[str], states: list[str]) -> None:
    for given_parents in (parents, [PARENT]):
        found = read_trace_context(given_parents, states)
        assert found is None or (len(found.traceparent) == 55 and len(found.tracestate) <= STATE_MAX)
