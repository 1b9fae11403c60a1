"""Timing: growth of the poll interval, backoff of submits, the retry schedule of deliveries, and Retry-After."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

RETRY_SCHEDULE_S: tuple[float, ...] = (5, 20, 60, 180, 300, 900, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
RETRY_AFTER_MAX_S = 86_400.0
POLL_GROWTH = 1.5
SUBMIT_BACKOFF_FIRST_S = 1.0
SUBMIT_BACKOFF_MAX_S = 60.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How this installation tracks the tasks of one provider.

    `callbacks` is False without a public URL. `confirm` treats a callback as a hint to poll. The leases outlast the
    calls they cover, or a second worker would take over a call in flight.
    """

    callbacks: bool
    polling: bool
    blocking: bool
    confirm: bool = False
    poll_first_s: float = 2.0
    poll_max_s: float = 15.0
    grace_s: float = 60.0
    grace_max_s: float = 120.0
    submit_lease_s: float = 90.0
    poll_lease_s: float = 60.0

    def first_wait_s(self) -> float:
        return self.grace_s if self.callbacks else self.poll_first_s

    def next_wait_s(self, wait_s: float | None) -> float:
        """Return the seconds to the next poll after one at `wait_s` without news."""
        longest = max(self.grace_max_s, self.grace_s) if self.callbacks else self.poll_max_s
        return min(max(wait_s or 0.0, self.poll_first_s / POLL_GROWTH) * POLL_GROWTH, longest)


def submit_backoff_s(submits: int) -> float:
    """Return the backoff after this many submits that did not arrive."""
    return min(SUBMIT_BACKOFF_FIRST_S * 2.0 ** min(max(submits - 1, 0), 16), SUBMIT_BACKOFF_MAX_S)


def parse_retry_after(text: str | None, now: datetime) -> float | None:
    """Return the seconds from now, 0 to 24 h, or None if unreadable (RFC 9110 10.2.3; some servers send floats)."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_until(text, now)
    if not seconds >= 0:  # NaN is not either
        return None
    return min(seconds, RETRY_AFTER_MAX_S)


def _seconds_until(http_date: str, now: datetime) -> float:
    try:
        at = parsedate_to_datetime(http_date)
    except (ValueError, OverflowError):  # a year or zone out of range
        return -1.0
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())
