"""Ids: a prefix that says what a thing is, and a UUID of version 7 that sorts by creation."""

from datetime import datetime

from service.core.times import from_ms, to_ms

PREFIXES = {"task": "task", "event": "evt", "endpoint": "ep", "delivery": "dlv", "request": "req", "key": "key"}
RANDOM_BITS = 74


def prefixed_uuid7(kind: str, ms: int, random_bits: int) -> str:
    """`evt_` and 32 hex digits: 48 bits of Unix milliseconds, version, variant, 74 random bits (RFC 9562 5.7)."""
    high, low = random_bits >> 62, random_bits & (1 << 62) - 1
    value = (ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0b10 << 62 | low
    return f"{PREFIXES[kind]}_{value:032x}"


def first_id_at(kind: str, at: datetime) -> str:
    """The smallest id that a thing created at that time can have: a bound for listings by time."""
    return f"{PREFIXES[kind]}_{to_ms(at) << 80:032x}"


def created_at(id: str) -> datetime:
    """The time that stands in an id of any kind."""
    return from_ms(int(id.partition("_")[2][:12], 16))
