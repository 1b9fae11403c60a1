"""The client against a real server that loses answers, is busy, and cuts its stream."""

from collections.abc import Iterator
from itertools import islice

import pytest

from service.client import (
    ApiError,
    Client,
    StreamNotice,
    Unreachable,
    parse_frames,
    split_lines,
)
from tests.support.stand_in import KEY, StandIn, closed_port, make_task

REQUEST = {"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": "a lighthouse"}}


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with StandIn() as service:
        yield service


@pytest.fixture
def service(running: StandIn) -> StandIn:
    running.reset()
    return running


@pytest.fixture
def client(service: StandIn) -> Iterator[Client]:
    with Client(service.url, KEY) as client:
        yield client


def test_a_lost_answer_is_asked_for_again_and_makes_no_second_task(service: StandIn, client: Client) -> None:
    service.lose_answers = 2
    assert client.submit(REQUEST)["id"] == "task_0001"
    keys = {headers["idempotency-key"] for _, _, headers, _ in service.requests}
    assert len(service.requests) == 3
    assert len(keys) == 1
    assert len(service.tasks) == 1


def test_every_submit_has_its_own_idempotency_key(service: StandIn, client: Client) -> None:
    assert client.submit(REQUEST)["id"] != client.submit(REQUEST)["id"]


def test_a_busy_service_is_asked_again(service: StandIn, client: Client) -> None:
    service.answer_busy = 2
    assert client.submit(REQUEST)["status"] == "queued"


def test_a_service_that_stays_busy_is_an_error(service: StandIn, client: Client) -> None:
    service.answer_busy = 9
    with pytest.raises(ApiError) as caught:
        client.submit(REQUEST)
    assert caught.value.status == 503


def test_a_refusal_names_the_fields(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit({"model": "m", "input": {"prompt": "x", "n": 9}})
    assert (caught.value.status, caught.value.title) == (422, "Invalid request")
    assert caught.value.errors == [{"loc": ["body", "input", "n"], "msg": "at most 4"}]
    assert "422 Invalid request: the request can't work" in str(caught.value)


def test_a_missing_key_is_an_api_error(service: StandIn) -> None:
    with Client(service.url) as client, pytest.raises(ApiError, match="401"):
        client.get("task_1")


def test_nobody_there_is_told_at_once() -> None:
    with closed_port() as url, Client(url, KEY) as client, pytest.raises(Unreachable, match="refused") as caught:
        client.submit(REQUEST)
    assert caught.value.url == url


def test_something_else_there_is_no_taskhook(service: StandIn) -> None:
    with Client(f"{service.url}/other?", KEY) as client, pytest.raises(Unreachable, match="not as Taskhook does"):
        client._get("")


def test_a_task_is_followed_through_its_states(service: StandIn, client: Client) -> None:
    task = client.submit(REQUEST)
    statuses = [found["status"] if found else "away" for found in client.follow(task["id"])]
    assert statuses == ["queued", "running", "succeeded"]


def test_following_ends_with_its_time(client: Client) -> None:
    task = client.submit({"model": "m", "input": {"prompt": "stuck"}})
    found = list(client.follow(task["id"], wait_s=0.2))
    assert found
    assert all(entry and entry["status"] == "queued" for entry in found)


def test_following_outlives_a_service_that_is_away_for_a_moment() -> None:
    with StandIn() as service:
        client = Client(service.url, KEY)
        follower = client.follow(client.submit({"model": "m", "input": {"prompt": "stuck"}})["id"])
        assert next(follower)
    assert next(follower) is None
    client.close()


def test_a_list_reads_all_its_pages(service: StandIn, client: Client) -> None:
    for number in range(205):
        service.tasks[f"task_{number}"] = make_task(f"task_{number}", REQUEST)
    assert len(list(client.list())) == 205
    assert service.paths("GET") == [f"/v1/tasks?limit=100{more}" for more in ("", "&cursor=100", "&cursor=200")]


def test_a_limit_asks_for_no_more_than_it_needs(service: StandIn, client: Client) -> None:
    for number in range(5):
        service.tasks[f"task_{number}"] = make_task(f"task_{number}", REQUEST)
    found = list(client.list({"provider": "fluxapi-ai"}, limit=2))
    assert [task["id"] for task in found] == ["task_4", "task_3"]
    assert service.paths("GET") == ["/v1/tasks?provider=fluxapi-ai&limit=2"]


def test_what_belongs_to_a_task_can_be_read(service: StandIn, client: Client) -> None:
    task_id = client.submit(REQUEST)["id"]
    service.add_event("task.running", service.tasks[task_id])
    assert next(client.timeline(task_id))["type"] == "task.submitted"
    assert client.why(task_id)["next"] == "Its callback is awaited."
    assert next(client.deliveries(task_id))["id"] == "dlv_1"
    assert next(client.endpoints())["id"] == "ep_1"
    assert next(client.events())["id"] == "evt_0001"
    assert client.cancel(task_id)["status"] == "canceled"


def test_a_cut_stream_resumes_without_a_gap_and_without_a_repetition(service: StandIn, client: Client) -> None:
    for number in range(6):
        service.add_event("task.succeeded", {"id": f"task_{number}"})
    service.stream_cuts = [2, 0, 3]
    notices: list[StreamNotice] = []
    events = list(islice(client.stream_events(on_notice=notices.append), 6))
    assert [event.id for event in events] == [f"evt_000{number}" for number in range(1, 7)]
    assert events[0].type == "task.succeeded"
    assert events[0].body == service.events[0]
    assert service.stream_opened == [None, "evt_0002", "evt_0002", "evt_0005"]
    assert [notice.connected for notice in notices] == [True, False, True, False, True, False, True]
    assert [notice.first for notice in notices if notice.connected] == [True, False, False, False]
    assert all(notice.pause_s < 0.1 for notice in notices), "the server said retry: 10"


def test_a_stream_can_begin_after_an_event(service: StandIn, client: Client) -> None:
    service.add_event("task.failed", {})
    service.add_event("task.failed", {})
    assert next(client.stream_events(last_event_id="evt_0001", task_id="task_1")).id == "evt_0002"
    assert service.paths("GET") == ["/v1/events/stream?task_id=task_1"]


def test_a_refused_stream_is_not_tried_again(service: StandIn) -> None:
    with Client(service.url, "wrong") as client, pytest.raises(ApiError, match="401"):
        next(client.stream_events())


def test_a_stream_to_nobody_is_unreachable() -> None:
    with closed_port() as url, Client(url) as client, pytest.raises(Unreachable):
        next(client.stream_events())


def test_lines_end_as_the_standard_says_whatever_the_chunks() -> None:
    text = "\ufeffa\r\nb\rc\n\nd\u2028e\x0bf\n".encode()
    whole = ["a", "b", "c", "", "d\u2028e\x0bf"]
    assert list(split_lines([text])) == whole
    assert list(split_lines(bytes([byte]) for byte in text)) == whole
    assert list(split_lines([b"a\r", b"", b"\nb\n"])) == ["a", "b"]


def test_frames_follow_the_standard() -> None:
    text = b": comment\n\ndata: a\ndata:  b\nid: 1\nid: 2\x003\nevent: x\nretry: 5\n\nid: 7\n\ndata: unfinished"
    assert list(parse_frames([text])) == [{"data": "a\n b", "id": "1", "event": "x", "retry": "5"}, {"id": "7"}]
