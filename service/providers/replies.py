"""Reading what a provider sent: nothing here raises, whatever the bytes; texts leave it bounded and without keys."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

import msgspec

from service.core.foreign_json import is_costly, open_text
from service.core.observation import Failed, NoOutput, NotSent, Observation, Throttled, Unconfirmed, Unreadable
from service.core.task import ErrorCode, Image, TaskError
from service.core.times import after, rfc3339
from service.providers.base import DEPTH_MAX, HttpReply, is_too_deep
from service.providers.foreign import error_text, error_words, link_values, read_link

TEXT_MAX = 500
CODE_MAX = 100
DROPPED_MAX, DROPPED_CHARS = 10, 200
PAUSE_MAX_S = 24 * 3600.0

RETRYABLE: frozenset[ErrorCode] = frozenset({"rate_limited", "provider_unavailable", "provider_error"})
CODE_BY_STATUS: dict[int, ErrorCode] = {
    401: "authentication",
    402: "insufficient_credits",
    403: "authentication",
    429: "rate_limited",
}
CONTENT_TYPES = {
    "avif": "image/avif",
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
}

TASK_ID = re.compile(r"[!-~]{1,256}")
DIGITS = re.compile(r"\d{1,12}", re.ASCII)
SECONDS = re.compile(r"\d+(\.\d*)?", re.ASCII)
MODERATION = re.compile(
    r"safety(?![ _-]?tolerance)|moderat|polic(y|ies)|nsfw|flagged|inappropriate|prohibited|sexual|"
    r"sensitive[ _-]?(content|word|info|topic|material)|content[ _-]?(filter|violat|restrict|block)|"
    r"data_?inspection_?failed|敏感|违规|违禁|审核",
    re.IGNORECASE,
)
CLOUDFLARE = re.compile(rb"\s*error code: 10\d\d", re.IGNORECASE)
KEY = re.compile(r"\b(sk-|bearer\s+)[^\s\"',;]+", re.IGNORECASE)
LONG_WORD = re.compile(r"[\w*-]{20,}")


def decode_object(body: bytes) -> dict[str, Any] | None:
    """Return the JSON object in the body; None for anything else, and for JSON that is too deep or costly to decode."""
    if is_costly(body):
        return None
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    may_be_deep = body.count(b"{") + body.count(b"[") > DEPTH_MAX
    return value if isinstance(value, dict) and not (may_be_deep and is_too_deep(value)) else None


def read_object(value: Any) -> dict[str, Any]:
    """The value if it is an object, also as JSON in a text; else an empty one."""
    value = open_text(value)
    return value if isinstance(value, dict) else {}


def read_list(value: Any) -> list[Any]:
    """The value if it is a list, also as JSON in a text; a lone object is a list of one."""
    value = open_text(value)
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) else []


def read_text(value: Any) -> str | None:
    """A string with something in it."""
    return value if isinstance(value, str) and value.strip() else None


def read_int(value: Any) -> int | None:
    """An integer the size of a code or a time, also one written as a string."""
    if isinstance(value, str) and DIGITS.fullmatch(value):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e12 else None


def read_amount(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else None


def read_task_id(value: Any) -> str | None:
    """A provider's task id, fit to stand in a URL; also one written as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and TASK_ID.fullmatch(value) and value.strip(".") else None


def is_no_task_id(value: Any) -> bool:
    """Whether something stands where a task id belongs that can't be one, so that nobody knows which task is meant."""
    return value is not None and value != "" and read_task_id(value) is None


def dropped_links(values: Iterable[Any]) -> tuple[str, ...]:
    """Return what stands where a link belongs and is none, bounded; empty values stand for no link."""
    wrong = [value for value in values if value not in (None, "") and read_link(value) is None]
    if len(wrong) <= DROPPED_MAX:
        return tuple(map(_describe_dropped, wrong))
    shown = wrong[: DROPPED_MAX - 1]
    return (*map(_describe_dropped, shown), f"and {len(wrong) - len(shown)} more")


def _describe_dropped(value: Any) -> str:
    """A text as it is, an object by the names of its fields."""
    if isinstance(value, dict):
        return tidy("an object with " + ", ".join(islice(value, 10)), DROPPED_CHARS)
    return tidy(value if isinstance(value, str) else type(value).__name__, DROPPED_CHARS)


def read_code(value: Any) -> str | None:
    """The provider's own error code, a number or a word, as text."""
    number = read_int(value)
    return str(number) if number is not None else tidy(read_text(value) or "", CODE_MAX) or None


def tidy(text: str, limit: int = TEXT_MAX) -> str:
    """Return one bounded line of printable text, with quoted keys masked."""
    printable = "".join(char if char.isprintable() else " " for char in text[: 4 * limit])
    return KEY.sub(r"\1***", " ".join(printable.split()))[:limit]


def task_error(code: ErrorCode, message: str | None, provider_code: str | None = None) -> TaskError:
    text = tidy(message or "") or "the provider gave no reason"
    if code == "authentication":
        text = LONG_WORD.sub("***", text)  # such replies like to quote the key
    return TaskError(code=code, message=text, provider_code=provider_code, retryable=code in RETRYABLE)


def no_output(reply: HttpReply, task_id: str | None = None, dropped: tuple[str, ...] = ()) -> NoOutput:
    """Success without an output; the links that were there and are not usable are named."""
    error = task_error("provider_error", "the provider reported success but gave no picture")
    return NoOutput(error=error, raw=raw_payload(reply), provider_task_id=task_id, dropped=dropped)


def is_moderation(*errors: Any) -> bool:
    """Return whether an error, text or code is about moderation; many providers have no code for it."""
    return any(MODERATION.search(error_words(error)) for error in errors if error)


def code_by_status(status: int) -> ErrorCode:
    if status in CODE_BY_STATUS:
        return CODE_BY_STATUS[status]
    return "invalid_request" if 400 <= status < 500 else "provider_error"


def raw_payload(reply: HttpReply) -> msgspec.Raw:
    """The payload byte for byte; only for one that `decode_object` could read."""
    return msgspec.Raw(reply.body)


def retry_after_s(reply: HttpReply) -> float | None:
    """Seconds or an HTTP date, bounded to a day; None when absent, past or unreadable."""
    value = reply.headers.get("retry-after", "").strip()
    seconds = float(value) if SECONDS.fullmatch(value) else _seconds_until(value, reply.received_at)
    return min(seconds, PAUSE_MAX_S) if seconds > 0 else None


def _seconds_until(http_date: str, now: datetime) -> float:
    try:
        at = parsedate_to_datetime(http_date)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0


def expires_at(reply: HttpReply, life_s: float | None) -> str | None:
    """When a link dies that was alive at most since this reply came."""
    return None if life_s is None else rfc3339(after(reply.received_at, life_s))


def content_type(url: str) -> str | None:
    """By the suffix of the URL's path."""
    path = url.partition("#")[0].partition("?")[0]
    return CONTENT_TYPES.get(path.rpartition(".")[2].lower())


def read_images(items: Any, key: str, expiry: str | None) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    """Return the pictures of a list of links or of objects with one under `key`, and what is not usable."""
    found = open_text(items)
    found = found if isinstance(found, list) else [found]
    values = [
        value
        for item in found
        for value in link_values(item[key] if isinstance(item, dict) and item.get(key) else item)
        if not _is_empty(value, key)
    ]
    links = list(dict.fromkeys(link for link in map(read_link, values) if link))
    images = tuple(Image(url=link, expires_at=expiry, content_type=content_type(link)) for link in links)
    return images, dropped_links(values)


def _is_empty(value: Any, key: str) -> bool:
    """Whether an object has the field for its link and nothing in it: a link that is not there yet."""
    return isinstance(value, dict) and key in value and value[key] in (None, "")


def judge_submit_status(reply: HttpReply, pause_s: float | None = None) -> Observation | None:
    """Judge a submit by its status alone; None if the body decides. `pause_s` is for a 429 that names no time."""
    if reply.status == 429:
        return Throttled(reason="HTTP 429", retry_after_s=retry_after_s(reply) or pause_s)
    if reply.status == 503:
        return NotSent(reason="HTTP 503", retry_after_s=retry_after_s(reply))
    if 300 <= reply.status < 400:
        target = reply.headers.get("location", "nowhere")
        message = (
            f"HTTP {reply.status}: redirected to {tidy(target, 200)}; redirects are not followed, check the base URL"
        )
        return Failed(error=task_error("provider_error", message))
    return None


def judge_foreign_submit(reply: HttpReply) -> Observation:
    """A submit's reply that is not the provider's own: a proxy's page, cut, empty or of another shape."""
    if reply.status == 403 and CLOUDFLARE.match(reply.body):
        return NotSent(
            reason=f"HTTP 403 from Cloudflare before the API was reached ({tidy(reply.body[:40].decode('latin-1'))})"
        )
    if 400 <= reply.status < 500 and reply.status != 408:
        return Failed(error=_refusal(reply))
    if reply.too_long:
        return Unconfirmed(reason=too_long(reply.too_long))
    return Unconfirmed(reason=f"HTTP {reply.status} with a body that is not the provider's own")


def _refusal(reply: HttpReply) -> TaskError:
    """The error of a 4xx whose body is in no documented shape; its words are kept all the same."""
    body = decode_object(reply.body)
    text, code = error_text(body), code_by_status(reply.status)
    if is_moderation(body) and reply.status in (400, 403, 422):
        code = "content_policy"
    return task_error(code, text or f"HTTP {reply.status} without a readable error", str(reply.status))


def too_long(limit: int) -> str:
    return f"answer over {limit >> 20} MiB"


def judge_poll_status(reply: HttpReply, pause_s: float | None = None) -> Observation | None:
    """Judge a poll by its status alone; None for a 2xx, whose body is about the task."""
    if reply.status == 429:
        return Throttled(reason="HTTP 429", retry_after_s=retry_after_s(reply) or pause_s)
    if reply.is_2xx:
        return None
    asked_s = retry_after_s(reply) if reply.status == 503 else None
    text = tidy(error_text(decode_object(reply.body)) or "", 200)
    return Unreadable(reason=f"HTTP {reply.status}: {text}" if text else f"HTTP {reply.status}", retry_after_s=asked_s)
