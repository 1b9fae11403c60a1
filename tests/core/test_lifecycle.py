"""The life of a task, decision by decision."""

import msgspec
import pytest
from msgspec.structs import replace

from service.core import lifecycle
from service.core.change import Change
from service.core.observation import (
    Accepted,
    NotFound,
    NotSent,
    Pending,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.problems import Conflict
from service.core.schedule import Policy
from service.core.task import Task, TaskError
from service.core.unanswered import Hindrance
from tests.support.env import FakeEnv
from tests.support.factory import BLOCKING, CALLS_BACK, POLL_ONLY, make_task, picture, refusal


@pytest.fixture
def env() -> FakeEnv:
    return FakeEnv()


def sent(env: FakeEnv, policy: Policy = CALLS_BACK, **changes: object) -> Task:
    return lifecycle.begin(make_task(env, **changes), env, policy).tasks[0]


def running(env: FakeEnv, policy: Policy = CALLS_BACK, **changes: object) -> Task:
    task = sent(env, policy, **changes)
    return lifecycle.advance(task, Accepted(provider_task_id="p1"), "submit", env, policy).tasks[0]


def types(change: Change) -> list[str]:
    return [event.type for event in change.events]


def test_a_new_task_is_queued_and_due_at_once(env: FakeEnv) -> None:
    task = lifecycle.create(make_task(env, due_at=None), env).tasks[0]
    assert (task.status, task.step, task.due_at) == ("queued", "submit", env.now())


def test_a_task_is_marked_as_sending_before_a_byte_leaves(env: FakeEnv) -> None:
    task = sent(env)
    assert (task.step, task.submits, task.lease) == ("sending", 1, 1)
    assert task.due_at is not None and task.due_at > env.now()


def test_a_task_found_again_in_flight_is_not_sent_a_second_time(env: FakeEnv) -> None:
    found = lifecycle.begin(sent(env), env, CALLS_BACK).tasks[0]
    assert (found.step, found.status, found.submits) == ("unconfirmed", "queued", 1)
    assert found.due_at == found.deadline_at


def test_a_task_that_asks_for_it_is_sent_again_after_an_unknown_outcome(env: FakeEnv) -> None:
    found = lifecycle.begin(sent(env, on_unconfirmed="resubmit"), env, CALLS_BACK).tasks[0]
    assert found.step == "submit" and found.due_at is not None
    env.pass_time(5)
    assert lifecycle.begin(found, env, CALLS_BACK).tasks[0].submits == 2


def test_an_unknown_outcome_ends_at_the_deadline(env: FakeEnv) -> None:
    task = lifecycle.advance(sent(env), Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    env.pass_time(900)
    change = lifecycle.begin(task, env, CALLS_BACK)
    assert types(change) == ["task.failed"]
    assert change.tasks[0].error is not None and change.tasks[0].error.code == "submit_unconfirmed"
    assert change.tasks[0].via == "deadline"


def test_an_unknown_outcome_ends_at_once_where_nothing_can_ever_name_the_task(env: FakeEnv) -> None:
    change = lifecycle.advance(sent(env, POLL_ONLY), Unconfirmed(reason="reset"), "submit", env, POLL_ONLY)
    assert change.tasks[0].error is not None and change.tasks[0].error.code == "submit_unconfirmed"


def test_a_callback_finds_the_task_whose_submit_was_never_confirmed(env: FakeEnv) -> None:
    task = lifecycle.advance(sent(env), Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    change = lifecycle.advance(task, picture(provider_task_id="p1"), "callback", env, CALLS_BACK)
    assert types(change) == ["task.succeeded"]
    assert (change.tasks[0].provider_task_id, change.tasks[0].via) == ("p1", "callback")


def test_a_callback_that_comes_before_the_submits_answer_counts(env: FakeEnv) -> None:
    done = lifecycle.advance(sent(env), picture(provider_task_id="p1"), "callback", env, CALLS_BACK).tasks[0]
    after = lifecycle.advance(done, Accepted(provider_task_id="p1"), "submit", env, CALLS_BACK)
    assert done.status == "succeeded" and after.tasks[0].status == "succeeded" and not after.events


@pytest.mark.parametrize("observation", [NotSent(reason="refused"), Throttled(reason="429"), Unconfirmed(reason="cut")])
def test_a_submit_that_did_not_arrive_takes_nothing_back_from_a_task_that_went_on(
    env: FakeEnv, observation: NotSent
) -> None:
    early = lifecycle.advance(sent(env), Pending(provider_task_id="p1"), "callback", env, CALLS_BACK).tasks[0]
    change = lifecycle.advance(early, observation, "submit", env, CALLS_BACK)
    assert change.outcome == "stale"
    assert (change.tasks[0].step, change.tasks[0].status) == ("tracking", "running")


def test_the_answer_of_a_worker_that_was_away_too_long_sends_nothing_again(env: FakeEnv) -> None:
    first = sent(env, on_unconfirmed="resubmit")
    found = lifecycle.begin(first, env, CALLS_BACK).tasks[0]
    second = lifecycle.begin(found, env, CALLS_BACK).tasks[0]
    change = lifecycle.advance(second, NotSent(reason="refused"), "submit", env, CALLS_BACK, lease=first.lease)
    assert change.outcome == "stale" and change.tasks[0].step == "sending"


@pytest.mark.parametrize(
    ("observation", "code"),
    [(NotSent(reason="refused"), "provider_unavailable"), (Throttled(reason="429"), "rate_limited")],
)
def test_a_submit_that_did_not_arrive_is_tried_until_the_deadline(
    env: FakeEnv, observation: NotSent | Throttled, code: str
) -> None:
    task = lifecycle.advance(sent(env), observation, "submit", env, CALLS_BACK).tasks[0]
    assert (task.step, task.status) == ("submit", "queued")
    env.pass_time(900)
    ended = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    assert ended.error is not None and (ended.error.code, ended.error.retryable) == (code, True)


def test_being_throttled_rests_the_whole_account_as_long_as_the_provider_asks(env: FakeEnv) -> None:
    change = lifecycle.advance(sent(env), Throttled(reason="429", retry_after_s=30), "submit", env, CALLS_BACK)
    assert (change.pauses[0].until - env.now()).total_seconds() == 30


def test_a_task_that_never_found_room_times_out(env: FakeEnv) -> None:
    task = make_task(env)
    env.pass_time(901)
    change = lifecycle.begin(task, env, CALLS_BACK)
    assert change.tasks[0].error is not None and change.tasks[0].error.code == "timeout"


def test_the_first_poll_of_a_task_with_callbacks_waits_for_the_grace(env: FakeEnv) -> None:
    task = running(env)
    assert task.due_at is not None and (task.due_at - env.now()).total_seconds() == CALLS_BACK.grace_s


def test_polls_grow_by_half_up_to_the_maximum(env: FakeEnv) -> None:
    task, waits = running(env, POLL_ONLY), []
    for _ in range(8):
        assert task.due_at is not None
        waits.append((task.due_at - env.now()).total_seconds())
        env.pass_time(waits[-1])
        task = lifecycle.advance(task, Pending(), "poll", env, POLL_ONLY).tasks[0]
    assert waits == [2.0, 3.0, 4.5, 6.75, 10.125, 15.0, 15.0, 15.0]


def test_at_the_deadline_one_last_poll_is_made_and_then_it_times_out(env: FakeEnv) -> None:
    task = running(env)
    env.pass_time(900)
    begun = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    assert begun.step == "tracking" and begun.status == "running"
    ended = lifecycle.advance(begun, Pending(), "poll", env, CALLS_BACK).tasks[0]
    assert ended.error is not None and (ended.error.code, ended.via) == ("timeout", "deadline")


def test_the_last_poll_can_still_bring_the_result(env: FakeEnv) -> None:
    task = running(env)
    env.pass_time(900)
    begun = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    assert lifecycle.advance(begun, picture(), "poll", env, CALLS_BACK).tasks[0].status == "succeeded"


def test_a_task_the_provider_does_not_know_any_more_has_expired(env: FakeEnv) -> None:
    task = running(env)
    env.pass_time(900)
    ended = lifecycle.advance(task, NotFound(reason="404"), "poll", env, CALLS_BACK).tasks[0]
    assert ended.error is not None and ended.error.code == "expired_result"


def test_a_404_just_after_the_submit_is_waited_out(env: FakeEnv) -> None:
    task = lifecycle.advance(running(env, POLL_ONLY), NotFound(reason="404"), "poll", env, POLL_ONLY).tasks[0]
    assert task.status == "running" and task.due_at is not None


def test_a_refusal_keeps_the_providers_reason(env: FakeEnv) -> None:
    change = lifecycle.advance(sent(env), refusal(), "submit", env, CALLS_BACK)
    assert types(change) == ["task.failed"] and change.tasks[0].via == "submit"


def test_the_same_callback_again_changes_nothing(env: FakeEnv) -> None:
    done = lifecycle.advance(running(env), picture(provider_task_id="p1"), "callback", env, CALLS_BACK).tasks[0]
    again = lifecycle.advance(done, picture(provider_task_id="p1"), "callback", env, CALLS_BACK)
    assert again.outcome == "duplicate" and not again.events
    assert again.tasks[0].result == done.result and again.tasks[0].callbacks == 2


def test_a_contradiction_after_the_end_changes_nothing(env: FakeEnv) -> None:
    done = lifecycle.advance(running(env), picture(provider_task_id="p1"), "callback", env, CALLS_BACK).tasks[0]
    again = lifecycle.advance(done, refusal(provider_task_id="p1"), "callback", env, CALLS_BACK)
    assert again.tasks[0].status == "succeeded" and not again.events


@pytest.mark.parametrize("via", ["callback", "poll", "submit"])
def test_a_result_after_another_end_is_kept_and_published_once(env: FakeEnv, via: str) -> None:
    canceled = lifecycle.cancel(running(env), env).tasks[0]
    change = lifecycle.advance(canceled, picture(provider_task_id="p1"), via, env, CALLS_BACK)
    assert (change.outcome, types(change)) == ("late", ["task.late_result"])
    kept = change.tasks[0]
    assert kept.status == "canceled" and kept.result is None and kept.late_result is not None
    assert not lifecycle.advance(kept, picture(provider_task_id="p1"), via, env, CALLS_BACK).events


def test_a_callback_about_another_task_is_refused_and_the_task_polled_at_once(env: FakeEnv) -> None:
    change = lifecycle.advance(running(env), picture(provider_task_id="other"), "callback", env, CALLS_BACK)
    assert change.outcome == "mismatch" and change.tasks[0].status == "running"
    assert change.tasks[0].due_at == env.now()


def test_an_unreadable_callback_makes_the_task_polled_at_once(env: FakeEnv) -> None:
    change = lifecycle.advance(running(env), Unreadable(reason="no JSON"), "callback", env, CALLS_BACK)
    assert change.outcome == "unreadable" and change.tasks[0].due_at == env.now()


def test_an_unreadable_callback_about_a_task_without_an_id_is_written_down_alone(env: FakeEnv) -> None:
    task = sent(env)
    change = lifecycle.advance(task, Unreadable(reason="no JSON"), "callback", env, CALLS_BACK)
    assert change.outcome == "unreadable"
    assert (change.tasks[0].step, change.tasks[0].due_at) == ("sending", task.due_at)


def test_in_confirm_mode_a_callback_is_a_hint_and_the_poll_counts(env: FakeEnv) -> None:
    confirm = replace(CALLS_BACK, confirm=True)
    change = lifecycle.advance(running(env, confirm), picture(provider_task_id="p1"), "callback", env, confirm)
    assert change.outcome == "hint" and change.tasks[0].status == "running" and change.tasks[0].due_at == env.now()
    ended = lifecycle.advance(change.tasks[0], refusal(), "poll", env, confirm).tasks[0]
    assert (ended.status, ended.via) == ("failed", "poll")


def test_in_confirm_mode_an_early_callback_is_not_believed_either(env: FakeEnv) -> None:
    confirm = replace(CALLS_BACK, confirm=True)
    change = lifecycle.advance(sent(env, confirm), picture(provider_task_id="p1"), "callback", env, confirm)
    assert change.tasks[0].step == "tracking" and change.tasks[0].status == "running"


def test_a_blocking_provider_runs_the_task_while_it_holds_the_connection(env: FakeEnv) -> None:
    change = lifecycle.begin(make_task(env), env, BLOCKING)
    assert change.tasks[0].status == "running" and types(change) == ["task.running"]
    assert lifecycle.advance(change.tasks[0], picture(), "submit", env, BLOCKING).tasks[0].via == "submit"


def test_a_final_task_can_not_be_canceled(env: FakeEnv) -> None:
    done = lifecycle.advance(running(env), picture(), "poll", env, CALLS_BACK).tasks[0]
    with pytest.raises(Conflict, match="succeeded"):
        lifecycle.cancel(done, env)


def test_canceling_twice_is_once(env: FakeEnv) -> None:
    canceled = lifecycle.cancel(running(env), env)
    assert types(canceled) == ["task.canceled"]
    assert lifecycle.cancel(canceled.tasks[0], env).outcome == "duplicate"


def test_erasing_leaves_ids_states_and_times(env: FakeEnv) -> None:
    task = running(env, metadata={"order": "7"}, webhook_url="https://example.com/secret")
    with pytest.raises(Conflict):
        lifecycle.erase(task, env)
    done = lifecycle.advance(task, picture("https://cdn.example/secret.png"), "poll", env, CALLS_BACK).tasks[0]
    done = replace(done, setback=TaskError(code="rate_limited", message="busy with your secret"))
    erased = lifecycle.erase(done, env)
    text = msgspec.json.encode(erased).decode()
    assert not [word for word in ("lighthouse", "secret", "order") if word in text]
    assert (erased.id, erased.status, erased.finished_at) == (done.id, "succeeded", done.finished_at)


def test_a_sender_that_repeats_itself_does_not_fill_the_timeline(env: FakeEnv) -> None:
    task = lifecycle.cancel(running(env), env).tasks[0]
    for _ in range(lifecycle.TIMELINE_MAX + 5):
        change = lifecycle.advance(task, refusal(), "callback", env, CALLS_BACK)
        task = change.tasks[0]
    assert task.entries == lifecycle.TIMELINE_MAX and not change.timeline
    assert task.callbacks == lifecycle.TIMELINE_MAX + 5


def test_a_resubmitted_task_that_runs_out_of_time_says_that_it_may_have_been_charged(env: FakeEnv) -> None:
    task = sent(env, on_unconfirmed="resubmit")
    task = lifecycle.advance(task, Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    task = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    task = lifecycle.advance(task, Throttled(reason="429"), "submit", env, CALLS_BACK).tasks[0]
    env.pass_time(900)
    ended = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    assert ended.error is not None and ended.error.code == "submit_unconfirmed"


def test_a_job_accepted_after_the_cancel_can_still_be_found_at_the_provider(env: FakeEnv) -> None:
    canceled = lifecycle.cancel(sent(env), env).tasks[0]
    change = lifecycle.advance(canceled, Accepted(provider_task_id="p1", cost=10), "submit", env, CALLS_BACK)
    assert change.tasks[0].provider_task_id == "p1" and change.tasks[0].status == "canceled"
    assert change.timeline[0].detail["cost"] == 10


def test_a_broken_callback_before_the_submits_answer_makes_the_first_poll_come_at_once(env: FakeEnv) -> None:
    task = lifecycle.advance(sent(env), Unreadable(reason="no JSON"), "callback", env, CALLS_BACK).tasks[0]
    task = lifecycle.advance(task, Accepted(provider_task_id="p1"), "submit", env, CALLS_BACK).tasks[0]
    assert task.due_at == env.now()


def test_a_poll_that_is_told_to_come_later_rests_the_account_too(env: FakeEnv) -> None:
    told = Unreadable(reason="HTTP 503", retry_after_s=30)
    change = lifecycle.advance(running(env, POLL_ONLY), told, "poll", env, POLL_ONLY)
    assert (change.pauses[0].until - env.now()).total_seconds() == 30


def test_a_task_that_a_callback_names_before_it_is_sent_again_is_polled_instead(env: FakeEnv) -> None:
    task = sent(env, on_unconfirmed="resubmit")
    waiting = lifecycle.advance(task, Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    assert waiting.step == "submit"
    named = lifecycle.advance(waiting, Pending(provider_task_id="p1"), "callback", env, CALLS_BACK).tasks[0]
    assert (named.step, named.status, named.provider_task_id) == ("tracking", "running", "p1")


def test_a_task_that_can_not_be_polled_waits_for_its_callback_until_the_deadline(env: FakeEnv) -> None:
    callbacks_alone = replace(CALLS_BACK, polling=False)
    task = running(env, callbacks_alone)
    assert task.due_at == task.deadline_at
    env.pass_time(900)
    ended = lifecycle.begin(task, env, callbacks_alone).tasks[0]
    assert ended.error is not None and (ended.error.code, ended.via) == ("timeout", "deadline")


def test_a_task_that_may_have_arrived_once_ends_unconfirmed_though_it_was_to_be_sent_again(env: FakeEnv) -> None:
    task = sent(env, on_unconfirmed="resubmit")
    task = lifecycle.advance(task, Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    env.pass_time(5)
    task = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    task = lifecycle.advance(task, Throttled(reason="429"), "submit", env, CALLS_BACK).tasks[0]
    env.pass_time(900)
    ended = lifecycle.begin(task, env, CALLS_BACK).tasks[0]
    assert ended.error is not None and ended.error.code == "submit_unconfirmed"


def test_a_caller_who_wants_to_know_has_the_task_polled_at_once(env: FakeEnv) -> None:
    task = running(env)
    assert task.due_at is not None and task.due_at > env.now()
    change = lifecycle.look_now(task, env, CALLS_BACK)
    asked = change.tasks[0]
    assert (asked.due_at, asked.wait_s, asked.status) == (env.now(), task.wait_s, "running")
    assert [entry.type for entry in change.timeline] == ["poll.requested"]
    assert change.events == ()


def test_what_has_no_poll_is_not_polled_on_request_either(env: FakeEnv) -> None:
    final = lifecycle.cancel(running(env), env).tasks[0]
    for task, policy, reason in (
        (final, CALLS_BACK, "is canceled"),
        (running(env, BLOCKING), BLOCKING, "can't be polled"),
        (make_task(env), CALLS_BACK, "not accepted the task yet"),
        (sent(env), CALLS_BACK, "not accepted the task yet"),
    ):
        with pytest.raises(Conflict, match=reason):
            lifecycle.look_now(task, env, policy)


def test_a_broken_callback_that_names_the_task_has_it_polled_and_not_sent_again(env: FakeEnv) -> None:
    task = sent(env, on_unconfirmed="resubmit")
    waiting = lifecycle.advance(task, Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    told = Unreadable(reason="no picture", provider_task_id="p1")
    change = lifecycle.advance(waiting, told, "callback", env, CALLS_BACK)
    named = change.tasks[0]
    assert change.outcome == "unreadable"
    assert (named.step, named.provider_task_id, named.due_at) == ("tracking", "p1", env.now())


def test_a_broken_callback_about_another_task_is_a_mismatch(env: FakeEnv) -> None:
    told = Unreadable(reason="no picture", provider_task_id="another")
    assert lifecycle.advance(running(env), told, "callback", env, CALLS_BACK).outcome == "mismatch"


@pytest.mark.parametrize("observation", [NotSent, Throttled])
def test_a_submit_that_is_told_to_come_later_rests_the_account_too(
    env: FakeEnv, observation: type[NotSent | Throttled]
) -> None:
    told = observation(reason="HTTP 503", retry_after_s=30)
    change = lifecycle.advance(sent(env), told, "submit", env, CALLS_BACK)
    assert (change.pauses[0].until - env.now()).total_seconds() == 30


def test_a_submit_that_did_not_arrive_rests_nothing_else(env: FakeEnv) -> None:
    assert not lifecycle.advance(sent(env), NotSent(reason="refused"), "submit", env, CALLS_BACK).pauses


@pytest.mark.parametrize(
    ("hindrance", "code"), [("limit", "timeout"), ("rest", "rate_limited"), ("circuit", "provider_unavailable")]
)
def test_a_task_that_was_never_sent_says_what_its_account_waited_for(
    env: FakeEnv, hindrance: Hindrance, code: str
) -> None:
    task = make_task(env)
    env.pass_time(900)
    ended = lifecycle.begin(task, env, CALLS_BACK, hindrance).tasks[0]
    assert ended.error is not None and (ended.error.code, ended.error.retryable) == (code, True)
    assert ended.error.message.startswith("It was not sent before its deadline: ")


def test_a_cancel_says_that_the_provider_goes_on(env: FakeEnv) -> None:
    assert lifecycle.cancel(running(env), env).tasks[0].provider_cancel == "unsupported"
    assert lifecycle.cancel(sent(env), env).tasks[0].provider_cancel == "unsupported"


def test_a_cancel_before_the_submit_concerns_no_provider(env: FakeEnv) -> None:
    assert lifecycle.cancel(make_task(env), env).tasks[0].provider_cancel is None
    throttled = lifecycle.advance(sent(env), Throttled(reason="429"), "submit", env, CALLS_BACK).tasks[0]
    assert lifecycle.cancel(throttled, env).tasks[0].provider_cancel is None


def test_a_cancel_of_a_task_that_waits_for_a_second_submit_in_doubt_concerns_its_provider(env: FakeEnv) -> None:
    task = sent(env, on_unconfirmed="resubmit")
    in_doubt = lifecycle.advance(task, Unconfirmed(reason="reset"), "submit", env, CALLS_BACK).tasks[0]
    assert in_doubt.step == "submit"
    assert lifecycle.cancel(in_doubt, env).tasks[0].provider_cancel == "unsupported"
