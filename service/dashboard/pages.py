"""Templates: everything that is put into a page is escaped, and what would hide or turn round text is made visible."""

import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from service.dashboard.icons import ICONS

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_OWN_LINK = re.compile(r' (?:href|action|src|data-address|data-preview)="(?=/(?!/))')
"""Before each path of ours on a page. Text of others can't look like it, since its quotes are escaped."""
RAW_MAX = 100_000
"""Characters of a payload on a page; the API has the rest."""


class Templates:
    """All pages; `assets` is the path of styles and scripts."""

    def __init__(self, assets: str) -> None:
        self._environment = Environment(
            loader=PackageLoader("service.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=show,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(assets=assets, icons=ICONS, between=between)
        self._environment.filters.update(FILTERS)

    def render(self, name: str, **values: Any) -> bytes:
        text = self._environment.get_template(name).render(**values)
        if prefix := values.get("prefix"):
            text = _OWN_LINK.sub(lambda found: f"{found[0]}{escape(prefix)}", text)
        return text.encode("utf-8", "replace")


def show(value: Any) -> Any:
    """Render a `{{ value }}`: foreign text must not reorder a page or hide in it. None shows nothing."""
    if value is None:
        return ""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
    return value


def exact(text: str) -> Markup:
    """As it is, escaped alone: for the value of a field that is sent back."""
    return escape(text)


def read_time(at: datetime | str) -> datetime:
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def exact_time(at: datetime | str) -> str:
    return f"{read_time(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(at: datetime | str, now: datetime) -> str:
    """Return the distance in words. The script in the page updates it."""
    seconds = (now - read_time(at)).total_seconds()
    words = _span(abs(seconds))
    if abs(seconds) < 1:
        return "now"
    return f"in {words}" if seconds < 0 else f"{words} ago"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def said_time(text: str, now: datetime) -> str:
    """Render a foreign time, or the text as it is if it is not a time."""
    try:
        return ago(text, now) if read_time(text).tzinfo else text
    except ValueError:
        return text


def duration(seconds: float | None) -> str:
    """For a measured time: as many digits as say something."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def between(start: datetime | str, end: datetime | str) -> float:
    """Seconds."""
    return (read_time(end) - read_time(start)).total_seconds()


def pretty(value: Any) -> str:
    """JSON with indents, numbers and order as they came; of a large one the beginning as it is."""
    sent = bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)
    if len(sent) > RAW_MAX:
        return f"{sent[:RAW_MAX].decode('utf-8', 'ignore')}\n… {len(sent) - RAW_MAX} more bytes"
    found = msgspec.json.format(sent, indent=2).decode("utf-8", "replace")
    return found if len(found) <= RAW_MAX else f"{found[:RAW_MAX]}\n… {len(found) - RAW_MAX} more characters"


def number(value: float) -> str:
    """With thin spaces between the thousands."""
    return f"{value:,}".replace(",", "\u202f")


def compact(value: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if value >= size * 10:
            return f"{value / size:.0f}{unit}"
        if value >= size:
            return f"{value / size:.1f}{unit}"
    return f"{value:g}"


def percent(part: float) -> str:
    """Never 100 % where something failed."""
    shown = part * 100
    if 99.9 <= shown < 100:
        return "> 99.9 %"
    return f"{shown:.1f} %" if 0 < shown < 100 else f"{shown:.0f} %"


def short_id(text: str) -> str:
    """Its kind and its end: the beginning is the time, which neighbours share."""
    kind, _, rest = text.partition("_")
    return f"{kind}_…{rest[-8:]}" if len(rest) > 12 else text


def link(url: str | None) -> str | None:
    """A URL that may be followed: a provider could send `javascript:` as well."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None


def host(url: str | None) -> str:
    try:
        return urlsplit(url or "").netloc.rpartition("@")[2]
    except ValueError:
        return ""


def query(values: dict[str, Any]) -> str:
    """A query string of those that are given, with its question mark."""
    text = urlencode({name: value for name, value in values.items() if value not in (None, "")})
    return f"?{text}" if text else ""


FILTERS = {
    "ago": ago,
    "compact": compact,
    "duration": duration,
    "exact": exact,
    "exact_time": exact_time,
    "host": host,
    "link": link,
    "number": number,
    "percent": percent,
    "pretty": pretty,
    "query": query,
    "said_time": said_time,
    "short_id": short_id,
}
