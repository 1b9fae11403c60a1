"""Times: aware UTC datetimes inside, integer milliseconds in columns, RFC 3339 outside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache


def to_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def after(at: datetime, seconds: float) -> datetime:
    """That much later, cut to milliseconds."""
    return at + timedelta(milliseconds=round(seconds * 1000))


def rfc3339(at: datetime) -> str:
    """Always with milliseconds and Z, so that the texts sort like the times."""
    seconds, ms = divmod(to_ms(at), 1000)
    return f"{to_the_second(seconds)}.{ms:03d}Z"


@lru_cache(1024)
def to_the_second(seconds: int) -> str:
    """Of Unix time, without the Z. What is told together is mostly about the same seconds, so most of it is known."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
