"""Errors of tasks without an answer in time: what is known, and whether the task may have been charged."""

from typing import Literal

from service.core.task import ErrorCode, Task, TaskError

Hindrance = Literal["limit", "rest", "circuit", "key"]
"""Why an account does not send: its limits, a pause that the provider asked for, an open circuit, a refused key."""
_UNSENT: dict[Hindrance, tuple[ErrorCode, str]] = {
    "limit": ("timeout", "the account was at its limit"),
    "rest": ("rate_limited", "the provider had asked for a pause"),
    "circuit": ("provider_unavailable", "the provider did not answer"),
    "key": ("authentication", "the provider refused the account's key"),
}


def deadline_error(task: Task, hindrance: Hindrance = "limit") -> TaskError:
    """Return the error of a task past its deadline, by its step; `hindrance` counts for a task that was never sent."""
    match task.step:
        case "submit":
            code, why = _UNSENT[hindrance]
            unsent = TaskError(code=code, message=f"It was not sent before its deadline: {why}.", retryable=True)
            return task.setback or unsent
        case "unconfirmed":
            return unconfirmed_error("no callback came before the deadline")
    if task.lost:
        return TaskError(code="expired_result", message="The provider does not know the task.", retryable=True)
    return _timeout("The provider did not finish before the deadline.")


def _timeout(message: str) -> TaskError:
    return TaskError(code="timeout", message=message, retryable=True)


def unconfirmed_error(reason: str) -> TaskError:
    message = f"It was sent, but whether the provider accepted it is unknown ({reason}); it may have been charged."
    return TaskError(code="submit_unconfirmed", message=message)
