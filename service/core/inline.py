"""Base64 content inside a provider's payload: left out of `raw`, since it would be in every answer and event."""

import re

import msgspec

INLINE_MAX = 4 * 1024
"""Bytes of base64 text that stay in a payload."""
_BASE64 = re.compile(
    rb'"(?:data:[\w.+/;=\\-]{0,100};base64,)?([A-Za-z0-9+/_\\-]{%d,}={0,2})(?:\\[nr])*"' % (INLINE_MAX + 1)
)
_ESCAPE = re.compile(rb"\\[nr/]")
_OTHER_ESCAPE = re.compile(rb"\\(?![nr/])")


def omit_inline(raw: msgspec.Raw) -> msgspec.Raw:
    """Return the payload with `{"omitted_bytes": N}` in place of each base64 text over 4 KiB."""
    payload = bytes(raw)
    if len(payload) <= INLINE_MAX:
        return raw
    return msgspec.Raw(_BASE64.sub(_omit, payload))


def _omit(found: re.Match[bytes]) -> bytes:
    if _OTHER_ESCAPE.search(found[1]):  # text, such as `\\u4e2d`
        return found[0]
    digits = len(_ESCAPE.sub(lambda escape: b"/" if escape[0] == rb"\/" else b"", found[1]).rstrip(b"="))
    return b'{"omitted_bytes":%d}' % (digits * 3 // 4)
