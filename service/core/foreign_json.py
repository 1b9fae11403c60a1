"""Repairs of the malformed JSON that providers are known to send. Nothing here raises."""

import codecs
import json
import math
import re
from itertools import islice
from typing import Any

import msgspec

TOKENS_MAX = 50_000
"""Quotes, commas and brackets of a body that may be repaired: more would hold up the event loop for over 10 ms."""
CONTAINERS_MAX = 30_000
"""Lists or objects of a body that is decoded: more take over 10 ms."""
COMMAS_MAX = 30_000
"""Commas of a request's body that is decoded."""
REPLY_COMMAS_MAX = 150_000
"""Commas of a provider's reply that is decoded. The words of a long transcript have 75,000 in 1 MiB."""
SLOW_NUMBERS_MAX = 1_000
"""Numbers near the smallest of a float, each of which takes some 8 us to decode."""
DIGITS_MAX = 400
"""Digits of a number that is read by a repair; a longer one becomes null."""
IN_A_ROW_MAX = 1_000
"""Objects after one another that are read, as in JSON lines."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_AROUND = " \t\r\n\0\ufeff"
_BETWEEN = re.compile(r"[\s,\0\x1e]*+")
_OPENING = ("{", "[", '"')
_ODD_COMMA = re.compile(r",[ \t\r\n]*+[}\]]")
_STRING_OR_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|,(?=\s*+[}\]])', re.DOTALL)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SLOW_NUMBER = re.compile(rb"[eE]-[23]\d\d")


def is_costly(body: bytes, commas_max: int = REPLY_COMMAS_MAX) -> bool:
    """Return whether decoding the body would block the event loop for long; no provider sends such JSON."""
    if body.count(b",") > commas_max or body.count(b"[") > CONTAINERS_MAX or body.count(b"{") > CONTAINERS_MAX:
        return True
    if body.count(b"e-") + body.count(b"E-") <= SLOW_NUMBERS_MAX:
        return False
    return any(islice(_SLOW_NUMBER.finditer(body), SLOW_NUMBERS_MAX, None))


def repair_json(body: bytes) -> bytes:
    """Return the body as standard JSON in UTF-8 if a known repair makes it so; otherwise as it is.

    Repaired are: a byte order mark, UTF-16 and UTF-32, bytes that are not UTF-8, control characters in strings,
    trailing commas, NaN and numbers that no double holds (null), JSON inside a string, text after the value, and
    several objects in a row, of which the last counts. A body that is valid stays byte for byte.
    """
    plain = _without_bom(body)
    if is_costly(plain):
        return plain
    try:
        value = msgspec.json.decode(plain)
    except (ValueError, RecursionError):
        return _repaired(plain) if sum(map(plain.count, b'",[{:')) <= TOKENS_MAX else plain
    if isinstance(value, str) and value.lstrip().startswith("{"):
        inner = repair_json(value.encode())
        return inner if _is_object(inner) else plain
    return plain


def open_text(value: Any) -> Any:
    """Return the object or list that a text holds as JSON; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    body = value.encode("utf-8", "replace")
    if is_costly(body):
        return value
    try:
        inner = msgspec.json.decode(repair_json(body))
    except (ValueError, RecursionError):
        return value
    return inner if isinstance(inner, dict | list) else value


def _is_object(body: bytes) -> bool:
    try:
        return not is_costly(body) and isinstance(msgspec.json.decode(body), dict)
    except (ValueError, RecursionError):
        return False


def _without_bom(body: bytes) -> bytes:
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            if encoding == "utf-8":
                return body[len(mark) :]
            return body.decode(encoding, "replace").encode("utf-8", "replace")
    if b"\0" in body[:2]:  # UTF-16 or UTF-32 without a mark: JSON begins with an ASCII character
        return body.decode(json.detect_encoding(body), "replace").encode("utf-8", "replace")
    return body.rstrip(b"\0") if body.endswith(b"\0") else body


def _repaired(body: bytes) -> bytes:
    text = body.decode("utf-8", "replace").strip(_AROUND)
    if not text.startswith(("{", "[")):
        return body
    value = _last_value(text)
    if value is None and len(_ODD_COMMA.findall(text)) and text.count("\\") <= TOKENS_MAX:
        value = _last_value(_STRING_OR_COMMA.sub(lambda found: found[1] or "", text))
    if value is None:
        return body
    try:
        return _SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False, separators=(",", ":"))).encode()
    except (ValueError, RecursionError):
        return body


def _last_value(text: str) -> Any:
    """Return the last of the objects and lists in a row, or None. What follows them must not begin another one."""
    value, at = None, 0
    for _ in range(IN_A_ROW_MAX):
        try:
            found, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None if text[at : at + 1] in _OPENING else value
        if not isinstance(found, dict | list):
            return value
        value, at = found, _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
        if at == len(text):
            return value
    return None


def _null(_: str) -> None:
    return None


def _finite_or_null(text: str) -> float | None:
    number = float(text) if len(text) <= DIGITS_MAX else math.inf
    return None if math.isinf(number) else number


def _integer_or_null(digits: str) -> int | None:
    """Python refuses to convert long integers, and takes quadratic time below that limit."""
    return int(digits) if len(digits) <= DIGITS_MAX else None


_DECODER = json.JSONDecoder(strict=False, parse_constant=_null, parse_float=_finite_or_null, parse_int=_integer_or_null)
