"""Errors for callers, as exceptions; the HTTP API answers each as problem+json.

Problem
├── Malformed        the bytes do not follow the protocol
├── Unauthorized     no key, or an unknown one
├── Forbidden        a key without the scope, or a callback without a valid token or signature
├── NotFound         no such object, or not visible to this caller
├── Conflict         not possible in the current state
├── TooLarge         more bytes than the limit
├── TooMany          rate limit; retry later
├── UnsupportedType  a content type other than JSON
├── InvalidRequest   readable, but fields are wrong; `errors` names each
└── Unavailable      not possible right now; retry later
"""

from typing import Any

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """A wrong field: its path in the request, what is wrong, and what is allowed."""

    loc: list[str | int]
    msg: str


class Problem(Exception):
    """Base class. `detail` is one sentence for the caller, without secrets."""

    def __init__(self, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra = extra


class Malformed(Problem):
    pass


class Unauthorized(Problem):
    pass


class Forbidden(Problem):
    pass


class NotFound(Problem):
    pass


class Conflict(Problem):
    pass


class TooLarge(Problem):
    pass


class TooMany(Problem):
    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class UnsupportedType(Problem):
    pass


class InvalidRequest(Problem):
    def __init__(self, errors: list[FieldError]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, e.loc))}: {e.msg}" for e in errors), errors=errors)
        self.errors = errors


class Unavailable(Problem):
    """Raised if a dependency fails. `cause` is for the log; callers do not see it."""

    def __init__(self, detail: str, *, retry_after_s: int = 5, cause: str = "") -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.cause = cause


def invalid(field: str, msg: str) -> InvalidRequest:
    """Return the error for one body field, named by its dotted path."""
    return InvalidRequest([FieldError(loc=["body", *field.split(".")], msg=msg)])
