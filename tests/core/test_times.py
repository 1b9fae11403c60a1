"""Times as columns and as texts."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.times import after, from_ms, rfc3339, to_ms


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 11, 21, 23, 5, 7, 45_000, UTC), "2026-11-21T23:05:07.045Z"),
        (datetime(2026, 11, 21, 23, 5, 7, 0, UTC), "2026-11-21T23:05:07.000Z"),
        (datetime(2026, 11, 21, 23, 5, 7, 999_999, UTC), "2026-11-21T23:05:07.999Z"),
        (datetime(2026, 11, 21, 23, 5, 7, 999, UTC), "2026-11-21T23:05:07.000Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC), "1969-12-31T23:59:59.999Z"),
        (datetime(2026, 11, 22, 1, 5, 7, 45_000, timezone(timedelta(hours=2))), "2026-11-21T23:05:07.045Z"),
    ],
)
def test_a_text_has_milliseconds_and_is_of_utc(at: datetime, text: str) -> None:
    assert rfc3339(at) == text


@given(st.integers(0, 253_402_300_799_999))
def test_every_millisecond_keeps_its_value_and_its_text(ms: int) -> None:
    at = from_ms(ms)
    assert to_ms(at) == ms
    assert to_ms(datetime.fromisoformat(rfc3339(at))) == ms


def test_later_is_cut_to_milliseconds() -> None:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    assert after(at, 1.2344) == at + timedelta(seconds=1, milliseconds=234)
    assert after(at, -0.001) == at - timedelta(milliseconds=1)
