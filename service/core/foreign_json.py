"""Repairs of the malformed JSON that providers are known to send. Nothing here raises."""

import codecs
import json
import re

import msgspec

TOKENS_MAX = 50_000
"""Quotes, commas and brackets of a body that may be repaired: more would hold up the event loop for over 10 ms."""
VALUES_MAX = 30_000
"""Commas of a body that is decoded: a list or object for each takes about 10 ms in all."""
SLOW_NUMBERS_MAX = 1_000
"""Numbers near the smallest of a float, each of which takes some 8 us to decode."""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SLOW_NUMBER = re.compile(rb"[eE]-[23]\d\d")


def is_costly(body: bytes) -> bool:
    """Return whether decoding the body would block the event loop for long; no provider sends such JSON."""
    if body.count(b",") > VALUES_MAX or body.count(b"[") > VALUES_MAX or body.count(b"{") > VALUES_MAX:
        return True
    exponents = body.count(b"e-") + body.count(b"E-")
    return exponents > SLOW_NUMBERS_MAX and len(_SLOW_NUMBER.findall(body)) > SLOW_NUMBERS_MAX


def repair_json(body: bytes) -> bytes:
    """Return the body as standard JSON if it is JSON apart from a byte order mark, NaN, Infinity or trailing NULs.

    NaN and infinite numbers become null. A body that is valid, or that no repair helps, is returned as it is.
    """
    plain = _without_bom(body)
    if is_costly(plain):
        return plain
    try:
        msgspec.json.decode(plain)
    except (ValueError, RecursionError) as error:
        if _may_have_odd_numbers(plain, error) and sum(map(plain.count, b'",[{:')) <= TOKENS_MAX:
            return _without_odd_numbers(plain)
    return plain


def _without_bom(body: bytes) -> bytes:
    for mark, encoding in _BOMS:
        if body.startswith(mark):
            if encoding == "utf-8":
                return body[len(mark) :]
            return body.decode(encoding, "replace").encode("utf-8", "replace")
    return body.rstrip(b"\0") if body.endswith(b"\0") else body


def _may_have_odd_numbers(body: bytes, error: Exception) -> bool:
    """Return whether NaN or a number without end is why the body could not be decoded."""
    return b"NaN" in body or b"Infinity" in body or "out of range" in str(error)


def _without_odd_numbers(body: bytes) -> bytes:
    try:
        value = json.loads(body, parse_constant=_null, parse_float=_finite_or_null)
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        return body


def _null(_: str) -> None:
    return None


def _finite_or_null(text: str) -> float | None:
    number = float(text)
    return number if abs(number) != float("inf") else None
