"""The life of a task as a state machine: whatever happens in whatever order, the promises of the life hold.

A provider answers submits and polls in every way it can, calls back rightly, wrongly and twice; workers die with
calls in flight, or come back long after their lease; the clock jumps; the caller cancels and erases.
"""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from service.core import lifecycle
from service.core.change import Change, Entry
from service.core.event import Event
from service.core.observation import (
    Accepted,
    Failed,
    NoOutput,
    NotFound,
    NotSent,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.problems import Conflict
from service.core.schedule import Policy
from service.core.task import FINAL, Task, TaskError
from service.core.times import after
from tests.support.env import FakeEnv
from tests.support.factory import BLOCKING, CALLS_BACK, POLL_ONLY, make_task, picture, refusal
from tests.support.fuzz import Choose, by_dice, by_hypothesis

CALLBACK_ONLY = Policy(callbacks=True, polling=False, blocking=False)
POLICIES = (
    CALLS_BACK,
    POLL_ONLY,
    BLOCKING,
    CALLBACK_ONLY,
    replace(CALLS_BACK, confirm=True),
    replace(CALLBACK_ONLY, confirm=True),
)
FINAL_TYPES = {f"task.{status}" for status in FINAL}
RANK = {"queued": 0, "running": 1, "succeeded": 2, "failed": 2, "canceled": 2}

IDS = (None, "p1", "p2")
PAUSES = (None, 0.0, 3.0, 600.0, 86_400.0)
PENDING = [Pending(provider_task_id=named) for named in IDS]
ACCEPTED = [Accepted(provider_task_id=named, cost=2.0) for named in IDS if named]
SUCCEEDED = [picture(provider_task_id=named) for named in IDS]
FAILED = [refusal(provider_task_id=named) for named in IDS]
NOT_SENT = [NotSent(reason="refused", retry_after_s=pause) for pause in PAUSES]
THROTTLED = [Throttled(reason="429", retry_after_s=pause) for pause in PAUSES]
UNCONFIRMED = [Unconfirmed(reason="reset")]
NOT_FOUND = [NotFound(reason="404")]
NO_OUTPUT = [NoOutput(error=TaskError(code="provider_error", message="no picture"))]
UNREADABLE = [Unreadable(reason="HTTP 502")]

ANSWERED = [NOT_SENT, THROTTLED, UNCONFIRMED, UNCONFIRMED, SUCCEEDED, NO_OUTPUT, FAILED]
SUBMITTED = [ACCEPTED, ACCEPTED, *ANSWERED]
POLLED = [PENDING, PENDING, PENDING, NOT_FOUND, THROTTLED, UNREADABLE, SUCCEEDED, NO_OUTPUT, FAILED]
CALLED_BACK = [PENDING, PENDING, PENDING, UNREADABLE, SUCCEEDED, NO_OUTPUT, FAILED]
SECONDS = [0.5, 3.0, 30.0, 61.0, 100.0, 900.0]
CLOCK_STEPS = [-3600.0, -60.0, -1.0, 3600.0]
STEPS_TO_THE_END = 400
AFTERLIFE = 8
"""Steps after the end, which are all alike."""


class Life:
    """A task. Every change goes through `take`, which checks the promises."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.env = FakeEnv()
        self.policy: Policy = choose(POLICIES)
        self.events: list[Event] = []
        self.entries: list[Entry] = []
        self.lingering: list[Task] = []
        """As they were claimed, by workers that have not come back yet."""
        self.sure: set[int] = set()
        """Leases of submits that surely did not arrive."""
        self.doubtful: set[int] = set()
        """Leases of submits whose outcome was never learned."""
        deadline_at = after(self.env.now(), choose([1.0, 30.0, 900.0]))
        self.task = make_task(self.env, on_unconfirmed=choose(["wait", "resubmit"]), deadline_at=deadline_at)
        self.take(lifecycle.create(self.task, self.env))

    def live(self, steps: int) -> None:
        left = AFTERLIFE
        for _ in range(steps):
            self.something_happens()
            self.there_is_one_final_event_for_a_final_task_and_none_before()
            left -= self.task.is_final
            if not left:
                return
        self.it_ends_by_itself()

    # --- what happens to it -------------------------------------------------------------------------------------------

    def something_happens(self) -> None:
        """Weighed, so that most of it moves the task."""
        ways = {
            self.a_worker_does_what_is_due: 0 if self.task.is_final else 4,
            self.a_worker_dies_over_what_is_due: 0 if self.task.is_final else 2,
            self.a_worker_lingers_over_what_is_due: 0 if self.task.is_final else 3,
            self.a_call_that_lingered_is_answered: 4 if self.lingering else 0,
            self.the_provider_calls_back: 3 if self.policy.callbacks and self.task.submits else 0,
            self.time_passes: 2,
            self.its_deadline_comes: 0 if self.task.is_final else 1,
            self.the_clock_is_set: 1,
            self.the_caller_cancels: 1,
            self.it_is_erased: 1 if self.task.is_final else 0,
        }
        named = {way.__name__: way for way in ways}
        named[self.choose([way.__name__ for way, weight in ways.items() for _ in range(weight)])]()

    def a_worker_does_what_is_due(self) -> None:
        """At its time, and what the provider answers is written down at once."""
        claimed = self.claim()
        if claimed is not None:
            self.answer(claimed)

    def a_worker_dies_over_what_is_due(self) -> None:
        self.claim()

    def a_worker_lingers_over_what_is_due(self) -> None:
        claimed = self.claim()
        if claimed is not None:
            self.lingering.append(claimed)

    def a_call_that_lingered_is_answered(self) -> None:
        """Whether its lease still holds or not."""
        self.answer(self.lingering.pop(self.choose(range(len(self.lingering)))))

    def claim(self) -> Task | None:
        """Claim the task, if the worker has to call the provider."""
        before = self.task
        self.go_to(before.due_at)
        self.take(lifecycle.begin(before, self.env, self.policy))
        if before.step == "sending":
            self.doubtful.add(before.lease)
        if self.task.step == "sending":
            self.a_submit_leaves(before)
            return self.task
        if self.task.step == "tracking":
            assert self.policy.polling and self.task.lease > before.lease
            return self.task
        if self.task.is_final:
            self.ended_without_a_word_from_the_provider(before)
        return None

    def a_submit_leaves(self, before: Task) -> None:
        assert before.on_unconfirmed == "resubmit" or not self.doubtful - self.sure, "it may have arrived before"
        assert self.env.now() < before.deadline_at, "nobody would wait for it"
        assert before.provider_task_id is None, "the provider has it already"

    def ended_without_a_word_from_the_provider(self, before: Task) -> None:
        if self.task.via == "deadline":
            assert self.env.now() >= before.deadline_at
        knows_it = before.provider_task_id is not None and self.policy.polling
        assert not knows_it, "one last poll is made before a task times out"

    def answer(self, claimed: Task) -> None:
        if claimed.step == "sending":
            self.answer_submit(claimed, self.one_of(ANSWERED if self.policy.blocking else SUBMITTED))
        else:
            self.answer_poll(self.one_of(POLLED))

    def one_of(self, kinds: list[list[Any]]) -> Observation:
        return self.choose(self.choose(kinds))

    def answer_submit(self, sent: Task, observation: Observation) -> None:
        if isinstance(observation, NotSent | Throttled):
            self.sure.add(sent.lease)
        if isinstance(observation, Unconfirmed):
            self.doubtful.add(sent.lease)
        before = self.task
        change = self.learn(observation, "submit", lease=sent.lease)
        if isinstance(observation, NotSent | Throttled | Unconfirmed) and before.lease != sent.lease:
            assert (self.task.step, self.task.due_at) == (before.step, before.due_at), "another worker has it"
            assert change.outcome in ("stale", "duplicate") and not change.pauses

    def answer_poll(self, observation: Observation) -> None:
        before = self.task
        self.learn(observation, "poll")
        assert self.task.polls == before.polls + (not before.is_final)

    def the_provider_calls_back(self) -> None:
        observation = self.one_of(CALLED_BACK)
        for _ in range(self.choose([1, 1, 3])):
            before = self.task
            change = self.learn(observation, "callback")
            named = getattr(observation, "provider_task_id", None)
            if named and before.provider_task_id not in (None, named):
                assert change.outcome == "mismatch"
                assert self.task.result == before.result and self.task.provider_task_id == before.provider_task_id
            if self.policy.confirm and self.policy.polling and not before.is_final:
                assert not self.task.is_final, "a callback is a hint alone"
            assert self.task.callbacks == before.callbacks + 1

    def time_passes(self) -> None:
        self.env.pass_time(self.choose(SECONDS))

    def its_deadline_comes(self) -> None:
        self.go_to(self.task.deadline_at)

    def the_clock_is_set(self) -> None:
        self.env.pass_time(self.choose(CLOCK_STEPS))

    def the_caller_cancels(self) -> None:
        if self.task.status in ("succeeded", "failed"):
            with pytest.raises(Conflict):
                lifecycle.cancel(self.task, self.env)
        else:
            self.take(lifecycle.cancel(self.task, self.env))

    def it_is_erased(self) -> None:
        erased = lifecycle.erase(self.task, self.env)
        assert (erased.result, erased.late_result, erased.metadata) == (None, None, {})
        assert lifecycle.erase(erased, self.env) == erased
        self.task = erased

    # --- what must hold -----------------------------------------------------------------------------------------------

    def learn(self, observation: Observation, via: Any, lease: int | None = None) -> Change:
        change = lifecycle.advance(self.task, observation, via, self.env, self.policy, lease)
        self.take(change)
        return change

    def take(self, change: Change) -> None:
        before, (self.task,) = self.task, change.tasks
        self.is_the_same_task(before)
        self.has_a_timeline_without_a_gap(change)
        self.events += change.events
        if before.is_final:
            assert (self.task.status, self.task.via, self.task.result, self.task.error, self.task.finished_at) == (
                before.status,
                before.via,
                before.result,
                before.error,
                before.finished_at,
            )
            assert not FINAL_TYPES & {event.type for event in change.events}
        for event in change.events:
            if event.type in FINAL_TYPES:
                assert event.type == f"task.{self.task.status}"
                assert msgspec.json.decode(event.data)["status"] == self.task.status
        if not self.task.is_final and self.task.due_at != before.due_at:
            self.will_be_looked_at_in_time()
        if self.task.is_final and not before.is_final:
            self.says_why_it_ended()

    def is_the_same_task(self, before: Task) -> None:
        for name in ("id", "provider", "model", "input", "metadata", "created_at", "deadline_at", "on_unconfirmed"):
            assert getattr(self.task, name) == getattr(before, name)
        assert RANK[before.status] <= RANK[self.task.status]

    def has_a_timeline_without_a_gap(self, change: Change) -> None:
        self.entries += change.timeline
        assert [entry.number for entry in self.entries] == list(range(1, len(self.entries) + 1))
        assert self.task.entries == len(self.entries)

    def will_be_looked_at_in_time(self) -> None:
        due_at, now = self.task.due_at, self.env.now()
        assert due_at is not None, "nobody would look at it again"
        at_the_end = after(self.task.deadline_at, lifecycle.DEADLINE_MARGIN_S)
        lease_over = after(now, self.policy.poll_lease_s if self.task.step == "tracking" else 0.0)
        assert due_at <= max(at_the_end, lease_over)

    def says_why_it_ended(self) -> None:
        task = self.task
        assert (task.due_at, task.step) == (None, "done") and task.via and task.finished_at == self.env.now()
        assert (task.status == "succeeded") == (task.result is not None)
        assert (task.status == "failed") == (task.error is not None)
        in_doubt = (self.doubtful - self.sure) and task.provider_task_id is None and not self.policy.blocking
        if task.error and task.via == "deadline" and in_doubt:
            assert task.error.code == "submit_unconfirmed", "it may have been charged"

    def there_is_one_final_event_for_a_final_task_and_none_before(self) -> None:
        finals = [event for event in self.events if event.type in FINAL_TYPES]
        assert len(finals) == (1 if self.task.is_final else 0)
        assert sum(event.type == "task.late_result" for event in self.events) <= 1
        assert sum(event.type == "task.running" for event in self.events) <= 1

    def go_to(self, at: datetime | None) -> None:
        assert at is not None
        self.env.pass_time(max(0.0, (at - self.env.now()) / timedelta(seconds=1)))

    def it_ends_by_itself(self) -> None:
        """Left to a provider that never finishes it, and to workers that live."""
        for _ in range(STEPS_TO_THE_END):
            if self.task.is_final:
                return
            claimed = self.claim()
            if claimed is not None and claimed.step == "sending":
                self.answer_submit(claimed, Throttled(reason="429"))
            elif claimed is not None:
                self.answer_poll(Pending())
        raise AssertionError(f"never ends: {self.task}")


def live(choose: Choose) -> None:
    Life(choose).live(steps=40)


def test_no_order_of_what_can_happen_to_a_task_breaks_a_promise_of_its_life() -> None:
    by_dice(live, 3_000)


def test_the_shortest_order_that_breaks_one_would_be_told() -> None:
    by_hypothesis(live, 100)


def test_observations_are_all_in_play() -> None:
    """A new kind of observation has to be taken up here."""
    known = {Accepted, Pending, Succeeded, NoOutput, Failed, Throttled, NotSent, Unconfirmed, NotFound, Unreadable}
    assert {kind.__name__ for kind in Observation.__args__} == {kind.__name__ for kind in known} | {
        "Hint",
        "Unverified",
    }
