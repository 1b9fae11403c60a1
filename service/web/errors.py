"""Problems as problem+json (RFC 9457): one table of statuses, one place where a refusal gets its form."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.core.problems import (
    Conflict,
    FieldError,
    Forbidden,
    InvalidRequest,
    Malformed,
    NotFound,
    Problem,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    UnsupportedType,
)
from service.web.calls import Answer, Headers

MEDIA_TYPE = b"application/problem+json"


class ClientGone(Exception):
    """The client hung up before its request was read: there is nobody to answer."""


class MethodNotAllowed(Problem):
    """`allowed` are the methods that this address has."""

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This address takes {allowed}.")
        self.allowed = allowed


class Failure(Problem):
    """An internal error; the caller gets only the request id, the log has the rest."""


class UnsupportedCoding(UnsupportedType):
    """A Content-Encoding that is not decoded here."""


class TooSlow(Problem):
    """The request did not arrive in its time."""


class HeadTooLarge(Problem):
    """Headers or target, before anything of the request was looked at."""


STATUSES: dict[type[Problem], tuple[int, str]] = {
    Malformed: (400, "Malformed request"),
    Unauthorized: (401, "Unauthorized"),
    Forbidden: (403, "Forbidden"),
    NotFound: (404, "Not found"),
    MethodNotAllowed: (405, "Method not allowed"),
    TooSlow: (408, "Request timeout"),
    Conflict: (409, "Conflict"),
    TooLarge: (413, "Too large"),
    UnsupportedType: (415, "Unsupported content type"),
    InvalidRequest: (422, "Invalid request"),
    TooMany: (429, "Too many attempts"),
    HeadTooLarge: (431, "Headers too large"),
    Failure: (500, "Internal error"),
    Unavailable: (503, "Unavailable"),
}
TITLES = dict(STATUSES.values())


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457). `errors` names each wrong field of a 422, `request_id` is in our log too."""

    type: Annotated[str, Meta(examples=["urn:taskhook:problem:invalid-request"])]
    title: Annotated[str, Meta(examples=["Invalid request"])]
    status: Annotated[int, Meta(examples=[422])]
    detail: Annotated[str, Meta(examples=["body.input.n: must be 1 for this model"])]
    errors: list[FieldError] | UnsetType = UNSET
    request_id: str


def render_problem(problem: Problem, request_id: str) -> Answer:
    status, title = next(STATUSES[kind] for kind in type(problem).__mro__ if kind in STATUSES)
    body = ProblemBody(
        type=f"urn:taskhook:problem:{title.lower().replace(' ', '-')}",
        title=title,
        status=status,
        detail=problem.detail,
        errors=problem.errors if isinstance(problem, InvalidRequest) else UNSET,
        request_id=request_id,
    )
    return Answer(status, msgspec.json.encode(body), MEDIA_TYPE, _headers(problem))


def _headers(problem: Problem) -> Headers:
    match problem:
        case Unauthorized():
            return ((b"www-authenticate", b"Bearer"),)
        case MethodNotAllowed():
            return ((b"allow", problem.allowed.encode()),)
        case UnsupportedCoding():
            return ((b"accept-encoding", b"gzip"),)  # RFC 9110 12.5.3
        case Unavailable() | TooMany():
            return ((b"retry-after", b"%d" % problem.retry_after_s),)
    return ()
