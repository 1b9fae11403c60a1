"""Waiting for a task: long polls until it is final, through restarts of the service, within the time that was given."""

from __future__ import annotations

from collections.abc import Callable

from taskhook._decode import decode
from taskhook._plan import Plan, Request, asked_pause_s, is_final, path_of, read_object
from taskhook.errors import APIError, WaitTimeoutError
from taskhook.models import Task

POLL_S = 60.0
"""The longest wait that the service takes in one request."""
ANSWER_S = 10.0
"""How much later than asked an answer may come."""
OUTAGE_MAX_S = 60.0
"""How long a wait outlives a service that is away, such as for a restart."""
AGAIN_S, AGAIN_MAX_S = 0.2, 2.0


def until_final(task_id: str, timeout: float | None, clock: Callable[[], float]) -> Plan[Task]:
    """Long polls until the end. `clock` gives seconds that only grow."""
    task: Task | None = None
    patience = _Patience(timeout, clock)
    while True:
        try:
            task = yield from _poll(task_id, patience.ask(), patience.pause_s)
        except APIError as error:
            if is_final(error) or patience.lost(error):
                raise
        else:
            if task.is_final:
                return task
            patience.answered()
        if timeout is not None and patience.left_s <= 0:
            raise WaitTimeoutError(task_id, timeout, task)


def _poll(task_id: str, wait_s: float, pause_s: float) -> Plan[Task]:
    response = yield Request(
        method="GET",
        path=path_of("tasks", task_id),
        params={"wait": f"{wait_s:.3f}"},
        read_timeout_s=wait_s + ANSWER_S,
        pause_s=pause_s,
        retries=False,
    )
    return decode(Task, read_object(response))


class _Patience:
    """How long the next poll may take, and what to let pass before it."""

    def __init__(self, timeout: float | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until = float("inf") if timeout is None else clock() + timeout
        self._asked_at = clock()
        self._away_since: float | None = None
        self.pause_s = 0.0

    @property
    def left_s(self) -> float:
        return self._until - self._clock()

    def ask(self) -> float:
        """Seconds to wait in this poll, after its pause."""
        self._asked_at = self._clock()
        self.pause_s = max(0.0, min(self.pause_s, self.left_s))
        return max(0.0, min(self.left_s - self.pause_s, POLL_S))

    def answered(self) -> None:
        """A service that stops answers early, and is not to be asked again at once."""
        self._away_since = None
        self.pause_s = AGAIN_S if self._clock() - self._asked_at < AGAIN_S else 0.0

    def lost(self, error: APIError) -> bool:
        """Whether it has been away for too long."""
        if self._away_since is None:
            self._away_since = self._asked_at
        self.pause_s = max(min(max(self.pause_s * 2, AGAIN_S), AGAIN_MAX_S), asked_pause_s(error))
        return self._clock() - self._away_since > OUTAGE_MAX_S
