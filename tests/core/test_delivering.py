"""An attempt changes the delivery's schedule and its endpoint's health."""

import pytest
from msgspec.structs import replace

from service.core import delivering
from service.core.change import Change
from service.core.delivering import Outcome
from service.core.delivery import Delivery, DeliveryStatus, Endpoint, Resume
from service.core.problems import Conflict
from service.core.schedule import RETRY_SCHEDULE_S
from service.core.times import after, rfc3339
from tests.support.env import FakeEnv
from tests.support.factory import make_delivery, make_endpoint


@pytest.fixture
def env() -> FakeEnv:
    return FakeEnv()


def received(env: FakeEnv) -> Outcome:
    return Outcome(at=env.now(), received=True, status_code=204, duration_ms=3)


def refused(env: FakeEnv, status: int = 500, retry_after: str | None = None) -> Outcome:
    return Outcome(
        at=env.now(), received=False, status_code=status, duration_ms=3, error=f"HTTP {status}", retry_after=retry_after
    )


def attempt(delivery: Delivery, endpoint: Endpoint | None, outcome: Outcome, env: FakeEnv) -> Change:
    return delivering.after_attempt(delivery, endpoint, outcome, delivery.lease, env, RETRY_SCHEDULE_S)


def fail_often(env: FakeEnv, endpoint: Endpoint, times: int) -> tuple[Endpoint, list[str]]:
    events = []
    for _ in range(times):
        delivery = make_delivery(env, endpoint_id=endpoint.id, lane=endpoint.id)
        change = attempt(delivery, endpoint, refused(env), env)
        endpoint, events = change.endpoints[0], events + [event.type for event in change.events]
    return endpoint, events


def test_a_2xx_ends_the_delivery_and_writes_nothing_about_a_healthy_endpoint(env: FakeEnv) -> None:
    endpoint = make_endpoint(env)
    change = attempt(make_delivery(env, endpoint_id=endpoint.id), endpoint, received(env), env)
    assert change.deliveries[0].status == "succeeded" and change.attempts[0].number == 1
    assert not change.endpoints


@pytest.mark.parametrize("jitter", [0.9, 1.0, 1.1])
def test_the_schedule_is_followed_to_its_end(env: FakeEnv, monkeypatch: pytest.MonkeyPatch, jitter: float) -> None:
    monkeypatch.setattr(env, "jitter", lambda seconds: seconds * jitter)
    delivery, waits = make_delivery(env), []
    while delivery.status == "sending":
        delivery = attempt(delivery, None, refused(env), env).deliveries[0]
        if delivery.due_at is not None:
            waits.append((delivery.due_at - env.now()).total_seconds())
            env.pass_time(waits[-1])
            delivery = delivering.begin(delivery, env, 40)
    assert waits == pytest.approx([seconds * jitter for seconds in RETRY_SCHEDULE_S])
    assert (delivery.status, delivery.attempts) == ("failed", len(RETRY_SCHEDULE_S) + 1)


@pytest.mark.parametrize(
    ("header", "seconds"), [("90", 90), ("999999999", 86_400), ("-5", 5), ("2", 5), ("soon", 5), ("0", 5), ("nan", 5)]
)
def test_retry_after_moves_the_next_attempt_later_only(env: FakeEnv, header: str, seconds: float) -> None:
    delivery = attempt(make_delivery(env), None, refused(env, 503, header), env).deliveries[0]
    assert delivery.due_at is not None and (delivery.due_at - env.now()).total_seconds() == seconds


def test_410_ends_the_delivery_to_a_tasks_own_url(env: FakeEnv) -> None:
    assert attempt(make_delivery(env), None, refused(env, 410), env).deliveries[0].status == "failed"


def test_410_disables_the_endpoint_and_holds_what_it_has_waiting(env: FakeEnv) -> None:
    endpoint = make_endpoint(env)
    change = attempt(make_delivery(env, endpoint_id=endpoint.id), endpoint, refused(env, 410), env)
    assert change.deliveries[0].status == "held" and change.holds == (endpoint.id,)
    assert [event.type for event in change.events] == ["endpoint.disabled"] and not change.endpoints[0].enabled


def test_an_endpoint_is_called_failing_once_after_four_failures_in_a_row(env: FakeEnv) -> None:
    endpoint, events = fail_often(env, make_endpoint(env), 6)
    assert events == ["endpoint.failing"] and endpoint.failures == 6


def test_the_next_success_recovers_it(env: FakeEnv) -> None:
    endpoint, _ = fail_often(env, make_endpoint(env), 4)
    change = attempt(make_delivery(env, endpoint_id=endpoint.id), endpoint, received(env), env)
    assert [event.type for event in change.events] == ["endpoint.recovered"]
    assert change.endpoints[0].failures == 0 and change.endpoints[0].first_failed_at is None


def test_an_endpoint_without_a_success_for_five_days_is_disabled_once(env: FakeEnv) -> None:
    endpoint, _ = fail_often(env, make_endpoint(env), 1)
    env.pass_time(5 * 86_400 - 1)
    endpoint, events = fail_often(env, endpoint, 1)
    assert endpoint.enabled and not events
    env.pass_time(1)
    endpoint, events = fail_often(env, endpoint, 4)
    assert not endpoint.enabled and events == ["endpoint.disabled", "endpoint.failing"]


def test_one_success_starts_the_five_days_afresh(env: FakeEnv) -> None:
    endpoint, _ = fail_often(env, make_endpoint(env), 1)
    env.pass_time(4 * 86_400)
    endpoint = attempt(make_delivery(env, endpoint_id=endpoint.id), endpoint, received(env), env).endpoints[0]
    env.pass_time(4 * 86_400)
    endpoint, events = fail_often(env, endpoint, 1)
    assert endpoint.enabled and not events


def test_a_retry_by_hand_leaves_the_schedule_as_it_was(env: FakeEnv) -> None:
    delivery = attempt(make_delivery(env), None, refused(env), env).deliveries[0]
    by_hand = delivering.retry(delivery, env).deliveries[0]
    assert by_hand.due_at == env.now()
    after = attempt(delivering.begin(by_hand, env, 40), None, refused(env), env).deliveries[0]
    assert (after.status, after.due_at, after.failures) == ("pending", delivery.due_at, delivery.failures)


def test_a_retry_by_hand_of_what_is_in_flight_sends_nothing_twice(env: FakeEnv) -> None:
    flying = make_delivery(env)
    assert delivering.retry(flying, env).deliveries == (flying,)
    failed = make_delivery(env, status="failed", due_at=None)
    once = delivering.retry(failed, env).deliveries[0]
    assert delivering.retry(once, env).deliveries == (once,)
    after = attempt(delivering.begin(once, env, 40), None, refused(env), env).deliveries[0]
    assert (after.status, after.due_at) == ("failed", None)


@pytest.mark.parametrize(
    ("status", "failures", "by_hand_from", "wanted"),
    [
        ("failed", 14, None, True),
        ("held", 0, None, True),
        ("parked", 0, None, True),
        ("pending", 1, None, True),
        ("pending", 1, "pending", True),
        ("pending", 14, "failed", True),
        ("pending", 0, None, False),
        ("pending", 1, "succeeded", False),
        ("sending", 1, None, False),
        ("succeeded", 1, None, False),
    ],
)
def test_recover_takes_what_was_not_received_and_is_not_on_its_way(
    env: FakeEnv, status: DeliveryStatus, failures: int, by_hand_from: DeliveryStatus | None, wanted: bool
) -> None:
    resume = Resume(status=by_hand_from, due_at=None) if by_hand_from else None
    delivery = make_delivery(env, status=status, failures=failures, resume=resume)
    assert delivering.is_recoverable(delivery) is wanted
    assert not delivering.is_recoverable(delivering.recover(delivery, env)), "asked for twice it is sent once"


def test_what_a_worker_past_its_lease_learned_is_written_down_but_moves_nothing(env: FakeEnv) -> None:
    taken_over = make_delivery(env, lease=2)
    change = delivering.after_attempt(taken_over, None, refused(env), 1, env, RETRY_SCHEDULE_S)
    assert change.outcome == "stale" and change.deliveries[0].status == "sending" and len(change.attempts) == 1
    done = delivering.after_attempt(taken_over, None, received(env), 1, env, RETRY_SCHEDULE_S)
    assert done.deliveries[0].status == "succeeded"


def test_both_secrets_sign_for_a_day_after_a_rotation(env: FakeEnv) -> None:
    endpoint = delivering.rotate(make_endpoint(env, secret="whsec_old"), "whsec_new", env)
    assert endpoint.secrets_at(env.now()) == ("whsec_new", "whsec_old")
    assert endpoint.secrets_at(env.pass_time(86_400)) == ("whsec_new",)


def test_each_replaced_secret_signs_for_its_own_day(env: FakeEnv) -> None:
    endpoint = delivering.rotate(make_endpoint(env, secret="whsec_a"), "whsec_b", env)
    env.pass_time(1)
    endpoint = delivering.rotate(endpoint, "whsec_c", env)
    assert endpoint.secrets_at(env.now()) == ("whsec_c", "whsec_b", "whsec_a")
    assert endpoint.secrets_at(env.pass_time(86_399)) == ("whsec_c", "whsec_b")
    assert endpoint.secrets_at(env.pass_time(1)) == ("whsec_c",)
    assert "whsec_" not in repr(endpoint.older_secrets)


def test_a_rotation_drops_what_no_longer_signs(env: FakeEnv) -> None:
    endpoint = delivering.rotate(make_endpoint(env, secret="whsec_a"), "whsec_b", env)
    env.pass_time(86_400)
    endpoint = delivering.rotate(endpoint, "whsec_c", env)
    assert (endpoint.old_secret, endpoint.older_secrets) == ("whsec_b", ())


def test_a_sixth_rotation_within_a_day_is_refused_until_the_first_secrets_day_is_over(env: FakeEnv) -> None:
    endpoint = make_endpoint(env, secret="whsec_0")
    until = rfc3339(after(env.now(), 86_400))
    for number in range(1, 6):
        endpoint = delivering.rotate(endpoint, f"whsec_{number}", env)
        env.pass_time(1)
    assert len(endpoint.secrets_at(env.now())) == 6
    with pytest.raises(Conflict, match=until):
        delivering.rotate(endpoint, "whsec_6", env)
    env.pass_time(86_400 - 5)
    rotated = delivering.rotate(endpoint, "whsec_6", env)
    assert rotated.secrets_at(env.now()) == tuple(f"whsec_{number}" for number in (6, 5, 4, 3, 2, 1))


def test_enabling_starts_with_a_clean_record(env: FakeEnv) -> None:
    endpoint, _ = fail_often(env, make_endpoint(env), 4)
    disabled = delivering.disable(endpoint, "by request", env)
    enabled = delivering.enable(disabled)
    assert enabled.enabled and enabled.failures == 0 and enabled.disabled_at is None and not enabled.failing


def test_a_removed_endpoint_keeps_no_secret(env: FakeEnv) -> None:
    endpoint = replace(make_endpoint(env), headers={"Authorization": "x"})
    for secret in ("whsec_b", "whsec_c"):
        endpoint = delivering.rotate(endpoint, secret, env)
    removed = delivering.remove(endpoint, env)
    assert (removed.secret, removed.headers, removed.enabled) == ("", {}, False)
    assert (removed.old_secret, removed.older_secrets) == (None, ())


def test_a_delivery_in_flight_to_a_deleted_endpoint_ends_and_says_nothing_of_its_health(env: FakeEnv) -> None:
    removed = delivering.remove(make_endpoint(env, failures=3), env)
    change = attempt(make_delivery(env, endpoint_id=removed.id), removed, refused(env), env)
    assert change.deliveries[0].status == "failed" and not change.endpoints and not change.events
