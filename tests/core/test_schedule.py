"""Retry-After, whatever a subscriber writes into it, and the distances between polls and submits."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.core.schedule import RETRY_AFTER_MAX_S, Policy, parse_retry_after, submit_backoff_s
from tests.support.env import START
from tests.support.fuzz import examples

CLOCKS = st.datetimes(timezones=st.just(UTC))
ZONES = st.integers(-(24 * 60 - 1), 24 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
YEARS = st.integers(-(10**30), 10**30) | st.integers(0, 10_500)
OFFSETS = st.integers(-(10**30), 10**30).map(lambda offset: f"{offset:+05}") | st.sampled_from(
    ["GMT", "EST", "", "-0000"]
)
DATES = st.builds(
    "Thu, {:02} Jan {} {:02}:{:02}:59 {}".format, st.integers(0, 40), YEARS, *[st.integers(0, 99)] * 2, OFFSETS
)
NUMBERS = st.from_regex(r"\A\s?[+-]?[0-9_]{1,400}(\.[0-9]*)?(e[+-]?[0-9]{1,5})?\s?\Z")


@given(text=st.none() | st.text() | DATES | NUMBERS | st.sampled_from(["inf", "-inf", "nan", "1e999"]), now=CLOCKS)
@example(text="Mon, 01 Jan 99999999999999999999 00:00:00 GMT", now=START)
@example(text="Mon, 01 Jan 2026 00:00:00 +99999999999999", now=START)
@example(text="Mon, 01 Jan 0001 00:00:00 +2359", now=datetime.max.replace(tzinfo=UTC))
@example(text="9" * 5_000, now=START)
@examples(200)
def test_any_retry_after_is_a_time_within_a_day_or_nothing(text: str | None, now: datetime) -> None:
    seconds = parse_retry_after(text, now)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


@given(wait_s=st.integers(-(10**6), 10**6), now=CLOCKS.filter(lambda now: 1902 < now.year < 9000), zone=ZONES)
@examples(200)
def test_a_date_is_as_far_away_as_it_says_in_whatever_zone_it_is_written(
    wait_s: int, now: datetime, zone: timezone
) -> None:
    now = now.replace(microsecond=0)
    at = (now + timedelta(seconds=wait_s)).astimezone(zone)
    seconds = parse_retry_after(format_datetime(at), now)
    assert seconds == min(max(wait_s, 0), RETRY_AFTER_MAX_S)


@given(st.integers(0, 10**9))
def test_submits_get_rarer_and_never_stop(submits: int) -> None:
    assert 1 <= submit_backoff_s(submits) <= submit_backoff_s(submits + 1) <= 60


@pytest.mark.parametrize("callbacks", [True, False])
@given(first=st.floats(0.01, 100), factor=st.floats(1, 50), grace=st.floats(0, 1000))
@examples(100)
def test_polls_get_rarer_up_to_their_maximum_and_never_stop(
    callbacks: bool, first: float, factor: float, grace: float
) -> None:
    policy = Policy(
        callbacks=callbacks,
        polling=True,
        blocking=False,
        poll_first_s=first,
        poll_max_s=first * factor,
        grace_s=grace,
    )
    longest = max(policy.grace_max_s, grace) if callbacks else policy.poll_max_s
    wait_s = policy.first_wait_s()
    for _ in range(30):
        following = policy.next_wait_s(wait_s)
        assert min(wait_s, longest) <= following <= longest * 1.000001
        assert following > 0
        wait_s = following
    assert wait_s == pytest.approx(longest) or first * 1.5**29 < longest
