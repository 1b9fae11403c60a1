"""What can be wrong with what a caller asks, as exceptions; the web tells each as problem+json.

Problem
├── Malformed        the bytes are not what the protocol asks for
├── Unauthorized     no key, or none that we know
├── Forbidden        a key without the right, or a callback that can't be trusted
├── NotFound         no such thing, or not for this caller
├── Conflict         at odds with the state the thing is in
├── TooLarge         more bytes than the limit
├── TooMany          of what this caller did; it should come again later
├── UnsupportedType  a content type other than JSON
├── InvalidRequest   readable, but fields are wrong; `errors` names each
└── Unavailable      can't be kept or done right now; the caller should come again
"""

from typing import Any

import msgspec


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One wrong field: where it stands in the request, and what is wrong with it and allowed instead."""

    loc: list[str | int]
    msg: str


class Problem(Exception):
    """The root. `detail` is one sentence for the caller; it never holds a secret."""

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
    """`cause` is the machine's own word for the log; callers are not told."""

    def __init__(self, detail: str, *, retry_after_s: int = 5, cause: str = "") -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s
        self.cause = cause


def invalid(field: str, msg: str) -> InvalidRequest:
    """One wrong field of the body, named by its dotted path."""
    return InvalidRequest([FieldError(loc=["body", *field.split(".")], msg=msg)])
