"""Reading requests into typed values; an invalid one raises Refused, which each provider words in its own way."""

import math
import re
from collections.abc import Collection
from enum import Enum, auto
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request


class Reason(Enum):
    """Why a provider refuses a request."""

    NO_KEY = auto()
    BAD_KEY = auto()
    NO_CREDITS = auto()
    THROTTLED = auto()
    UNAVAILABLE = auto()
    MODERATED = auto()
    INVALID = auto()
    OUT_OF_RANGE = auto()
    NO_ROUTE = auto()


class Refused(Exception):
    """A request that gets an error response in the provider's own words; `field` names the wrong field, if any."""

    def __init__(self, reason: Reason, text: str = "", field: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
        self.field = field


def refuse_field(field: str, text: str) -> Refused:
    return Refused(Reason.INVALID, f"{field} {text}", field)


async def read_object(request: Request) -> "Fields":
    raw_body = await request.body()
    try:
        body: Any = msgspec.json.decode(raw_body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Refused(Reason.INVALID, "The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise Refused(Reason.INVALID, "The request body must be a JSON object")
    return Fields(body)


class Fields:
    """A JSON object read field by field; null counts as missing."""

    def __init__(self, body: dict[str, object]) -> None:
        self.body = body

    def find_text(self, name: str) -> str | None:
        value = self.body.get(name)
        if value is None or isinstance(value, str):
            return value
        raise refuse_field(name, "must be a string")

    def text(self, name: str) -> str:
        value = self.find_text(name)
        if value is None or not value.strip():
            raise refuse_field(name, "is required")
        return value

    def choice(self, name: str, allowed: Collection[str], default: str | None = None) -> str:
        value = self.text(name) if default is None else self.find_text(name) or default
        if value not in allowed:
            raise refuse_field(name, f"must be one of {', '.join(sorted(allowed))}")
        return value

    def flag(self, name: str) -> bool:
        value = self.body.get(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise refuse_field(name, "must be a boolean")

    def whole(self, name: str, default: int) -> int:
        value = self.body.get(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
        raise refuse_field(name, "must be an integer")

    def whole_between(self, name: str, low: int, high: int, default: int) -> int:
        value = self.whole(name, default)
        if not low <= value <= high:
            raise refuse_field(name, f"must be between {low} and {high}")
        return value

    def find_url(self, name: str) -> str | None:
        value = self.find_text(name)
        if value is None or _is_web_url(value):
            return value
        raise refuse_field(name, "must be a valid http or https URL")


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def parse_pair(value: str, separator: str) -> tuple[int, int] | None:
    """Parse `16:9` or `1024x768` into two positive numbers; None if it is no such pair."""
    match = re.fullmatch(rf"([1-9][0-9]{{0,4}}){separator}([1-9][0-9]{{0,4}})", value)
    return (int(match[1]), int(match[2])) if match else None


def pixels(ratio: str) -> tuple[int, int]:
    """Return width and height for about one megapixel in this ratio, both multiples of 16."""
    wide, high = parse_pair(ratio, ":") or (1, 1)
    width = math.sqrt(1024 * 1024 * wide / high)
    return round(width / 16) * 16, round(width * high / wide / 16) * 16
