"""The tracing interface. These classes do nothing; OpenTelemetry is imported only when tracing is on."""

from collections.abc import Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Self

from service.core.delivery import Delivery
from service.core.task import Task
from service.core.trace import TraceContext

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
"""Other methods are `_OTHER` in spans and metrics, by the semantic conventions."""


class Span:
    """An operation, as a context manager. This base class records nothing."""

    __slots__ = ()

    def find_context(self) -> TraceContext | None:
        """Return the parent context for later spans."""
        return None

    def find_ids(self) -> tuple[str, str] | None:
        """Return trace id and span id for log lines."""
        return None

    def find_exemplar(self) -> dict[str, str] | None:
        """Return an exemplar for a histogram; None if the trace is not sampled."""
        return None

    def headers(self) -> dict[str, str]:
        """Return the headers that let the called service join the trace."""
        return {}

    def join(self, task: Task) -> None:
        """Make the request part of this task's trace."""

    def record_task(self, task: Task) -> None:
        """Record which task the operation concerns."""

    def record_answer(self, route: str, status: int) -> None:
        """Record the answer to a request; 499 if the client had gone."""

    def record_call(self, method: str, url: str) -> None:
        """Record an outgoing call."""

    def record_result(self, outcome: str, status: int | None, error_type: str | None) -> None:
        """Record the result of a call. The span ends now, although the result is stored within it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let errors pass."""


NO_SPAN = Span()
_current: ContextVar[Span] = ContextVar("span", default=NO_SPAN)
current_span = _current.get
enter_span, leave_span = _current.set, _current.reset


class Tracing:
    """Makes spans. This base class is off."""

    __slots__ = ()
    is_on: ClassVar[bool] = False

    def request(self, scope: Mapping[str, Any]) -> Span:
        """Return the span of an inbound request, given its ASGI scope."""
        return NO_SPAN

    def call(self, kind: str, task: Task) -> Span:
        """Return the span of a provider call: `kind` is submit or poll."""
        return NO_SPAN

    def delivery(self, delivery: Delivery, context: TraceContext | None) -> Span:
        """Return the span of a delivery attempt; `context` is that of the event's task."""
        return NO_SPAN

    def life(self, task: Task) -> Span:
        """Return the span of a final task, from its creation to its end."""
        return NO_SPAN

    async def close(self) -> None:
        """Flush the remaining spans, for a few seconds at most."""


OFF = Tracing()
