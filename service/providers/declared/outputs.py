"""The outputs of a finished task: what `result.urls` finds becomes images with their media type, size and expiry."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from service.core.foreign_json import open_text
from service.core.task import Image
from service.core.times import rfc3339
from service.providers.base import HttpReply
from service.providers.declared.document import Document
from service.providers.declared.expressions import Expression
from service.providers.declared.schema import ResultTable
from service.providers.foreign import link_values, read_link
from service.providers.replies import content_type

OUTPUTS_MAX = 100
NESTING_MAX = 4


def read_outputs(
    table: ResultTable, urls: Expression | None, document: Document, reply: HttpReply
) -> tuple[Image, ...]:
    """Links that are usable, in their order; a link that occurs twice counts once."""
    if urls is None or table.encoding != "url":
        return ()
    expiry = _expiry(table, document, reply)
    found: dict[str, Image] = {}
    for item in list(_items(urls.find(document), NESTING_MAX))[:OUTPUTS_MAX]:
        image = _read_item(item, expiry)
        if image is not None:
            found.setdefault(image.url, image)
    return tuple(found.values())


def find_links(urls: Expression | None, document: Document) -> list[Any]:
    """Return what stands where links belong, usable or not."""
    items = _items(urls.find(document), NESTING_MAX) if urls else ()
    return [_link_of(item) for item in items]


def _items(value: Any, depth: int) -> Iterator[Any]:
    value = open_text(value)
    if isinstance(value, list) and depth:
        for item in value:
            yield from _items(item, depth - 1)
    elif isinstance(value, str):
        yield from link_values(value)
    elif isinstance(value, dict) and (links := link_values(value.get("url"))):
        yield from ({**value, "url": link} for link in links)
    elif value is not None:
        yield value


def _link_of(item: Any) -> Any:
    """The link of an object, under `url` or another name for it; the object itself where there is none."""
    if not isinstance(item, dict) or ("url" in item and item["url"] in (None, "")):
        return item.get("url") if isinstance(item, dict) else item
    return next(iter(link_values(item)), None)


def _read_item(item: Any, expiry: datetime | None) -> Image | None:
    fields: dict[str, Any] = item if isinstance(item, dict) else {"url": item}
    link = read_link(_link_of(fields))
    if link is None:
        return None
    ends_at = read_time(fields.get("expires_at")) or expiry
    media = fields.get("content_type")
    return Image(
        url=link,
        expires_at=rfc3339(ends_at) if ends_at else None,
        content_type=media if isinstance(media, str) and "/" in media and len(media) < 100 else content_type(link),
        width=_size(fields.get("width")),
        height=_size(fields.get("height")),
        original_url=read_link(fields.get("original_url")),
    )


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1_000_000 else None


def _expiry(table: ResultTable, document: Document, reply: HttpReply) -> datetime | None:
    """The provider's own time, else the link's life from the task's end or from now."""
    told = read_time(table.expires_at.find(document)) if table.expires_at else None
    if told or table.link_ttl_s is None:
        return told
    finished = read_time(table.finished_at.find(document)) if table.finished_at else None
    return (finished or reply.received_at) + timedelta(seconds=table.link_ttl_s)


def read_time(value: Any) -> datetime | None:
    """Seconds, milliseconds or microseconds since 1970, or RFC 3339 with any number of digits."""
    try:
        if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
            head, dot, rest = value.replace("Z", "+00:00").partition(".")
            digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            text = f"{head}.{digits[:6].ljust(6, '0')}{rest[len(digits) :]}" if dot else head
            parsed = datetime.fromisoformat(text)
            return parsed.replace(tzinfo=parsed.tzinfo or UTC).astimezone(UTC)
        seconds = float(value)
        while seconds >= 1e11:
            seconds /= 1000
        return datetime.fromtimestamp(seconds, UTC) if seconds >= 1e8 else None
    except (ValueError, TypeError, OverflowError, OSError):
        return None
