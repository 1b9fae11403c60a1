"""The circuit breaker: opens after failures in a row, lets one call try, closes when it is answered."""

import pytest

from service.core.breaker import (
    OPENS_AFTER,
    PROBE_LEASE_S,
    REST_FIRST_S,
    REST_MAX_S,
    AccountCall,
    Breaker,
    CallKind,
    after_calls,
    is_answer,
    probe,
)
from service.core.observation import (
    Accepted,
    Failed,
    NotSent,
    Observation,
    Pending,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.task import TaskError
from service.core.times import after
from tests.support.env import FakeEnv


@pytest.fixture
def env() -> FakeEnv:
    return FakeEnv()


def calls(kind: CallKind, answered: bool, count: int = 1) -> list[AccountCall]:
    return [AccountCall(account="p", kind=kind, answered=answered)] * count


def opened(env: FakeEnv, kind: CallKind = "submit") -> Breaker:
    return after_calls(Breaker(), calls(kind, False, OPENS_AFTER), env)


def test_it_opens_after_failures_in_a_row_and_not_before(env: FakeEnv) -> None:
    almost = after_calls(Breaker(), calls("submit", False, OPENS_AFTER - 1), env)
    assert almost.state(env.now()) == "closed"
    assert after_calls(almost, calls("submit", True), env) == Breaker()
    shut = after_calls(almost, calls("poll", False), env)
    assert (shut.state(env.now()), shut.since) == ("open", env.now())
    assert shut.shuts("submit") and shut.shuts("poll")


def test_one_call_tries_it_and_an_answer_closes_it(env: FakeEnv) -> None:
    shut = opened(env)
    assert not shut.is_due(env.now())
    env.pass_time(REST_FIRST_S)
    assert shut.is_due(env.now()) and shut.state(env.now()) == "half_open"
    tried = probe(shut, env)
    assert not tried.is_due(env.now()) and tried.state(env.now()) == "half_open"
    assert after_calls(tried, calls("submit", True), env) == Breaker()


def test_each_probe_that_fails_doubles_the_rest_up_to_its_maximum(env: FakeEnv) -> None:
    breaker = opened(env)
    for rest_s in (10, 20, 40, 60, 60):
        env.pass_time(REST_MAX_S)
        breaker = after_calls(probe(breaker, env), calls("submit", False), env)
        assert breaker.probe_at == after(env.now(), rest_s)


def test_a_probe_that_was_never_heard_of_is_made_again(env: FakeEnv) -> None:
    breaker = opened(env)
    env.pass_time(REST_FIRST_S)
    breaker = probe(breaker, env)
    env.pass_time(PROBE_LEASE_S)
    assert breaker.is_due(env.now())


def test_a_clock_that_was_ahead_makes_it_rest_no_longer(env: FakeEnv) -> None:
    breaker = opened(env)
    env.pass_time(-3600)
    assert breaker.is_due(env.now())


def test_stragglers_neither_close_nor_prolong_it(env: FakeEnv) -> None:
    breaker = opened(env)
    later = after_calls(breaker, calls("submit", False, 50), env)
    assert (later.since, later.probe_at, later.probes) == (breaker.since, breaker.probe_at, 0)


def test_while_polls_are_answered_only_submits_wait(env: FakeEnv) -> None:
    breaker = opened(env)
    assert breaker.shuts("submit") and not breaker.shuts("poll")
    assert after_calls(breaker, calls("poll", True), env).shuts("submit")


def test_an_answered_poll_has_a_submit_tried_next(env: FakeEnv) -> None:
    breaker = after_calls(opened(env), calls("poll", False), env)
    env.pass_time(REST_FIRST_S)
    breaker = after_calls(probe(breaker, env), calls("poll", True), env)
    assert breaker.shuts("submit") and not breaker.shuts("poll") and breaker.is_due(env.now())
    assert after_calls(probe(breaker, env), calls("submit", True), env) == Breaker()


@pytest.mark.parametrize(
    ("observation", "status", "answered"),
    [
        (Accepted(provider_task_id="x"), 200, True),
        (Pending(), 200, True),
        (Failed(error=TaskError(code="invalid_request", message="no")), 400, True),
        (Failed(error=TaskError(code="provider_error", message="no")), 500, False),
        (Throttled(reason="HTTP 429"), 429, True),
        (Unreadable(reason="HTTP 404"), 404, True),
        (Unreadable(reason="no JSON"), 200, False),
        (Unreadable(reason="timed out"), None, False),
        (NotSent(reason="connection refused"), None, False),
        (NotSent(reason="maintenance"), 200, False),
        (Unconfirmed(reason="HTTP 502"), 502, False),
    ],
)
def test_refusing_a_task_is_an_answer_and_an_error_page_is_none(
    observation: Observation, status: int | None, answered: bool
) -> None:
    assert is_answer(observation, status) is answered
