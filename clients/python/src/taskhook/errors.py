"""Everything this library raises.

TaskhookError
├── APIError                   a call to the service did not succeed
│   ├── APIConnectionError     no answer: refused, cut, or not a Taskhook
│   │   └── APITimeoutError    no answer in time
│   └── APIStatusError         the service refused
│       ├── BadRequestError          400
│       ├── AuthenticationError      401
│       ├── PermissionDeniedError    403
│       ├── NotFoundError            404
│       ├── ConflictError            409
│       ├── UnprocessableError       422, `errors` names each field
│       ├── RateLimitError           429
│       └── InternalServerError      5xx
│           └── ServiceUnavailableError  503
├── TaskFailedError            a task ended otherwise than succeeded
├── WaitTimeoutError           a task is not final yet
└── WebhookVerificationError   a delivery that must not be believed
    ├── MissingHeaderError
    ├── TimestampError         too old, or from the future: perhaps a replay
    ├── SignatureError         another secret, or an altered body
    └── PayloadError           signed, but no event
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskhook.models import Task


class TaskhookError(Exception):
    """The root."""


class APIError(TaskhookError):
    """A call that did not succeed."""


class APIConnectionError(APIError):
    """No answer, or none that Taskhook would give."""


class APITimeoutError(APIConnectionError):
    """No answer in time."""


@dataclass(frozen=True)
class FieldError:
    """A wrong field: its path in the request, and what is wrong."""

    loc: tuple[str | int, ...]
    msg: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc))}: {self.msg}"


class APIStatusError(APIError):
    """A refusal. `request_id` finds it in the service's log, `retry_after_s` is when the service asks to come again."""

    def __init__(
        self,
        status_code: int,
        title: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status_code, title, detail, errors, request_id, retry_after_s)
        self.status_code = status_code
        self.title = title
        self.detail = detail
        self.errors = tuple(errors)
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        told = f"{self.status_code} {self.title}" + (f": {self.detail}" if self.detail else "")
        return f"{told} (request {self.request_id})" if self.request_id else told


class BadRequestError(APIStatusError):
    """400: the request can't be read."""


class AuthenticationError(APIStatusError):
    """401: no API key, or none that the service knows."""


class PermissionDeniedError(APIStatusError):
    """403: the key lacks the scope."""


class NotFoundError(APIStatusError):
    """404: there is no such thing."""


class ConflictError(APIStatusError):
    """409: at odds with the state the thing is in, or an idempotency key used for another request."""


class UnprocessableError(APIStatusError):
    """422: `errors` names each wrong field."""


class RateLimitError(APIStatusError):
    """429: too many attempts."""


class InternalServerError(APIStatusError):
    """5xx: the service's own fault."""


class ServiceUnavailableError(InternalServerError):
    """503: can't be done right now."""


class TaskFailedError(TaskhookError):
    """The task ended as failed or canceled; `task` has all of it."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        if self.task.error is None:
            return f"{self.task.id} was {self.task.status}"
        return f"{self.task.id} failed with {self.task.error.code}: {self.task.error.message}"


class WaitTimeoutError(TaskhookError, TimeoutError):
    """The task goes on, only the wait is over; `task` is its last known state, None if there was no answer at all."""

    def __init__(self, task_id: str, timeout: float, task: Task | None) -> None:
        super().__init__(task_id, timeout, task)
        self.task_id = task_id
        self.timeout = timeout
        self.task = task

    def __str__(self) -> str:
        return f"{self.task_id} is not final after {self.timeout:g} s ({self.task.status if self.task else 'unknown'})"


class WebhookVerificationError(TaskhookError):
    """A delivery that must not be believed: answer it with 400."""


class MissingHeaderError(WebhookVerificationError):
    """webhook-id, webhook-timestamp or webhook-signature is not there, or is no such thing."""


class TimestampError(WebhookVerificationError):
    """Signed too long ago, or in the future."""


class SignatureError(WebhookVerificationError):
    """No signature is by this secret over this body."""


class PayloadError(WebhookVerificationError):
    """Signed, but no event: another service may share the secret."""


STATUS_ERRORS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableError,
    429: RateLimitError,
    503: ServiceUnavailableError,
}


def error_class(status_code: int) -> type[APIStatusError]:
    otherwise = InternalServerError if status_code >= 500 else APIStatusError
    return STATUS_ERRORS.get(status_code, otherwise)
