"""Plans of calls: they yield requests and receive responses, so both clients share them."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import httpx

from taskhook._decode import DecodeError
from taskhook.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    FieldError,
    TaskhookError,
    error_class,
)

T = TypeVar("T")
logger = logging.getLogger("taskhook")

PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 8.0
RETRY_AFTER_MAX_S = 60.0
"""A service that asks for more than this is not waited for: the error says when to come again."""
REFUSED_BEFORE_WORK = frozenset({429, 503})
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to the API. `repeatable`: it does no harm if it arrives twice."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    repeatable: bool = False
    read_timeout_s: float | None = None
    """Instead of the client's own, where the service holds its answer."""
    pause_s: float = 0.0
    """To let pass before it is sent, less up to a quarter by chance."""
    retries: bool = True


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt of a request, after a pause."""

    request: Request
    pause_s: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Retry policy: how often, and the jitter that keeps clients from retrying at the same time."""

    max_retries: int = 2
    jitter: Callable[[], float] = random.random

    def pause_s(self, retry: int) -> float:
        """Doubled each time, and up to a quarter shorter by chance."""
        return float(min(PAUSE_FIRST_S * 2.0**retry, PAUSE_MAX_S)) * (1 - self.jitter() / 4)


Plan = Generator[Request, httpx.Response, T]
Steps = Generator[Attempt, httpx.Response, T]


@dataclass(frozen=True, kw_only=True)
class Listing(Generic[T]):
    """Where a list is found, and how its items are read."""

    path: str
    read: Callable[[object], T]
    params: Mapping[str, str] = field(default_factory=dict)

    def page(self, cursor: str | None) -> Plan[tuple[list[T], str | None]]:
        """Return a page, and the cursor of the next one."""
        params = {**self.params, "cursor": cursor} if cursor else self.params
        response = yield Request(method="GET", path=self.path, params=params, repeatable=True)
        body = read_object(response)
        items = body.get("data")
        if not isinstance(items, list):
            raise not_ours(response)
        following = body.get("next_cursor")
        return [self.read(item) for item in items], following if isinstance(following, str) else None


def steps(plan: Plan[T], policy: Policy) -> Steps[T]:
    """The plan with all its retries."""
    try:
        request = next(plan)
        while True:
            try:
                response = yield from _send(request, policy)
            except TaskhookError as error:
                request = plan.throw(error)
            else:
                request = plan.send(response)
    except StopIteration as end:
        result: T = end.value
        return result
    except DecodeError as error:
        raise APIConnectionError(f"something answers, but not as this client expects: {error}") from error
    finally:
        plan.close()


def _send(request: Request, policy: Policy) -> Steps[httpx.Response]:
    """A good response, or the error of the last attempt."""
    pause_s = request.pause_s * (1 - policy.jitter() / 4)
    left = policy.max_retries if request.retries else 0
    perhaps_done = False
    for retry in range(left + 1):
        try:
            response = yield Attempt(request=request, pause_s=pause_s)
        except httpx.TransportError as caught:
            error: APIConnectionError | APIStatusError = connection_error(caught)
            not_done = isinstance(caught, NEVER_SENT)
        else:
            if response.is_success or (perhaps_done and _was_deleted(request, response)):
                return response
            error = status_error(response)
            not_done = error.status_code in REFUSED_BEFORE_WORK
        perhaps_done = perhaps_done or not not_done
        pause_s = max(policy.pause_s(retry), asked_pause_s(error))
        if retry == left or not (not_done or request.repeatable) or not _passes(error):
            raise error
        logger.debug("trying %s %s again in %.1f s: %s", request.method, request.path, pause_s, error)
    raise AssertionError("the last attempt returns or raises")


def _was_deleted(request: Request, response: httpx.Response) -> bool:
    """By an earlier try whose answer was lost."""
    return request.method == "DELETE" and response.status_code == 404


def _passes(error: APIConnectionError | APIStatusError) -> bool:
    """Whether the same request may succeed soon."""
    return not is_final(error) and asked_pause_s(error) <= RETRY_AFTER_MAX_S


def is_final(error: APIError) -> bool:
    """Whether the same request would be refused again."""
    if isinstance(error, APIStatusError):
        return error.status_code < 500 and error.status_code not in (408, 429)
    return not isinstance(error, APIConnectionError)


def asked_pause_s(error: APIError) -> float:
    return (error.retry_after_s or 0.0) if isinstance(error, APIStatusError) else 0.0


def connection_error(error: httpx.TransportError) -> APIConnectionError:
    if isinstance(error, httpx.TimeoutException):
        return APITimeoutError(f"no answer in time ({type(error).__name__})")
    return APIConnectionError(str(error) or type(error).__name__)


def status_error(response: httpx.Response) -> APIStatusError:
    """The refusal in any answer, whoever gave it: Taskhook, or a proxy before it. Its body must have been read."""
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        found = None
    problem: dict[str, Any] = found if isinstance(found, dict) else {}
    title = str(problem.get("title") or response.reason_phrase or "Error")
    detail = str(problem.get("detail") or "")
    if response.is_redirect:
        detail = f"redirected to {response.headers.get('location')}; is the base URL right?"
    return error_class(response.status_code)(
        status_code=response.status_code,
        title=title,
        detail=detail,
        errors=_field_errors(problem.get("errors")),
        request_id=response.headers.get("x-request-id"),
        retry_after_s=_retry_after_s(response.headers.get("retry-after", "")),
    )


def _field_errors(found: object) -> list[FieldError]:
    entries = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
    return [FieldError(loc=tuple(entry.get("loc") or ()), msg=str(entry.get("msg", ""))) for entry in entries]


def _retry_after_s(text: str) -> float | None:
    """Seconds, or an HTTP date."""
    if text.isdecimal():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def path_of(*parts: str) -> str:
    """An empty id would ask for another thing: the list."""
    if not all(parts):
        raise ValueError("an id is empty")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def read_object(response: httpx.Response) -> dict[str, Any]:
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise not_ours(response)
    return found


def not_ours(response: httpx.Response) -> APIConnectionError:
    return APIConnectionError(f"something answers ({response.status_code}), but not as Taskhook does")
