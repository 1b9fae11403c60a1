"""`name=value` pairs of queries and forms, decoded by C code: a byte from outside costs no step of Python."""

import re
from binascii import a2b_qp

WRONG_MAX = 1_000
"""Percent signs that begin no escape; they stand for themselves, as in the address `?q=100%`."""
_WRONG = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def read_pairs(text: bytes, fields_max: int) -> list[tuple[str, str]]:
    """In their order. Raises ValueError for too many, and for what is not UTF-8."""
    if text.count(b"&") >= fields_max:
        raise ValueError(f"more than {fields_max} fields")
    parts = (part.partition(b"=") for part in text.replace(b"+", b" ").split(b"&") if part)
    return [(unquote(name).decode(), unquote(value).decode()) for name, _, value in parts]


def unquote(text: bytes) -> bytes:
    """Decode percent escapes; they are those of quoted-printable with another sign. Raises ValueError."""
    if b"%" not in text:
        return text
    quoted = text.replace(b"=", b"=3D").replace(b"%", b"=")
    plain = a2b_qp(quoted)
    has_soft_break = b"=\r" in quoted or b"=\n" in quoted
    if not has_soft_break and len(quoted) - len(plain) == 2 * quoted.count(b"="):
        return plain
    escaped, wrong = _WRONG.subn(b"%25", text, count=WRONG_MAX)
    if wrong == WRONG_MAX:
        raise ValueError("too many percent signs that begin no escape")
    return unquote(escaped)
