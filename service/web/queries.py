"""Query strings: decoded into the declared type like a body, with cursors and times."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Container, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from service.core.problems import FieldError, InvalidRequest
from service.web.bodies import field_error, is_storable
from service.web.calls import ID_SHAPES
from service.web.pairs import read_pairs

T = TypeVar("T")
Limit = Annotated[int, Meta(ge=1, le=200)]
Cursor = Annotated[
    str, Meta(description="`next_cursor` of the page before.", extra_json_schema={"pattern": "^[A-Za-z0-9_-]+$"})
]
TimeText = Annotated[
    str,
    Meta(
        description="An RFC 3339 time or a date.",
        examples=["2026-01-01T00:00:00Z"],
        extra_json_schema={"pattern": r"^\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)?)?$"},
    ),
]

FIELDS_MAX = 100
METADATA = re.compile(r"metadata\.(?P<dotted>.+)|metadata\[(?P<bracketed>.+)\]", re.DOTALL)
"""One pair of the filter: `metadata.KEY=VALUE`, or `metadata[KEY]=VALUE` as generated clients write it."""
SEQUENCE = re.compile(r"[0-9]{1,18}", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d))?", re.ASCII)


def decode_query(query_string: bytes, kind: type[T]) -> T:
    """Raises InvalidRequest that names every parameter that is not known, or else every one that is wrong."""
    given = _read_pairs(query_string)
    fields: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    labels = _pick_metadata(given) if "metadata" in fields else {}
    unknown = [name for name in given if name not in fields and name not in labels]
    if unknown:
        known = ", ".join(fields) or "none"
        raise InvalidRequest([query_error(name, f"is not known here; known are: {known}") for name in unknown])
    plain: dict[str, object] = {name: value for name, value in given.items() if name in fields}
    if labels:
        plain.setdefault("metadata", {key: given[name] for name, key in labels.items()})
    return _convert(plain, kind)


def pick_query(query_string: bytes, kind: type[T]) -> T:
    """For what is open to everybody: parameters that are not known are ignored, since monitors add their own."""
    try:
        given = dict(read_pairs(query_string, FIELDS_MAX))
    except ValueError:
        given = {}
    fields: tuple[str, ...] = kind.__struct_fields__  # type: ignore[attr-defined]
    return _convert({name: given[name] for name in fields if name in given}, kind)


def _convert(plain: dict[str, object], kind: type[T]) -> T:
    try:
        return msgspec.convert(plain, kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(list(_wrong(plain, kind)) or [field_error(str(error), kind, "query")]) from None


def _wrong(given: Mapping[str, object], kind: Any) -> Iterator[FieldError]:
    """Each of them: msgspec itself stops at the first."""
    for field in msgspec.structs.fields(kind):
        if field.name in given:
            try:
                msgspec.convert(given[field.name], field.type, strict=False)
            except msgspec.ValidationError as error:
                yield field_error(str(error), field.type, "query", field.name)


def query_error(name: str, msg: str) -> FieldError:
    return FieldError(loc=["query", name], msg=msg)


def encode_cursor(last: str | int | None) -> str | None:
    return None if last is None else urlsafe_b64encode(str(last).encode()).decode().rstrip("=")


def read_id_cursor(cursor: str | None, kind: str) -> str | None:
    return _read_cursor(cursor, ID_SHAPES[kind])


def read_number_cursor(cursor: str | None) -> int:
    return int(_read_cursor(cursor, SEQUENCE) or 0)


def read_model(name: str | None, provider: str | None, known: Container[str]) -> tuple[str | None, str | None]:
    """The provider and the bare name that a listing is narrowed to; the name is `provider/model`, too.

    One whose provider is not the one that is given stays as it is: no model has such a name.
    """
    named, _, bare = (name or "").partition("/")
    return (named, bare) if named in known and provider in (None, named) and bare else (provider, name)


def read_time(text: str | None, *loc: str) -> datetime | None:
    """A date is its midnight in UTC. What lies before 1970 is 1970: nothing here is older."""
    if text is None:
        return None
    try:
        at = _parse_time(text)
        return max(at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC), EPOCH)
    except (ValueError, OverflowError):
        msg = "must be an RFC 3339 time such as 2026-01-01T00:00:00Z, or a date such as 2026-01-01"
        raise InvalidRequest([FieldError(loc=list(loc), msg=msg)]) from None


def _parse_time(text: str) -> datetime:
    """A plus sign that was not escaped arrives as a space."""
    text = re.sub(r" (?=\d\d:\d\d$)", "+", text) if len(text) > len("2026-01-01 00:00") else text
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.fromisoformat(text.upper())


def _read_cursor(cursor: str | None, shape: re.Pattern[str]) -> str | None:
    if cursor is None:
        return None
    try:
        found = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except ValueError:
        found = ""
    if not shape.fullmatch(found):
        raise InvalidRequest([query_error("cursor", "is not one that this listing gave")])
    return found


def _read_pairs(query_string: bytes) -> dict[str, str]:
    if not query_string:
        return {}
    try:
        pairs = read_pairs(query_string, FIELDS_MAX)
    except ValueError:
        raise InvalidRequest([FieldError(loc=["query"], msg="is no UTF-8, or has too many parameters")]) from None
    given = dict(pairs)
    errors = [query_error(name, "is given more than once") for name in given if [n for n, _ in pairs].count(name) > 1]
    errors += [query_error(n, "holds a NUL, which can't be stored") for n, v in pairs if not is_storable(n + v)]
    if errors:
        raise InvalidRequest(errors)
    return given


def _pick_metadata(names: Iterable[str]) -> dict[str, str]:
    """Return the key of metadata that each of these parameters names. Raises InvalidRequest if two name the same."""
    found = {name: match for name in names if (match := METADATA.fullmatch(name))}
    keys = {name: match["dotted"] or match["bracketed"] for name, match in found.items()}
    given = list(keys.values())
    if twice := [query_error(name, "is given more than once") for name, key in keys.items() if given.count(key) > 1]:
        raise InvalidRequest(twice)
    return keys
