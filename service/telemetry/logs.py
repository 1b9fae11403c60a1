"""Structured logging: JSON or for a terminal; with request ids, escaped, and repeated at a bounded rate."""

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import msgspec
import structlog

from service.telemetry.tracing import current_span

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request being answered; added to every log line of that request."""

Event = MutableMapping[str, Any]
SAME = ("event", "lane", "route", "reason", "cause", "fault_id", "endpoint_id")
SAME_MAX = 5
SAME_S = 10.0
KINDS_MAX = 1_000
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def set_up_logging(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Configure structlog and `logging`. `auto` is `console` on a terminal and `json` elsewhere."""
    out = stream or sys.stderr
    quiet = cast(TextIO, _Quiet(out))
    console = is_for_people(log_format, out)
    shared: list[Any] = [
        Throttle(),
        _add_ids,
        structlog.processors.add_log_level,
        _add_time,
        structlog.processors.format_exc_info,  # not the console's own way, which shows the values of variables
    ]
    renderer: Any = _Console(colors=out.isatty()) if console else _to_json
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(quiet),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(quiet)
    formatter = structlog.stdlib.ProcessorFormatter(processors=[_drop_own_keys, renderer], foreign_pre_chain=shared)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def is_for_people(log_format: str, stream: TextIO | None = None) -> bool:
    """Whether lines go to a terminal instead of a program."""
    return log_format == "console" or (log_format == "auto" and (stream or sys.stderr).isatty())


class _Quiet:
    """A stream that drops lines it cannot write: a full disk must not fail the work that is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return 0

    def flush(self) -> None:
        try:  # contextlib.suppress would cost as much as writing the line
            self._stream.flush()
        except (OSError, ValueError):
            return


class Throttle:
    """Log a repeated warning or error at most five times in ten seconds; the next one says how many were `hidden`."""

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[Any, ...], list[float]] = OrderedDict()

    def __call__(self, _logger: Any, level: str, event: Event) -> Event:
        if level not in ("warning", "error"):
            return event
        key = (level, *(event.get(name) for name in SAME), type(event.get("exc_info")))
        now = time.monotonic()
        until, logged, hidden = self._seen.get(key, (0.0, 0, 0))
        if now >= until:
            until, logged, event = now + SAME_S, 0, {**event, "hidden": hidden} if hidden else event
            hidden = 0
        drops = logged >= SAME_MAX
        self._seen[key] = [until, logged + (not drops), hidden + drops]
        self._seen.move_to_end(key)
        if len(self._seen) > KINDS_MAX:
            self._seen.popitem(last=False)
        if drops:
            raise structlog.DropEvent
        return event


class _Console(structlog.dev.ConsoleRenderer):
    def __call__(self, logger: Any, name: str, event: Event) -> str:
        return super().__call__(logger, name, _escape(event))


def _to_json(_logger: Any, _name: str, event: Event) -> str:
    """Escape the values one by one only if the encoded line shows that one of them needs it."""
    try:
        line = _encode(event)
        is_plain = line.isascii() and b"\\" not in line and b"\x7f" not in line  # other controls get a backslash
    except UnicodeEncodeError:  # half of a surrogate pair
        is_plain = False
    return (line if is_plain else _encode(_escape(event))).decode()


def _add_ids(_logger: Any, _name: str, event: Event) -> Event:
    if (found := request_id.get()) is not None:
        event.setdefault("request_id", found)
    if (ids := current_span().find_ids()) is not None:
        event["trace_id"], event["span_id"] = ids
    return event


def _add_time(_logger: Any, _name: str, event: Event) -> Event:
    event["timestamp"] = msgspec.to_builtins(datetime.now(UTC))  # noqa: TID251 (no decision depends on it)
    return event


def _escape(event: Event) -> Event:
    """Escape control characters, so that foreign text cannot end a line, control a terminal or imitate our lines."""
    exception = event.pop("exception", None)
    for name, value in event.items():
        event[name] = _clean(value)
    if exception is not None:
        event["exception"] = "\n".join(f"  {_printable(line)}" for line in str(exception).split("\n"))
    return event


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _printable(value)
        case dict():
            return {_clean(key): _clean(inner) for key, inner in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(inner) for inner in value]
    return value


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _drop_own_keys(_logger: Any, _name: str, event: Event) -> Event:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


class request_context:
    def __init__(self, value: str) -> None:
        self._value = value

    def __enter__(self) -> None:
        self._token = request_id.set(self._value)

    def __exit__(self, *_: object) -> None:
        request_id.reset(self._token)
