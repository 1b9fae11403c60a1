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
    """Remembered, since `now` is asked for several times a millisecond and a row is read several times in its life."""
    return _EPOCH + ms * _MS  # exactly: a float of seconds is a microsecond off some centuries from now


def after(at: datetime, seconds: float) -> datetime:
    """That much later, cut to milliseconds."""
    return at + round(seconds * 1000) * _MS


def rfc3339(at: datetime) -> str:
    """Always with milliseconds and Z, so that the texts sort like the times; what is finer is cut off."""
    text: str = to_builtins(at.astimezone(UTC))  # the quickest way; it leaves out microseconds that are 0
    return f"{text[:23]}Z" if at.microsecond else f"{text[:19]}.000Z"
