"""Times: aware UTC datetimes inside, integer milliseconds in columns, RFC 3339 outside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from msgspec import to_builtins

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


@lru_cache(1 << 12)
def from_ms(ms: int) -> datetime:
    """Cached: `now` is read several times a millisecond, and a row several times in its life."""
    return _EPOCH + ms * _MS  # exact: a float of seconds is off by a microsecond some centuries from now


def after(at: datetime, seconds: float) -> datetime:
    """Return the time that many seconds later, in whole milliseconds."""
    return at + round(seconds * 1000) * _MS


def rfc3339(at: datetime) -> str:
    """Format with milliseconds and Z, so that the texts sort like the times; truncates below a millisecond."""
    text: str = to_builtins(at.astimezone(UTC))  # the fastest way; it omits microseconds of 0
    return f"{text[:23]}Z" if at.microsecond else f"{text[:19]}.000Z"
