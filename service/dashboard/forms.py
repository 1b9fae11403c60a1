"""Forms: lines of text into maps, and the errors of the API next to their fields."""

from collections.abc import Mapping
from typing import Any

from service.core.problems import FieldError, InvalidRequest

Entered = Mapping[str, str]
ON = "on"


def number_or_text(text: str) -> str | int | float:
    """Return the number, or the text as it is, which the API then refuses."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def checked(form: Entered, prefix: str) -> list[str]:
    """The boxes `prefix:value` that are ticked, in the order of the form."""
    return [name.removeprefix(f"{prefix}:") for name in form if name.startswith(f"{prefix}:")]


TEXT_MAX = 65_536
LINES_MAX = 500


def boxes(prefix: str, values: tuple[str, ...]) -> dict[str, str]:
    return dict.fromkeys((f"{prefix}:{value}" for value in values), ON)


def read_lines(text: str, separator: str, field: str) -> dict[str, str]:
    """Read `name=value` or `Name: value`, one a line. Raise InvalidRequest for a wrong line, and for too many."""
    found: dict[str, str] = {}
    rows = text.splitlines() if len(text) <= TEXT_MAX else []
    if len(text) > TEXT_MAX or len(rows) > LINES_MAX:
        limits = f"must have at most {LINES_MAX} lines and {TEXT_MAX:,} characters"
        raise InvalidRequest([FieldError(loc=["body", field], msg=limits)])
    for number, line in enumerate(rows, start=1):
        name, between, value = line.partition(separator)
        if not line.strip():
            continue
        if not between:
            raise InvalidRequest([FieldError(loc=["body", field], msg=f"line {number} has no “{separator}”")])
        found[name.strip()] = value.strip()
    return found


def lines(values: Mapping[str, str], separator: str) -> str:
    return "\n".join(f"{name}{separator}{value}" for name, value in values.items())


def errors_by_field(problem: InvalidRequest, depth: int = 1) -> dict[str, str]:
    """By the first `depth` steps below the body; what lies deeper is named in the message."""
    found: dict[str, list[str]] = {}
    for error in problem.errors:
        field, rest = error.loc[1 : 1 + depth], error.loc[1 + depth :]
        text = f"{'.'.join(map(str, rest))}: {error.msg}" if rest else error.msg
        found.setdefault(".".join(map(str, field)), []).append(text)
    return {field: "; ".join(texts) for field, texts in found.items()}


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not empty."""
    return {name: value for name, value in values.items() if value not in ("", None)}
