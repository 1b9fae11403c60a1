"""Which endpoints an event is for."""

from typing import Any

import pytest

from service.core.delivery import EndpointFilter, fan_out, matches
from service.core.event import Event
from tests.support.env import FakeEnv
from tests.support.factory import make_endpoint


def make_event(env: FakeEnv, **changes: object) -> Event:
    values = {
        "id": env.new_id("event"),
        "type": "task.succeeded",
        "at": env.now(),
        "data": b"{}",
        "task_id": "task_1",
        "provider": "acedata",
        "model": "flux-kontext-pro",
        "metadata": {"order": "7", "shop": "a"},
    }
    return Event(**{**values, **changes})


@pytest.mark.parametrize(
    ("events", "kind", "wanted"),
    [
        (("task.*",), "task.failed", True),
        (("task.*",), "task.running", False),
        (("task.*",), "task.late_result", False),
        (("task.running",), "task.running", True),
        (("task.failed",), "task.succeeded", False),
        (("endpoint.*",), "endpoint.disabled", True),
        (("task.*",), "endpoint.disabled", False),
    ],
)
def test_wildcards_stand_for_all_but_what_has_to_be_asked_for(events: tuple[str, ...], kind: str, wanted: bool) -> None:
    env = FakeEnv()
    about = {} if kind.startswith("task") else {"task_id": None, "provider": None, "metadata": {}}
    assert matches(make_endpoint(env, events=events), make_event(env, type=kind, **about)) is wanted


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"providers": ("acedata",)}, True),
        ({"providers": ("fluxapi-ai",)}, False),
        ({"metadata": {"order": "7"}}, True),
        ({"metadata": {"order": "7", "shop": "b"}}, False),
        ({"metadata": {"missing": ""}}, False),
        ({"models": ("flux-kontext-pro",)}, True),
        ({"models": ("flux-kontext-max", "acedata/flux-kontext-pro")}, True),
        ({"models": ("fluxapi-ai/flux-kontext-pro",)}, False),
        ({"accounts": ("default",)}, True),
        ({"accounts": ("second",)}, False),
        ({"providers": ("acedata",), "models": ("flux-kontext-max",)}, False),
    ],
)
def test_a_filter_selects_events_by_the_task_they_are_about(filters: dict[str, Any], wanted: bool) -> None:
    env = FakeEnv()
    assert matches(make_endpoint(env, filter=EndpointFilter(**filters)), make_event(env)) is wanted


def test_metadata_of_an_endpoint_filters_nothing() -> None:
    env = FakeEnv()
    assert matches(make_endpoint(env, metadata={"team": "data"}), make_event(env))


def test_a_filter_for_tasks_lets_events_about_other_endpoints_through() -> None:
    env = FakeEnv()
    wanted = EndpointFilter(providers=("acedata",), models=("x",), accounts=("x",), metadata={"order": "7"})
    event = make_event(env, type="endpoint.failing", task_id=None, provider=None, model=None, metadata={})
    assert matches(make_endpoint(env, events=("endpoint.*",), filter=wanted), event)


def test_an_endpoint_is_not_told_about_itself() -> None:
    env = FakeEnv()
    one, other = make_endpoint(env, events=("endpoint.*",)), make_endpoint(env, events=("endpoint.*",))
    event = make_event(env, type="endpoint.failing", task_id=None, subject_id=one.id)
    assert [delivery.endpoint_id for delivery in fan_out(event, (one, other), env)] == [other.id]


def test_a_disabled_endpoint_has_its_events_held() -> None:
    env = FakeEnv()
    (delivery,) = fan_out(make_event(env), (make_endpoint(env, enabled=False),), env)
    assert (delivery.status, delivery.due_at) == ("held", None)


def test_urls_that_differ_in_their_query_alone_share_a_lane() -> None:
    env = FakeEnv()
    lanes = {
        next(fan_out(make_event(env, webhook_url=url), (), env)).lane
        for url in ("https://a.example/1?x=1", "https://a.example/1?x=2", "https://a.example/2")
    }
    assert lanes == {"url:https://a.example/1", "url:https://a.example/2"}
