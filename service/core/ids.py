"""Ids: a prefix for the kind, and a UUIDv7, so that they sort by creation."""

from datetime import datetime

from service.core.times import from_ms, to_ms

PREFIXES = {"task": "task", "event": "evt", "endpoint": "ep", "delivery": "dlv", "request": "req", "key": "key"}
RANDOM_BITS = 74


def prefixed_uuid7(kind: str, ms: int, random_bits: int) -> str:
    """Return a prefix and 32 hex digits: 48 bits of Unix milliseconds, version, variant, 74 random bits (RFC 9562)."""
    high, low = random_bits >> 62, random_bits & (1 << 62) - 1
    value = (ms & (1 << 48) - 1) << 80 | 0x7 << 76 | (high & 0xFFF) << 64 | 0b10 << 62 | low
    return f"{PREFIXES[kind]}_{value:032x}"


def first_id_at(kind: str, at: datetime) -> str:
    """Return the smallest id that can be created at this time: a bound for listings by time."""
    return f"{PREFIXES[kind]}_{to_ms(at) << 80:032x}"


def created_at(id: str) -> datetime:
    """Return the creation time that an id holds."""
    return from_ms(int(id.partition("_")[2][:12], 16))
