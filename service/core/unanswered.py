"""What is said of a task that no answer came for in time: what is known of it, and whether it may have been charged."""

from service.core.task import Task, TaskError


def deadline_error(task: Task) -> TaskError:
    """Of a task whose time is over, by the step that it got to."""
    match task.step:
        case "submit":
            return task.setback or _timeout("It was not sent before its deadline: the account was at its limit.")
        case "unconfirmed":
            return unconfirmed_error("no callback came before the deadline")
    if task.lost:
        return TaskError(code="expired_result", message="The provider does not know the task.", retryable=True)
    return _timeout("The provider did not finish before the deadline.")


def _timeout(message: str) -> TaskError:
    return TaskError(code="timeout", message=message, retryable=True)


def unconfirmed_error(reason: str) -> TaskError:
    message = f"It was sent, but whether the provider took it is unknown ({reason}); it may have been charged."
    return TaskError(code="submit_unconfirmed", message=message)
