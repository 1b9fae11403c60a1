"""The life of a task: the only code that moves one. Every function is pure and gives back a Change.

create -> begin (a worker takes it) -> advance (something was learned) ... -> final; cancel ends it from outside.
"""

from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from service.core.change import Change, Entry, Outcome, Pause
from service.core.env import Env
from service.core.event import Event, EventType
from service.core.inline import omit_inline
from service.core.observation import (
    Accepted,
    Failed,
    Hint,
    NoOutput,
    NotFound,
    NotSent,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
    Unverified,
    tag_of,
)
from service.core.outputs import to_output
from service.core.problems import Conflict
from service.core.schedule import Policy, submit_backoff_s
from service.core.task import Cost, ErrorCode, Result, Status, Task, TaskError, TaskInput, Via
from service.core.times import after
from service.core.unanswered import Hindrance, deadline_error, unconfirmed_error
from service.core.views import view_task

TIMELINE_MAX = 500
"""Entries kept of one task: a sender that repeats itself can't fill the disk."""

DEADLINE_MARGIN_S = 2.0
"""For a worker whose call ended with the deadline to write that down itself."""

OUTPUT_POLLS_MAX = 6
"""Polls that may report success without an output before the task fails."""

RAW_MAX = 16_384
"""Bytes of a payload kept in one entry of the timeline."""

KEPT_MAX = 262_144
"""Characters of bodies kept of one task, so that a sender that repeats itself can't fill the disk."""

FINAL_EVENTS: dict[Status, EventType] = {
    "succeeded": "task.succeeded",
    "failed": "task.failed",
    "canceled": "task.canceled",
}


def create(task: Task, env: Env) -> Change:
    """A new task, due at once."""
    task = replace(task, due_at=task.created_at)
    task, entries = _note(task, env, "task.created", model=f"{task.provider}/{task.model}")
    return Change(tasks=(task,), timeline=entries)


def begin(task: Task, env: Env, policy: Policy, hindrance: Hindrance = "limit") -> Change:
    """A worker takes a due task: what comes back as `sending` it submits, as `tracking` it polls.

    Durable before a byte leaves: a task found again in `sending` died in flight, and its submit may have arrived.
    `hindrance` is what the account's tasks wait for, told of one whose time is over.
    """
    late = env.now() >= task.deadline_at
    match task.step:
        case "submit" if late:
            return _expire(task, env, hindrance)
        case "submit":
            return _send(task, env, policy)
        case "sending":
            stopped = Unconfirmed(reason="the service stopped while it was being sent")
            return _unconfirmed(task, stopped, env, policy)
        case "unconfirmed":
            return _expire(task, env)
        case "tracking":
            return _poll_or_expire(task, env, policy)
        case "parked" | "done":
            return Change(outcome="stale")
    assert_never(task.step)


def advance(
    task: Task,
    observation: Observation,
    via: Via,
    env: Env,
    policy: Policy,
    lease: int | None = None,
    excerpt: str | None = None,
) -> Change:
    """Something was learned about the task: from a submit's answer, a poll or a callback.

    `lease` is that of the worker that submitted; one that was away too long can add what it learned, not take it back.
    `excerpt` is the beginning of the body, kept in the timeline if it is not readable or not trusted.
    """
    if via == "callback":
        return _called_back(task, observation, env, policy, excerpt)
    if excerpt is not None and isinstance(observation, Unconfirmed | Unreadable):
        task, kept = _keep(task, excerpt)
        return _with_body(advance(task, observation, via, env, policy, lease), kept)
    if task.is_final:
        return _after_the_end(task, observation, via, env)
    if via == "poll":
        task = replace(task, polls=task.polls + 1)
    elif _is_overtaken(task, observation, lease):
        task, entries = _note(task, env, "submit.overtaken", says=tag_of(observation))
        return Change(outcome="stale", tasks=(task,), timeline=entries)
    return _learn(task, observation, via, env, policy)


def move(task: Task, account: str, env: Env) -> Change:
    """Give a task that was never sent to another account, because its own has a refused key."""
    if task.step != "submit" or task.submits or task.account_named:
        return Change(outcome="stale")
    task, entries = _note(replace(task, account=account), env, "task.moved", account=account, was=task.account)
    return Change(tasks=(task,), timeline=entries)


def cancel(task: Task, env: Env) -> Change:
    """The caller no longer wants it. Raises Conflict when it has ended otherwise."""
    if task.status == "canceled":
        return Change(outcome="duplicate", tasks=(task,))
    if task.is_final:
        raise Conflict(f"The task is {task.status}; a final state never changes.")
    # No built-in provider has a cancel in its API.
    task = replace(task, provider_cancel="unsupported" if _may_be_at_the_provider(task) else None)
    return _finish(task, env, "canceled", "cancel")


def _may_be_at_the_provider(task: Task) -> bool:
    in_doubt = task.setback is not None and task.setback.code == "submit_unconfirmed"
    return task.submits > 0 and (task.step != "submit" or in_doubt)


def look_now(task: Task, env: Env, policy: Policy) -> Change:
    """The caller wants to know: the next poll is due at once. Raises Conflict where there is nothing to poll."""
    if task.is_final:
        raise Conflict(f"The task is {task.status}; there is nothing more to ask for.")
    if not policy.polling:
        raise Conflict(f"{task.provider} can't be polled: its answer to the submit or its callback decides.")
    if task.step != "tracking":
        raise Conflict("The provider has not accepted the task yet, so there is nothing to poll.")
    task, entries = _note(task, env, "poll.requested")
    return Change(tasks=(replace(task, due_at=env.now()),), timeline=entries)


def erase(task: Task, env: Env) -> Task:
    """Erase prompt, result and payloads of a task; its ids, states and times stay."""
    if not task.is_final:
        raise Conflict(f"The task is {task.status}; only a final task can be erased. Cancel it first.")
    erased_error = replace(task.error, message="(erased)") if task.error else None
    return replace(
        task,
        input=TaskInput(prompt="(erased)"),
        metadata={},
        webhook_url=None,
        result=None,
        late_result=None,
        links={},
        error=erased_error,
        setback=None,
        erased_at=task.erased_at or env.now(),
    )


# --- what a worker starts ---------------------------------------------------------------------------------------------


def _send(task: Task, env: Env, policy: Policy) -> Change:
    # A call lasts to the deadline at most; what is found sending after it has died.
    due_at = min(after(env.now(), policy.submit_lease_s), after(task.deadline_at, DEADLINE_MARGIN_S))
    task = replace(task, step="sending", lease=task.lease + 1, submits=task.submits + 1, due_at=due_at)
    if not policy.blocking:
        return Change(tasks=(task,))
    return _run(replace(task, submitted_at=task.submitted_at or env.now()), env)


def _poll_or_expire(task: Task, env: Env, policy: Policy) -> Change:
    if not policy.polling:
        return _expire(task, env)
    due_at = after(env.now(), policy.poll_lease_s)
    if env.now() < task.deadline_at:  # a process that dies over a poll must not hold up the last one
        due_at = min(due_at, task.deadline_at)
    return Change(tasks=(replace(task, lease=task.lease + 1, due_at=due_at),))


# --- what is learned --------------------------------------------------------------------------------------------------


def _called_back(task: Task, observation: Observation, env: Env, policy: Policy, excerpt: str | None) -> Change:
    task = replace(task, callbacks=task.callbacks + 1)
    named = getattr(observation, "provider_task_id", None)
    if named and task.provider_task_id and named != task.provider_task_id:
        task, kept = _keep(task, excerpt)
        return _poll_soon(task, env, policy, "mismatch", "callback.mismatched", provider_task_id=named, **kept)
    if task.is_final:
        is_lost = isinstance(observation, Unreadable) and task.status != "succeeded"
        task, kept = _keep(task, excerpt) if is_lost else (task, {})
        return _with_body(_after_the_end(task, observation, "callback", env), kept)
    task = _adopt(task, named, env)
    if isinstance(observation, Unreadable):
        task, kept = _keep(task, excerpt)
        return _poll_soon(task, env, policy, "unreadable", "callback.unreadable", reason=observation.reason, **kept)
    task = _remember(task, observation)
    if isinstance(observation, NoOutput | Hint) or (policy.confirm and policy.polling):
        task, kept = _keep(task, excerpt) if not policy.polling or isinstance(observation, NoOutput) else (task, {})
        return _poll_soon(task, env, policy, "hint", "callback.hinted", says=tag_of(observation), **kept)
    return _learn(task, observation, "callback", env, policy)


def _remember(task: Task, observation: Observation) -> Task:
    """Keep what the provider's replies say about further calls; the last value stays."""
    links = getattr(observation, "links", None)
    return replace(task, links={**task.links, **links}) if links else task


def _keep(task: Task, excerpt: str | None) -> tuple[Task, dict[str, Any]]:
    """Keep the beginning of a body in the timeline, so that a paid result can be recovered by hand."""
    room = min(RAW_MAX, KEPT_MAX - task.kept)
    if not excerpt or task.erased_at or room <= 0:
        return task, {}
    return replace(task, kept=task.kept + len(excerpt[:room])), {"body": excerpt[:room]}


def _with_body(change: Change, kept: dict[str, Any]) -> Change:
    """Add a body to the first entry of the timeline."""
    first, *rest = change.timeline or (None,)
    if first is None or not kept:
        return change
    return replace(change, timeline=(replace(first, detail={**first.detail, **kept}), *rest))


def _is_overtaken(task: Task, observation: Observation, lease: int | None) -> bool:
    """A submit that did not arrive says nothing about a task that went on meanwhile: called back, or taken over."""
    went_on = task.step != "sending" or (lease is not None and lease != task.lease)
    return went_on and isinstance(observation, NotSent | Throttled | Unconfirmed)


def _learn(task: Task, observation: Observation, via: Via, env: Env, policy: Policy) -> Change:
    match observation:
        case Accepted():
            return _accepted(task, observation, env, policy)
        case Succeeded() | Failed():
            return _end(task, observation, via, env)
        case NoOutput():
            return _await_output(task, observation, via, env, policy)
        case NotSent() | Throttled() | Unconfirmed() if via == "submit":
            return _set_back(task, observation, env, policy)
        case Hint() | Pending() | NotFound() | Throttled() | NotSent() | Unconfirmed() | Unreadable() | Unverified():
            task = replace(_remember(task, observation), lost=isinstance(observation, NotFound))
            return _keep_waiting(task, observation, via, env, policy)
    assert_never(observation)


def _end(task: Task, observation: Succeeded | Failed, via: Via, env: Env) -> Change:
    task = _adopt(task, observation.provider_task_id, env)
    task, entries = _note(task, env, f"{via}.{tag_of(observation)}")
    if isinstance(observation, Succeeded) and observation.dropped:
        task, dropped = _note(task, env, "output.dropped", links=list(observation.dropped))
        entries += dropped
    if isinstance(observation, Succeeded):
        ended = _finish(task, env, "succeeded", via, result=_result(task, observation))
    else:
        ended = _finish(task, env, "failed", via, error=observation.error, raw=observation.raw)
    return replace(ended, timeline=entries + ended.timeline)


def _await_output(task: Task, observation: NoOutput, via: Via, env: Env, policy: Policy) -> Change:
    """Poll a few more times, since some providers report success before the link is there."""
    count = task.polls_without_output + 1
    if via == "poll" and count < OUTPUT_POLLS_MAX and env.now() < task.deadline_at:
        return _keep_waiting(replace(task, polls_without_output=count, wait_s=None), observation, via, env, policy)
    entries: tuple[Entry, ...] = ()
    if observation.dropped:
        task, entries = _note(task, env, "output.dropped", links=list(observation.dropped))
    failed = Failed(error=observation.error, raw=observation.raw, provider_task_id=observation.provider_task_id)
    ended = _end(task, failed, via, env)
    return replace(ended, timeline=entries + ended.timeline)


def _set_back(task: Task, observation: NotSent | Throttled | Unconfirmed, env: Env, policy: Policy) -> Change:
    if not isinstance(observation, Unconfirmed):
        return _try_again(task, observation, env)
    if task.status == "running" and env.now() >= task.deadline_at:
        return _expire(task, env)
    return _unconfirmed(task, observation, env, policy)


def _accepted(task: Task, observation: Accepted, env: Env, policy: Policy) -> Change:
    now = env.now()
    wait_s = policy.first_wait_s()
    task = replace(
        _remember(task, observation),
        step="tracking",
        provider_task_id=observation.provider_task_id,
        cost=observation.cost,
        submitted_at=task.submitted_at or now,
        setback=None,
        wait_s=wait_s,
        # A callback that already arrived and could not be trusted is a reason to poll now.
        due_at=env.now() if task.callbacks and policy.polling else _first_look_at(task, wait_s, env, policy),
    )
    refused = {"refused": list(observation.refused)} if observation.refused else {}
    task, entries = _note(
        task, env, "submit.accepted", provider_task_id=task.provider_task_id, cost=task.cost, **refused
    )
    change = _run(task, env)
    return replace(change, timeline=entries + change.timeline)


def _unconfirmed(task: Task, observation: Unconfirmed, env: Env, policy: Policy) -> Change:
    task, entries = _note(task, env, "submit.unconfirmed", reason=observation.reason, then=task.on_unconfirmed)
    task = replace(task, setback=unconfirmed_error(observation.reason))
    if task.on_unconfirmed == "resubmit":
        due_at = min(after(env.now(), env.jitter(submit_backoff_s(task.submits))), task.deadline_at)
        return Change(tasks=(replace(task, step="submit", due_at=due_at),), timeline=entries)
    if policy.callbacks:
        return Change(tasks=(replace(task, step="unconfirmed", due_at=task.deadline_at),), timeline=entries)
    # Without a callback nothing can ever name this task, so its caller need not wait for the deadline.
    ended = _finish(task, env, "failed", "submit", error=unconfirmed_error(observation.reason))
    return replace(ended, timeline=entries + ended.timeline)


def _try_again(task: Task, observation: NotSent | Throttled, env: Env) -> Change:
    throttled = isinstance(observation, Throttled)
    code: ErrorCode = "rate_limited" if throttled else "provider_unavailable"
    setback = TaskError(code=code, message=observation.reason, retryable=True)
    if task.setback is not None and task.setback.code == "submit_unconfirmed":
        setback = task.setback  # an earlier submit may still have been charged
    wait_s = max(env.jitter(submit_backoff_s(task.submits)), observation.retry_after_s or 0.0)
    due_at = after(env.now(), wait_s)
    pauses = (Pause(account=task.account_key, until=due_at),) if throttled or observation.retry_after_s else ()
    task = replace(task, step="submit", setback=setback, due_at=min(due_at, task.deadline_at))
    kind, next_in_s = f"submit.{tag_of(observation)}", round(wait_s, 1)
    task, entries = _note(task, env, kind, reason=observation.reason, next_in_s=next_in_s)
    return Change(tasks=(task,), timeline=entries, pauses=pauses)


def _keep_waiting(task: Task, observation: Observation, via: Via, env: Env, policy: Policy) -> Change:
    reason = getattr(observation, "reason", None)
    task, entries = _note(task, env, f"{via}.{tag_of(observation)}", **({"reason": reason} if reason else {}))
    if via == "callback":
        change = _confirmed(task, env, policy)
        return replace(change, timeline=entries + change.timeline)
    now = env.now()
    if now >= task.deadline_at:
        ended = _expire(task, env)
        return replace(ended, timeline=entries + ended.timeline)
    wait_s = policy.next_wait_s(task.wait_s)
    due_at = after(now, max(env.jitter(wait_s), getattr(observation, "retry_after_s", None) or 0.0))
    asked = isinstance(observation, Throttled) or getattr(observation, "retry_after_s", None)
    pauses = (Pause(account=task.account_key, until=due_at),) if asked else ()
    task = replace(task, wait_s=wait_s, due_at=min(due_at, task.deadline_at))
    return Change(tasks=(task,), timeline=entries, pauses=pauses)


def _poll_soon(task: Task, env: Env, policy: Policy, outcome: Outcome, kind: str, **detail: Any) -> Change:
    """Record a callback that can't be trusted, and poll the provider over its authenticated API."""
    task, entries = _note(task, env, kind, **detail)
    if task.is_final:
        return Change(outcome=outcome, tasks=(task,), timeline=entries)
    if task.provider_task_id is None or not policy.polling:
        return Change(outcome=outcome, tasks=(task,), timeline=entries)
    change = _run(replace(task, step="tracking", due_at=env.now(), wait_s=None), env)
    return replace(change, outcome=outcome, timeline=entries + change.timeline)


def _adopt(task: Task, named: str | None, env: Env) -> Task:
    """Takes over the provider's id from an answer that came before the submit's own: the submit did arrive."""
    if not named or task.provider_task_id:
        return task
    return replace(task, provider_task_id=named, submitted_at=task.submitted_at or env.now())


def _confirmed(task: Task, env: Env, policy: Policy) -> Change:
    """A callback that says pending: it can name a task whose submit was never confirmed.

    That one is then polled, and not sent again where it was going to be.
    """
    if task.step not in ("submit", "sending", "unconfirmed") or not task.provider_task_id:
        return Change(outcome="noted", tasks=(task,))
    wait_s = policy.first_wait_s()
    due_at = _first_look_at(task, wait_s, env, policy)
    return _run(replace(task, step="tracking", wait_s=wait_s, due_at=due_at), env)


def _first_look_at(task: Task, wait_s: float, env: Env, policy: Policy) -> datetime:
    """When it is polled first; what can't be polled has its callback or its deadline."""
    return min(after(env.now(), env.jitter(wait_s)), task.deadline_at) if policy.polling else task.deadline_at


def _after_the_end(task: Task, observation: Observation, via: Via, env: Env) -> Change:
    named = getattr(observation, "provider_task_id", None)
    task = _adopt(task, named, env)
    wanted = task.status != "succeeded" and not task.late_result and not task.erased_at
    if not (wanted and isinstance(observation, Succeeded)):
        about = {"provider_task_id": named, "cost": getattr(observation, "cost", None)}
        told = {name: value for name, value in about.items() if value is not None}
        task, entries = _note(task, env, f"{via}.duplicate", says=tag_of(observation), status=task.status, **told)
        return Change(outcome="duplicate", tasks=(task,), timeline=entries)
    task, entries = _note(task, env, f"{via}.late", says="succeeded", status=task.status)
    task = replace(task, late_result=_result(task, observation))
    return Change(outcome="late", tasks=(task,), timeline=entries, events=(_event(task, env, "task.late_result"),))


# --- how it ends ------------------------------------------------------------------------------------------------------


def _expire(task: Task, env: Env, hindrance: Hindrance = "limit") -> Change:
    return _finish(task, env, "failed", "deadline", error=deadline_error(task, hindrance))


def _finish(
    task: Task,
    env: Env,
    status: Status,
    via: Via,
    *,
    result: Result | None = None,
    error: TaskError | None = None,
    raw: msgspec.Raw | None = None,
) -> Change:
    task = replace(
        task, status=status, step="done", via=via, result=result, error=error, due_at=None, finished_at=env.now()
    )
    detail: dict[str, Any] = {"code": error.code, "message": error.message} if error else {}
    if raw is not None and len(bytes(raw)) <= RAW_MAX:
        detail["raw"] = raw
    elif raw is not None:
        detail["body"] = bytes(raw)[:RAW_MAX].decode("utf-8", "replace")
    task, entries = _note(task, env, f"task.{status}", via=via, **detail)
    return Change(tasks=(task,), timeline=entries, events=(_event(task, env, FINAL_EVENTS[status], task.webhook_url),))


def _run(task: Task, env: Env) -> Change:
    """The provider accepted the task: set it running, and publish that once."""
    if task.status == "running":
        return Change(tasks=(task,))
    task = replace(task, status="running")
    task, entries = _note(task, env, "task.running")
    return Change(tasks=(task,), timeline=entries, events=(_event(task, env, "task.running"),))


def _result(task: Task, observation: Succeeded) -> Result:
    amount = task.cost if observation.cost is None else observation.cost
    cost = None if amount is None else Cost(amount=amount)
    return Result(outputs=tuple(map(to_output, observation.images)), cost=cost, raw=omit_inline(observation.raw))


def _event(task: Task, env: Env, kind: EventType, webhook_url: str | None = None) -> Event:
    return Event(
        id=env.new_id("event"),
        type=kind,
        at=env.now(),
        data=msgspec.json.encode(view_task(task)),
        task_id=task.id,
        provider=task.provider,
        model=task.model,
        account=task.account,
        metadata=task.metadata,
        webhook_url=webhook_url,
    )


def _note(task: Task, env: Env, kind: str, **detail: Any) -> tuple[Task, tuple[Entry, ...]]:
    if task.entries >= TIMELINE_MAX and not kind.startswith("task."):
        return task, ()
    number = task.entries + 1
    return replace(task, entries=number), (
        Entry(task_id=task.id, number=number, at=env.now(), type=kind, detail=detail),
    )
