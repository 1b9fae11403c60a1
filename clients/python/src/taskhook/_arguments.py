"""Turn arguments into a request: omitted ones stay omitted, and times become text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Omit(Enum):
    """The type of OMIT."""

    OMIT = "omit"

    def __repr__(self) -> str:
        return "OMIT"


OMIT: Final = Omit.OMIT
"""For arguments where None has a meaning of its own: leave as it is."""


def given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def params_of(**values: datetime | str | int | None) -> dict[str, str]:
    return {name: text_of(value) for name, value in values.items() if value is not None}


def text_of(value: datetime | str | int) -> str:
    """A time without a zone would be taken for UTC by the service and for local time by Python."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.isoformat()
    return str(value)


def listed(values: Iterable[T] | None) -> list[T] | None:
    return None if values is None else list(values)
