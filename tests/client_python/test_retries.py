"""Retries: which calls, how often, after which pause; by the plan alone, and over real sockets to a flaky server."""

import asyncio
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from taskhook import (
    APIConnectionError,
    APITimeoutError,
    AsyncTaskhook,
    AuthenticationError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    Task,
    Taskhook,
    WaitTimeoutError,
)
from taskhook import _operations as operations
from taskhook._plan import Attempt, Policy, steps
from taskhook._waiting import until_final

from tests.support.server import Answer, Cut, Hang, Reply, Request, Reset, ScriptedServer
from tests.support.wait import PATIENCE_S

TASK: dict[str, Any] = {
    "id": "task_1",
    "object": "task",
    "status": "queued",
    "provider": "fluxapi-ai",
    "model": "flux-kontext-pro",
    "provider_task_id": None,
    "input": {"prompt": "a cat"},
    "metadata": {},
    "result": None,
    "error": None,
    "tracking": {"via": None, "polls": 0, "callbacks": 0},
    "created_at": "2026-01-01T00:00:00.000Z",
    "submitted_at": None,
    "finished_at": None,
    "deadline_at": "2026-01-01T00:15:00.000Z",
}
FINAL = TASK | {"status": "succeeded", "result": {"outputs": [{"url": "https://x.test/1.png"}]}}
NO_JITTER = Policy(jitter=lambda: 0.0)


class Played:
    """A plan whose requests got these answers: what it came to, and what was asked on the way."""

    def __init__(self, plan: Any, *answers: httpx.Response | Exception, policy: Policy = NO_JITTER) -> None:
        self.attempts: list[Attempt] = []
        todo, left = steps(plan, policy), iter(answers)
        step: Callable[[], Attempt] = lambda: next(todo)  # noqa: E731
        try:
            while True:
                self.attempts.append(step())
                answer = next(left)
                failed = isinstance(answer, Exception)
                step = (lambda a=answer: todo.throw(a)) if failed else (lambda a=answer: todo.send(a))
        except StopIteration as end:
            self.value = end.value
            self.error = None
        except Exception as error:
            self.error = error

    @property
    def pauses(self) -> list[float]:
        return [attempt.pause_s for attempt in self.attempts]


def reply(status: int, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()})


def create() -> Any:
    return operations.create_task(model="m", prompt="a cat")


CUT = httpx.RemoteProtocolError("Server disconnected without sending a response.")
REFUSED = httpx.ConnectError("refused")


def test_pauses_grow_with_jitter_and_obey_the_service() -> None:
    assert Played(create(), CUT, reply(500), reply(202, TASK)).pauses == [0, 0.5, 1.0]
    assert Played(create(), reply(503, retry_after="7"), reply(202, TASK)).pauses == [0, 7]
    assert [Policy(jitter=lambda: 1.0).pause_s(retry) for retry in range(6)] == [0.375, 0.75, 1.5, 3, 6, 6]
    http_date = reply(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")
    assert Played(create(), http_date, reply(202, TASK)).pauses == [0, 0.5], "a time that is over"


def test_who_asks_for_a_long_pause_gets_no_retry_but_the_caller_learns_when() -> None:
    played = Played(create(), reply(429, retry_after="3600"))
    assert isinstance(played.error, RateLimitError) and played.error.retry_after_s == 3600


@pytest.mark.parametrize("answer", [REFUSED, CUT, httpx.ReadTimeout("late"), reply(429), reply(500), reply(503)])
def test_the_last_failure_is_the_error(answer: httpx.Response | Exception) -> None:
    kinds = {REFUSED: APIConnectionError, CUT: APIConnectionError}
    by_status = {429: RateLimitError, 500: InternalServerError, 503: ServiceUnavailableError}
    if isinstance(answer, httpx.Response):
        expected = by_status[answer.status_code]
    else:
        expected = kinds.get(answer, APITimeoutError)
    played = Played(create(), *[answer] * 3)
    assert type(played.error) is expected
    assert len(played.attempts) == 3
    assert len(Played(create(), answer, policy=Policy(max_retries=0)).attempts) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    played = Played(create(), reply(status, {"title": "No", "detail": "because"}))
    assert str(played.error) == f"{status} No: because"


def test_what_could_do_harm_twice_is_tried_again_only_if_it_surely_was_not_done() -> None:
    done = reply(201, {"id": "key_1", "name": "n", "scopes": [], "hint": "h", "created_at": "2026-01-01T00:00:00Z"})
    for failure in (REFUSED, reply(503), reply(429)):
        plan = operations.create_key(name="n", scopes=["admin"])
        assert len(Played(plan, failure, done).attempts) == 2
    for failure in (CUT, reply(500), reply(502), httpx.ReadTimeout("late")):
        plan = operations.create_key(name="n", scopes=["admin"])
        assert len(Played(plan, failure).attempts) == 1


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    assert Played(operations.delete_endpoint("ep_1"), CUT, reply(404)).error is None
    assert isinstance(Played(operations.delete_endpoint("ep_1"), reply(404)).error, NotFoundError)
    assert isinstance(Played(operations.delete_endpoint("ep_1"), REFUSED, reply(404)).error, NotFoundError)


@pytest.mark.parametrize("body", [None, [], {"id": "task_1"}, TASK | {"created_at": "yesterday"}])
def test_an_answer_that_is_no_task_is_an_error_of_ours(body: Any) -> None:
    assert isinstance(Played(operations.retrieve_task("task_1"), reply(200, body)).error, APIConnectionError)


@pytest.mark.parametrize("task_id", ["", "../keys", "a/b?c#d"])
def test_an_id_never_leads_elsewhere(task_id: str) -> None:
    if not task_id:
        with pytest.raises(ValueError, match="empty"):
            next(operations.retrieve_task(task_id))
        return
    path = next(operations.retrieve_task(task_id)).path
    assert path.startswith("/v1/tasks/") and path.count("/") == 3 and "?" not in path and "#" not in path


# Waiting


class Clock:
    """Seconds that pass when somebody looks."""

    def __init__(self, step_s: float) -> None:
        self._ticks: Iterator[float] = itertools.count(0, step_s)

    def __call__(self) -> float:
        return next(self._ticks)


def waits(played: Played) -> list[float]:
    return [float(attempt.request.params["wait"]) for attempt in played.attempts]


def test_a_wait_is_as_many_long_polls_as_it_takes() -> None:
    played = Played(until_final("task_1", None, Clock(20)), *[reply(200, TASK)] * 3, reply(200, FINAL))
    assert isinstance(played.value, Task) and played.value.outputs[0].url
    assert waits(played) == [60, 60, 60, 60]
    assert all(attempt.request.read_timeout_s == 70 for attempt in played.attempts)


def test_a_wait_never_asks_for_longer_than_it_has() -> None:
    played = Played(until_final("task_1", 100, Clock(10)), *[reply(200, TASK)] * 9)
    assert isinstance(played.error, WaitTimeoutError) and played.error.task
    assert waits(played)[0] == 60 and waits(played) == sorted(waits(played), reverse=True) and waits(played)[-1] < 60


def test_a_wait_that_is_answered_early_does_not_ask_at_once_again() -> None:
    played = Played(until_final("task_1", None, Clock(0.01)), reply(200, TASK), reply(200, FINAL))
    assert played.pauses == [0, 0.2]


def test_a_wait_outlives_an_outage_but_not_every_one() -> None:
    played = Played(until_final("task_1", None, Clock(1)), REFUSED, CUT, reply(503, retry_after="3"), reply(200, FINAL))
    assert played.value.status == "succeeded"
    assert played.pauses == [0, 0.2, 0.4, 3]
    gone = Played(until_final("task_1", None, Clock(3)), *[REFUSED] * 30)
    assert isinstance(gone.error, APIConnectionError) and len(gone.attempts) > 2
    assert isinstance(Played(until_final("task_1", None, Clock(1)), reply(401)).error, AuthenticationError)


# Over real sockets


class Flaky:
    """A server that answers by script, then well."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.server = ScriptedServer(self._answer)

    async def _answer(self, request: Request) -> Answer:
        return self.script.pop(0) if self.script else Reply(202, TASK)


@pytest_asyncio.fixture
async def flaky() -> AsyncIterator[Flaky]:
    made = Flaky()
    await made.server.listen()
    yield made
    await made.server.close()


Act = Callable[[Callable[[Any], Any]], Any]


@pytest_asyncio.fixture(params=["sync", "async"])
async def act(request: pytest.FixtureRequest, flaky: Flaky) -> AsyncIterator[Act]:
    """Does something with either client."""
    with Taskhook("key", base_url=flaky.server.url, timeout=PATIENCE_S) as client:
        async with AsyncTaskhook("key", base_url=flaky.server.url, timeout=PATIENCE_S) as async_client:

            async def do(something: Callable[[Any], Any]) -> Any:
                if request.param == "sync":
                    return await asyncio.to_thread(something, client)
                found = something(async_client)
                return await found if inspect.isawaitable(found) else found

            yield do


LOST = Cut(Reply(202, TASK), 40)


async def test_a_task_is_created_once_however_often_the_answer_is_lost(flaky: Flaky, act: Act) -> None:
    flaky.script = [LOST, Reset()]
    task = await act(lambda client: client.tasks.create(model="m", prompt="a cat", n=2))
    assert task.id == "task_1"
    assert len({request.headers["idempotency-key"] for request in flaky.server.requests}) == 1
    assert [request.json for request in flaky.server.requests] == [
        {"model": "m", "input": {"prompt": "a cat", "n": 2}}
    ] * 3
    await act(lambda client: client.tasks.create(model="m", prompt="a cat"))
    assert len({request.headers["idempotency-key"] for request in flaky.server.requests}) == 2


async def test_a_service_that_asks_to_come_again_is_asked_again(flaky: Flaky, act: Act) -> None:
    flaky.script = [Reply(503, {"title": "Unavailable"}, {"Retry-After": "0"}), Reply(200, TASK)]
    assert (await act(lambda client: client.tasks.retrieve("task_1"))).status == "queued"
    assert [request.target for request in flaky.server.requests] == ["/v1/tasks/task_1"] * 2
    assert flaky.server.requests[0].headers["authorization"] == "Bearer key"
    assert flaky.server.requests[0].headers["user-agent"].startswith("taskhook-python/")


async def test_an_answer_that_does_not_come_is_a_timeout(flaky: Flaky, act: Act) -> None:
    flaky.script = [Hang()]
    with pytest.raises(APITimeoutError):
        await act(lambda client: client.with_options(timeout=0.1, max_retries=0).tasks.retrieve("task_1"))


async def test_nobody_there_is_a_connection_error(flaky: Flaky, act: Act) -> None:
    await flaky.server.close()
    with pytest.raises(APIConnectionError):
        await act(lambda client: client.with_options(max_retries=0).tasks.retrieve("task_1"))


async def test_a_redirect_is_not_followed_with_the_key(flaky: Flaky, act: Act) -> None:
    flaky.script = [Reply(302, b"", {"Location": "https://elsewhere.test/"})]
    with pytest.raises(Exception, match=r"redirected to https://elsewhere.test/; is the base URL right\?"):
        await act(lambda client: client.tasks.retrieve("task_1"))


async def test_an_injected_http_client_is_used_and_left_open(flaky: Flaky) -> None:
    flaky.script = [Reply(200, TASK), Reply(200, TASK)]
    async with httpx.AsyncClient(headers={"X-Mine": "1"}, timeout=PATIENCE_S, trust_env=False) as http:
        async with AsyncTaskhook("key", base_url=flaky.server.url, http_client=http) as client:
            await client.tasks.retrieve("task_1")
        assert not http.is_closed
        assert flaky.server.requests[0].headers["x-mine"] == "1"
        await client.with_options(timeout=1).tasks.retrieve("task_1")


async def test_many_wait_at_once_and_none_for_a_connection(flaky: Flaky) -> None:
    flaky.script = [Reply(200, FINAL, delay=0.5)] * 120
    timeout = httpx.Timeout(PATIENCE_S, pool=0.1)
    async with AsyncTaskhook("key", base_url=flaky.server.url, timeout=timeout, max_retries=0) as client:
        found = await asyncio.gather(*(client.tasks.retrieve("task_1") for _ in range(120)))
    assert len(found) == 120


def frame(number: int) -> str:
    event = {"id": f"evt_{number}", "type": "moon.rose", "timestamp": "2026-01-01T00:00:00Z", "sequence": number}
    return f"id: evt_{number}\nevent: moon.rose\ndata: {json.dumps(event | {'data': None})}\n\n"


def first_three(client: Any) -> Any:
    stream = client.events.stream()
    if isinstance(client, Taskhook):
        return [next(stream).sequence for _ in range(3)]

    async def told() -> list[int]:
        async with stream:
            return [(await anext(stream)).sequence for _ in range(3)]

    return told()


async def test_a_stream_that_is_cut_anywhere_has_no_gap_and_no_repeat(flaky: Flaky, act: Act) -> None:
    kind = {"Content-Type": "text/event-stream"}
    begin = Reply(200, "id: evt_0\nretry: 10\n\n: still here\n\n", kind)
    half = Reply(200, frame(1) + frame(2)[:30], kind)
    flaky.script = [begin, Reset(), half, Reply(503, b"", {"Retry-After": "0"}), Reply(200, frame(2) + frame(3), kind)]
    assert await act(first_three) == [1, 2, 3]
    asked = [request.headers.get("last-event-id") for request in flaky.server.requests]
    assert asked == [None, "evt_0", "evt_0", "evt_1", "evt_1"]


async def test_a_stream_ends_with_the_refusal_of_its_key(flaky: Flaky, act: Act) -> None:
    kind = {"Content-Type": "text/event-stream"}
    flaky.script = [Reply(200, "retry: 10\n\n" + frame(1), kind), Reply(401, {"title": "Unauthorized"})]
    with pytest.raises(AuthenticationError):
        await act(first_three)


async def test_a_stream_of_something_else_is_an_error_of_ours(flaky: Flaky, act: Act) -> None:
    flaky.script = [Reply(200, "data: hello\n\n", {"Content-Type": "text/event-stream"})]
    with pytest.raises(APIConnectionError, match="no event"):
        await act(first_three)


async def test_what_is_no_event_stream_is_told_so(flaky: Flaky, act: Act) -> None:
    with pytest.raises(APIConnectionError, match="not as Taskhook does"):
        await act(first_three)
