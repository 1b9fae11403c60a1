"""W3C Trace Context of a task, stored with it so that work done hours later joins the same trace."""

import re
from collections.abc import Sequence

import msgspec

STATE_MAX = 512
"""Characters of a tracestate, as the standard advises; a longer one is dropped, since it is stored with the task."""
MEMBERS_MAX = 32
_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<span>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?",
    re.ASCII,
)
_MEMBER = re.compile(
    r"(?P<key>[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)


class TraceContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The two headers of a span that can be a parent, in standard form."""

    traceparent: str
    tracestate: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]

    @property
    def flags(self) -> int:
        return int(self.traceparent[53:], 16)


def read_trace_context(parents: Sequence[str], states: Sequence[str]) -> TraceContext | None:
    """Parse all values of both request headers; None without a valid traceparent.

    From a later version of the standard, the known part is read. An invalid tracestate is dropped whole.
    """
    found = _PARENT.fullmatch(parents[0].strip(" \t")) if len(parents) == 1 else None
    if found is None or (found["version"] == "00" and found["rest"] is not None):
        return None
    flags = int(found["flags"], 16) & (0x03 if found["version"] == "00" else 0x01)
    parent = f"00-{found['trace']}-{found['span']}-{flags:02x}"
    return TraceContext(traceparent=parent, tracestate=_read_state(states))


def _read_state(states: Sequence[str]) -> str:
    members = [member for text in states for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {match["key"] for member in members if (match := _MEMBER.fullmatch(member))}
    whole = ",".join(members)
    return whole if len(keys) == len(members) <= MEMBERS_MAX and len(whole) <= STATE_MAX else ""
