"""Why a task is in its state, what happens next, and what the caller can do: one sentence each."""

from datetime import datetime

import msgspec

from service.core.breaker import Breaker, CallKind
from service.core.refusal import Refusal
from service.core.schedule import Policy
from service.core.task import ErrorCode, Status, Task, Via
from service.core.times import from_ms, rfc3339

PATIENCE = "Wait, or cancel it."
ENDED_BY: dict[Via, str] = {
    "callback": "by a callback",
    "poll": "by a poll",
    "submit": "in its answer to the submit",
    "deadline": "by the deadline",
    "cancel": "by a cancel",
}
FAILURES: dict[ErrorCode, tuple[str, str]] = {
    "invalid_request": ("The provider refused the input", "Correct the input and submit a new task."),
    "content_policy": (
        "The provider's moderation refused the prompt or a picture",
        "Change the prompt or the picture and submit a new task.",
    ),
    "authentication": (
        "The provider refused the account's key",
        "Correct the provider's key in the settings, then submit a new task.",
    ),
    "insufficient_credits": (
        "The account at the provider has no credits left",
        "Add credits to the account, then submit a new task.",
    ),
    "rate_limited": (
        "The provider's rate limit refused it until its deadline",
        "Submit a new task later, or with a longer timeout_s.",
    ),
    "provider_error": ("The provider said that it failed", "Submit a new task; if it fails again, change the input."),
    "provider_unavailable": (
        "No submit reached the provider before the deadline",
        "Submit a new task when the provider is back.",
    ),
    "submit_unconfirmed": (
        "It was sent, but whether the provider accepted it never became known",
        "Check with the provider whether it ran and was charged before you submit a new task.",
    ),
    "timeout": (
        "It was not finished before its deadline",
        "Submit a new task, with a longer timeout_s if that was too short.",
    ),
    "expired_result": (
        "The provider no longer knows the task",
        "Submit a new task; the result of this one can't be had any more.",
    ),
}


CLOSED = Breaker()


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why the task is in its state, what happens next and when, and what the caller can do: a sentence each."""

    status: Status
    why: str
    next: str
    you_can: str


def explain(
    task: Task,
    policy: Policy | None,
    paused_ms: int,
    now: datetime,
    breaker: Breaker = CLOSED,
    refusal: Refusal | None = None,
) -> Why:
    """Explain the task. `policy` is None if the provider is not configured; the account is paused until `paused_ms`."""
    if task.is_final:
        return _ended(task, now)
    if policy is None:
        return Why(
            status=task.status,
            why=f"The provider {task.provider} is not configured any more, so nothing works on it.",
            next=f"It continues when the provider's key is set again; its deadline is {_at(task.deadline_at, now)}.",
            you_can="Set the provider's key again, or cancel it.",
        )
    if task.step == "submit":
        return _to_submit(task, _refused(refusal, now) or _rest(paused_ms, breaker, "submit", now), now)
    if task.step == "tracking":
        return _tracked(task, policy, _rest(paused_ms, breaker, "poll", now), now)
    return _between(task, policy, now)


def _between(task: Task, policy: Policy, now: datetime) -> Why:
    match task.step:
        case "sending":
            return _in_flight(task, policy, now)
        case "unconfirmed":
            return _in_doubt(task, now)
    return _parked(task)


def _rest(paused_ms: int, breaker: Breaker, kind: CallKind, now: datetime) -> str | None:
    """Return why the whole account waits, or None."""
    if paused_ms > now.timestamp() * 1000:
        return (
            f"The account is paused until {_at(from_ms(paused_ms), now)} because the provider answered 429; then it is"
        )
    if breaker.since is None or breaker.probe_at is None or not breaker.shuts(kind):
        return None
    since, next_at = _at(breaker.since, now), _in(breaker.probe_at, now)
    return f"The provider has not answered properly since {since}; one task tests it {next_at}. When it answers it is"


def _refused(refusal: Refusal | None, now: datetime) -> str | None:
    if refusal is None:
        return None
    return f"The provider has refused the account's key since {_at(refusal.since, now)}; once the key works it is"


def _parked(task: Task) -> Why:
    return Why(
        status=task.status,
        why="An internal error of this service stopped it several times, so it is in quarantine.",
        next="A callback can still finish it; else an operator has to see to it (GET /v1/faults).",
        you_can="Ask the operator, wait for the callback, or cancel it.",
    )


def _to_submit(task: Task, rest: str | None, now: datetime) -> Why:
    why = "It is stored and has not been sent to the provider yet."
    if task.setback and task.setback.code == "submit_unconfirmed":
        why = "The outcome of an earlier submit is unknown, and the request allows to send it again."
    elif task.setback:
        why = f"The last submit did not get through: {_clause(task.setback.message)}."
    return Why(status=task.status, why=why, next=_next_submit(task, rest, now), you_can=PATIENCE)


def _next_submit(task: Task, rest: str | None, now: datetime) -> str:
    if now >= task.deadline_at:
        return "Its deadline is over, so it is about to fail."
    if rest:
        return f"{rest} sent."
    if task.due_at and task.due_at > now:
        return f"It is sent {_in(task.due_at, now)}."
    return f"It is sent as soon as the account's limits leave room, or fails {_in(task.deadline_at, now)}."


def _in_flight(task: Task, policy: Policy, now: datetime) -> Why:
    if policy.blocking:
        why = "The provider is working on it and answers with the result."
        following = f"The answer ends it; without one it fails {_in(task.deadline_at, now)}."
    else:
        why = "It is being sent to the provider now."
        following = "The provider's answer decides, within the time limit of the call."
    return Why(status=task.status, why=why, next=following, you_can=PATIENCE)


def _in_doubt(task: Task, now: datetime) -> Why:
    return Why(
        status=task.status,
        why="It was sent, but whether the provider accepted it is unknown, so it is not sent a second time.",
        next=f"A callback can still finish it; without one it fails {_in(task.deadline_at, now)}.",
        you_can="Wait for the callback, or cancel it and submit a new task, which may be charged twice.",
    )


def _tracked(task: Task, policy: Policy, rest: str | None, now: datetime) -> Why:
    why = "The provider accepted it and is working on it."
    if task.lost:
        why = "The provider accepted it, but did not find it at the last poll."
    return Why(status=task.status, why=why, next=_next_poll(task, policy, rest, now), you_can=PATIENCE)


def _next_poll(task: Task, policy: Policy, rest: str | None, now: datetime) -> str:
    if now >= task.deadline_at:
        return "Its deadline is over: one last poll decides." if policy.polling else "Its deadline is over: it fails."
    if not policy.polling:
        return f"Its callback ends it; without one it fails {_in(task.deadline_at, now)}."
    if rest:
        return f"{rest} polled."
    at = task.due_at or now
    if policy.callbacks:
        return f"A callback is expected; if it does not come, the next poll is {_in(at, now)}."
    return f"The next poll is {_in(at, now)}."


def _ended(task: Task, now: datetime) -> Why:
    if task.status == "failed":
        return _failed(task)
    if task.status == "canceled":
        return Why(
            status=task.status,
            why="It was canceled on request; the provider may still have run and charged it.",
            next=_late(task),
            you_can="Submit a new task.",
        )
    expires_at = next((output.expires_at for output in task.result.outputs), None) if task.result else None
    fetch = f"Fetch the outputs before their links expire at {expires_at}" if expires_at else "Fetch the outputs soon"
    return Why(
        status=task.status,
        why=f"The provider finished it and reported that {ENDED_BY.get(task.via or 'poll', '')}.",
        next="Nothing more happens: the state is final and its event is published.",
        you_can="Nothing but submit a new task: this one is erased." if task.erased_at else f"{fetch}.",
    )


def _failed(task: Task) -> Why:
    if task.error is None:
        return Why(status=task.status, why="It failed.", next=_late(task), you_can="Submit a new task.")
    why, you_can = FAILURES[task.error.code]
    said = "" if task.erased_at else f": {_clause(task.error.message)}"
    return Why(status=task.status, why=f"{why}{said}.", next=_late(task), you_can=you_can)


def _late(task: Task) -> str:
    if task.late_result:
        return "Nothing more happens; a result that came after the end is stored as late_result."
    return "Nothing more happens: the state is final. A result that still comes is stored as late_result."


def _clause(message: str) -> str:
    """Make a message part of a sentence."""
    return message.strip().removesuffix(".")


def _at(at: datetime, now: datetime) -> str:
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else rfc3339(at)


def _in(at: datetime, now: datetime) -> str:
    """Say when: in seconds below ten minutes, else the time of day."""
    left_s = (at - now).total_seconds()
    if left_s <= 0:
        return "now"
    return f"in {max(1, round(left_s))} s" if left_s < 600 else f"at {_at(at, now)}"
