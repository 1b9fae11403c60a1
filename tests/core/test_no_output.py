"""A success without an output: polled a few more times, and never lost or failed at once."""

import msgspec
from msgspec.structs import replace

from service.core import lifecycle
from service.core.change import Change
from service.core.observation import Accepted, Hint, NoOutput, Succeeded, Unconfirmed, Unreadable
from service.core.schedule import Policy
from service.core.task import Image, Task, TaskError
from tests.support.env import FakeEnv
from tests.support.factory import BLOCKING, CALLS_BACK, POLL_ONLY, make_task, picture

EMPTY = NoOutput(
    error=TaskError(code="provider_error", message="the provider reported success but gave no picture"),
    raw=msgspec.Raw(b'{"status":"completed"}'),
)


def running(env: FakeEnv, policy: Policy) -> Task:
    task = lifecycle.begin(make_task(env), env, policy).tasks[0]
    return lifecycle.advance(task, Accepted(provider_task_id="p1"), "submit", env, policy).tasks[0]


def kinds(change: Change) -> list[str]:
    return [entry.type for entry in change.timeline]


def test_a_success_without_its_link_is_polled_again_soon() -> None:
    env = FakeEnv()
    change = lifecycle.advance(running(env, CALLS_BACK), EMPTY, "poll", env, CALLS_BACK)
    task = change.tasks[0]
    assert (task.status, kinds(change)) == ("running", ["poll.no_output"])
    assert task.due_at is not None and (task.due_at - env.now()).total_seconds() < 5
    assert lifecycle.advance(task, picture(), "poll", env, CALLS_BACK).tasks[0].status == "succeeded"


def test_it_fails_when_the_link_never_comes_and_its_answer_is_kept() -> None:
    env, polls = FakeEnv(), 0
    task = running(env, POLL_ONLY)
    while task.status == "running":
        change = lifecycle.advance(task, EMPTY, "poll", env, POLL_ONLY)
        task, polls = change.tasks[0], polls + 1
    assert polls == lifecycle.OUTPUT_POLLS_MAX
    assert task.error == EMPTY.error
    assert change.timeline[-1].detail["raw"] == EMPTY.raw


def test_a_callback_without_the_result_brings_the_poll_forward() -> None:
    env = FakeEnv()
    change = lifecycle.advance(running(env, CALLS_BACK), EMPTY, "callback", env, CALLS_BACK)
    assert change.outcome == "hint" and change.tasks[0].due_at == env.now()
    assert change.tasks[0].status == "running"


def test_a_blocking_provider_cannot_be_asked_again() -> None:
    env = FakeEnv()
    task = lifecycle.begin(make_task(env), env, BLOCKING).tasks[0]
    ended = lifecycle.advance(task, EMPTY, "submit", env, BLOCKING).tasks[0]
    assert (ended.status, ended.error) == ("failed", EMPTY.error)


def test_a_link_that_is_dropped_stands_in_the_timeline() -> None:
    env = FakeEnv()
    found = Succeeded(images=(Image(url="https://x/1.png"),), raw=msgspec.Raw(b"{}"), dropped=("file:///2.png",))
    change = lifecycle.advance(running(env, CALLS_BACK), found, "callback", env, CALLS_BACK)
    assert change.tasks[0].status == "succeeded"
    assert {entry.type: entry.detail["links"] for entry in change.timeline if entry.type == "output.dropped"} == {
        "output.dropped": ["file:///2.png"]
    }


def test_a_body_that_could_not_be_read_stands_in_the_timeline() -> None:
    env, policy = FakeEnv(), CALLS_BACK
    task = lifecycle.begin(make_task(env), env, policy).tasks[0]
    odd = Unconfirmed(reason="HTTP 200 with a body that is not the provider's own")
    unconfirmed = lifecycle.advance(task, odd, "submit", env, policy, task.lease, '{"job":"j-1"}')
    assert unconfirmed.timeline[0].detail["body"] == '{"job":"j-1"}'
    polled = lifecycle.advance(running(env, policy), Unreadable(reason="HTML"), "poll", env, policy, None, "<html>")
    assert polled.timeline[0].detail["body"] == "<html>"


def test_bodies_that_could_not_be_read_are_bounded_in_sum() -> None:
    env, policy = FakeEnv(), CALLS_BACK
    task, kept = running(env, policy), 0
    for _ in range(40):
        change = lifecycle.advance(
            task, Unreadable(reason="HTML"), "callback", env, policy, excerpt="x" * 2 * lifecycle.RAW_MAX
        )
        task = change.tasks[0]
        sizes = [len(entry.detail.get("body", "")) for entry in change.timeline]
        assert max(sizes) <= lifecycle.RAW_MAX
        kept += sum(sizes)
    assert kept == lifecycle.KEPT_MAX


def test_a_hint_of_a_provider_that_cannot_be_polled_keeps_its_body() -> None:
    env, policy = FakeEnv(), replace(CALLS_BACK, polling=False)
    hint = Hint(reason="the callback says succeeded")
    change = lifecycle.advance(running(env, policy), hint, "callback", env, policy, excerpt='{"url":"x"}')
    assert change.timeline[0].detail["body"] == '{"url":"x"}'


def test_a_body_that_could_not_be_read_after_a_timeout_is_kept() -> None:
    env, policy = FakeEnv(), CALLS_BACK
    ended = replace(running(env, policy), status="failed", step="done")
    change = lifecycle.advance(ended, Unreadable(reason="HTML"), "callback", env, policy, excerpt="<a>")
    assert change.outcome == "duplicate" and change.timeline[0].detail["body"] == "<a>"


def test_the_beginning_of_a_long_answer_that_failed_is_kept() -> None:
    env = FakeEnv()
    long = NoOutput(error=EMPTY.error, raw=msgspec.Raw(b'{"a":"' + b"x" * 100_000 + b'"}'))
    task = lifecycle.begin(make_task(env), env, BLOCKING).tasks[0]
    change = lifecycle.advance(task, long, "submit", env, BLOCKING)
    assert len(change.timeline[-1].detail["body"]) == lifecycle.RAW_MAX
