"""The sliding window of an account."""

from hypothesis import given
from hypothesis import strategies as st

from service.core.limits import Window
from tests.support.env import FakeEnv


@given(st.lists(st.floats(0, 5), max_size=60), st.integers(1, 20), st.sampled_from([1.0, 10.0, 0.5]))
def test_no_stretch_of_the_windows_length_ever_holds_more_than_the_limit(
    gaps: list[float], limit: int, window_s: float
) -> None:
    env, window, sent = FakeEnv(), Window(limit=limit, window_s=window_s), []
    for gap in gaps:
        now = env.pass_time(gap)
        count = window.room(now)
        window = window.take(count, now)
        sent += [now] * count
    for first in sent:
        assert sum(0 <= (at - first).total_seconds() < window_s for at in sent) <= limit


def test_a_full_window_opens_when_its_oldest_slot_leaves() -> None:
    env = FakeEnv()
    window = Window(limit=2, window_s=10).take(2, env.now())
    assert window.room(env.now()) == 0
    opens_in_s = window.opens_in_s(env.now())
    assert 10 <= opens_in_s <= 11.5
    assert window.room(env.pass_time(opens_in_s)) == 2


def test_a_clock_that_was_ahead_blocks_nothing_for_long() -> None:
    env = FakeEnv()
    window = Window(limit=2, window_s=1).take(2, env.now())
    assert window.room(env.pass_time(-3600)) == 2


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 5)), max_size=30),
    st.integers(1, 5),
    st.sampled_from([0.05, 1.0, 7.3, 1000.0]),
)
def test_when_a_window_says_that_it_opens_it_is_open_however_the_clock_went(
    steps: list[tuple[float, int]], limit: int, window_s: float
) -> None:
    env, window = FakeEnv(), Window(limit=limit, window_s=window_s)
    for gap, wanted in steps:
        now = env.pass_time(gap)
        window = window.take(min(wanted, window.room(now)), now)
    for _ in range(limit + 1):
        opens_in_s = window.opens_in_s(env.now())
        assert (opens_in_s == 0) == (window.room(env.now()) > 0)
        assert opens_in_s <= 3.1 * window_s + 0.001
        if opens_in_s == 0:
            return
        env.pass_time(opens_in_s + 0.001)
    raise AssertionError("it never opens")
