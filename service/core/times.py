"""Times: aware UTC datetimes inside, integer milliseconds in columns, RFC 3339 outside."""

from datetime import UTC, datetime, timedelta


def to_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def after(at: datetime, seconds: float) -> datetime:
    """That much later, cut to milliseconds."""
    return at + timedelta(milliseconds=round(seconds * 1000))


def rfc3339(at: datetime) -> str:
    """Always with milliseconds and Z, so that the texts sort like the times."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
