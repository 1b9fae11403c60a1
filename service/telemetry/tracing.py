"""Tracing as the rest of the service sees it: off unless it is asked for, and then nothing of it is even imported."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Self

from service.core.delivery import Delivery
from service.core.task import Task
from service.core.trace import TraceContext

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""Any other is `_OTHER` in spans and metrics, by the semantic conventions."""


class Span:
    """Something being done, within `with`. This one is part of no trace, and nothing done to it has any effect."""

    __slots__ = ()

    def find_context(self) -> TraceContext | None:
        """What later spans have as parent."""
        return None

    def find_ids(self) -> tuple[str, str] | None:
        """Of the trace and of the span, for a line of the log."""
        return None

    def find_exemplar(self) -> dict[str, str] | None:
        """For a histogram; None where the trace is not sampled, and so can't be looked at."""
        return None

    def headers(self) -> dict[str, str]:
        """With which whoever is called joins the trace."""
        return {}

    def join(self, task: Task) -> None:
        """A request that turns out to be a step of this task's trace."""

    def tell_task(self, task: Task) -> None:
        """What is done is about this task."""

    def tell_answered(self, route: str, status: int) -> None:
        """The request was answered; 499 when there was nobody left to answer."""

    def tell_sent(self, method: str, url: str) -> None:
        """A call goes out to there."""

    def tell_heard(self, outcome: str, status: int | None, error_type: str | None) -> None:
        """The call is over; this is when the span ends, even if what was heard is written down within it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Errors pass."""


NO_SPAN = Span()
_current: ContextVar[Span] = ContextVar("span", default=NO_SPAN)
current_span = _current.get
enter_span, leave_span = _current.set, _current.reset


class Tracing:
    """Makes spans. This one is off."""

    __slots__ = ()
    is_on: ClassVar[bool] = False

    def request(self, scope: Mapping[str, Any]) -> Span:
        """A request that came in, as ASGI describes it."""
        return NO_SPAN

    def call(self, kind: str, task: Task) -> Span:
        """A submit or a poll of the task."""
        return NO_SPAN

    def delivery(self, delivery: Delivery, context: TraceContext | None) -> Span:
        """An attempt to deliver; `context` is that of the event's task."""
        return NO_SPAN

    def life(self, task: Task) -> Span:
        """The whole life of a task that has ended."""
        return NO_SPAN

    async def close(self) -> None:
        """Sends what is left, for a few seconds at most."""


OFF = Tracing()
