"""Refusals of what is no request yet: a whole answer in bytes, since no route has seen anything."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from service.core.problems import Malformed, Problem, Unavailable
from service.web.errors import HeadTooLarge, TooSlow, render_problem
from service.web.middleware import SECURITY

SINGLE = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"idempotency-key", b"transfer-encoding"}
)
"""Two of one of these could be read in two ways by us and by a proxy in front."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """`outcome` is the metric's word for it."""

    outcome: str
    problem: Problem

    def render(self, request_id: str) -> bytes:
        """Render the refusal as the routes do; it ends the connection."""
        answer = render_problem(self.problem, request_id)
        headers = (*answer.headers, *SECURITY, (b"x-request-id", request_id.encode()), (b"connection", b"close"))
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        status = HTTPStatus(answer.status)
        return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, status.phrase.encode(), lines, answer.body)


MALFORMED = Refusal(outcome="malformed", problem=Malformed("This is no HTTP request."))
AMBIGUOUS = Refusal(
    outcome="ambiguous",
    problem=Malformed(
        "The headers can be read in more than one way: Host is needed, and it, Authorization, Content-Type and"
        " Idempotency-Key may each be given once."
    ),
)
SLOW = Refusal(outcome="slow", problem=TooSlow("The request took too long to arrive."))
CROWDED = Refusal(outcome="pipelined", problem=Malformed("Too many requests are pipelined on this connection."))
LARGE = Refusal(outcome="large", problem=HeadTooLarge("The headers are too many or too large."))
FULL = Refusal(outcome="full", problem=Unavailable("Too many connections.", retry_after_s=1))


def judge_head(
    method: bytes, target: bytes, version: str, headers: Sequence[tuple[bytes, bytes]], *, size_max: int, count_max: int
) -> Refusal | None:
    """Return why a head is refused that a proxy in front could read in another way, or that is too large."""
    if method == b"CONNECT":
        return MALFORMED
    size, seen = len(target), {b""}
    for name, value in headers:
        size += len(name) + len(value)
        if name in SINGLE:
            if name in seen or (name == b"transfer-encoding" and value.lower() != b"chunked"):
                return AMBIGUOUS
            seen.add(name)
    if size > size_max or len(headers) > count_max:
        return LARGE
    return _judge_version(version, seen)


def _judge_version(version: str, seen: set[bytes]) -> Refusal | None:
    match version:
        case "1.1":
            return None if b"host" in seen else AMBIGUOUS
        case "1.0":
            return AMBIGUOUS if b"transfer-encoding" in seen else None
    return MALFORMED
