"""A row that fails: later each time, then parked."""

import msgspec
import pytest

from service.core.fault import FORGET_S, PARK_AFTER, Fault, fail_again
from service.core.times import after
from tests.support.env import FakeEnv


@pytest.fixture
def env() -> FakeEnv:
    return FakeEnv()


def fail(env: FakeEnv, times: int, subject_id: str = "task_1") -> Fault:
    fault = fail_again(None, subject_id, ValueError("a prompt"), env)
    for _ in range(times - 1):
        fault = fail_again(fault, subject_id, ValueError("a prompt"), env)
    return fault


def test_it_is_due_later_each_time_and_then_parked(env: FakeEnv) -> None:
    waits = [fail(env, times).due_at for times in range(1, PARK_AFTER)]
    assert waits == [after(env.now(), seconds) for seconds in (0.5, 1, 2, 4)]
    parked = fail(env, PARK_AFTER)
    assert (parked.due_at, parked.parked_at) == (None, env.now())


def test_what_went_well_for_long_starts_afresh(env: FakeEnv) -> None:
    fault = fail(env, PARK_AFTER - 1)
    env.pass_time(FORGET_S + 1)
    assert fail_again(fault, "task_1", ValueError(), env).failures == 1


def test_an_endpoint_that_cannot_be_read_is_parked_at_once(env: FakeEnv) -> None:
    assert fail(env, 1, "ep_1").parked_at == env.now()


def test_the_reason_repeats_nothing_that_is_stored(env: FakeEnv) -> None:
    assert fail(env, 1).reason == "ValueError"
    broken = fail_again(None, "task_1", msgspec.DecodeError("JSON is malformed: byte 5"), env)
    assert broken.reason == "DecodeError: JSON is malformed: byte 5"
