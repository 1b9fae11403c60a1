"""A task from its creation to the subscriber's event, with each provider, when all is well and when it is not."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from service.core.lifecycle import DEADLINE_MARGIN_S, OUTPUT_POLLS_MAX
from tests.flows.conftest import World
from tests.support.api import new_prompt, ok
from tests.support.passing import REST_S, ended
from tests.support.receiver import Subscriber
from tests.support.server import Raw, Reply
from tests.support.service import API_KEY, MOVABLE, SECRET_KEY, SIGNING_SECRET, Service
from tests.support.upstream import FakeProvider, Plan, accept, answer, hang, refuse, reset, throttle
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("providers")]

ALL = ["flux-context", "fluxapi-ai", "acedata", "fluxapi-org"]
CALLING_BACK = ["fluxapi-ai", "acedata"]
POLLED = ["flux-context", "fluxapi-ai", "acedata"]
VIA = {"flux-context": "poll", "fluxapi-ai": "callback", "acedata": "callback", "fluxapi-org": "submit"}
GRACE_S = 60
LIFE_DAYS = {"flux-context": 14, "fluxapi-ai": 14, "acedata": 30}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World) -> AsyncIterator[Service]:
    yield await world.start({"TASKHOOK_CALLBACK_GRACE_S": str(GRACE_S)}, timings=MOVABLE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def everything(world: World, service: Service) -> Subscriber:
    """Hears of every final state."""
    subscriber = world.receiver.subscriber("everything")
    await service.api.endpoint(subscriber.url, events=["task.succeeded", "task.failed", "task.canceled"])
    return subscriber


def script(fake: FakeProvider, outcome: str, prompt: str, **rest: Any) -> Plan:
    """The same outcome in each provider's own way."""
    if fake.provider == "flux-context":
        rest.setdefault("poll", ["running", outcome])
    elif fake.provider == "fluxapi-org":
        if outcome != "success":
            rest.setdefault("submit", [refuse(outcome)])
    else:
        rest.setdefault("callback", outcome)
    return fake.script(prompt, **rest)


async def run(service: Service, fake: FakeProvider, prompt: str, **rest: Any) -> dict[str, Any]:
    task = await service.api.submit(f"{fake.provider}/{fake.default_model}", prompt, **rest)
    await sent(service, task["id"])
    return await service.api.finished(task["id"])


async def sent(service: Service, task_id: str) -> None:
    """Its account may rest, after what it met in other tests."""

    async def there() -> bool:
        if len(await service.api.timeline(task_id)) > 1:
            return True
        service.pass_time(REST_S)
        return False

    await until(there, what=f"{task_id} sent")


async def accepted(service: Service, task_id: str) -> dict[str, Any]:
    await sent(service, task_id)
    return await service.api.accepted(task_id)


async def run_for_long(
    service: Service, fake: FakeProvider, prompt: str, until_line: str, **rest: Any
) -> dict[str, Any]:
    """A task whose end needs time, which passes once this line is in its timeline."""
    task = await service.api.submit(f"{fake.provider}/{fake.default_model}", prompt, **rest)
    await sent(service, task["id"])
    await until(lambda: _line(service, task["id"], until_line), what=until_line)
    return await ended(service, task["id"])


async def has_one_event(service: Service, everything: Subscriber, task: dict[str, Any]) -> None:
    """Exactly one final event is stored, and the subscriber got it."""
    (event,) = await service.api.finals(task["id"])
    assert event["type"] == f"task.{task['status']}"
    await until(lambda: everything.of(task["id"]), what=f"an event of {task['id']} at the subscriber")
    assert {one.id for one in everything.of(task["id"])} == {event["id"]}
    got = everything.of(task["id"])[0].body
    assert got["type"] == event["type"]
    for name in ("id", "status", "provider", "model", "result", "error", "metadata", "input"):
        assert got["data"][name] == task[name]


@pytest.mark.parametrize("provider", ALL)
async def test_a_task_that_succeeds_is_one_event_with_its_picture(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = script(fake, "success", prompt)
    task = await run(service, fake, prompt, metadata={"order": "1234"})
    assert task["status"] == "succeeded"
    assert task["object"] == "task"
    assert (task["provider"], task["model"]) == (provider, fake.default_model)
    assert task["metadata"] == {"order": "1234"}
    assert task["error"] is None
    assert task["tracking"]["via"] == VIA[provider]
    assert task["provider_task_id"] == (None if provider == "fluxapi-org" else plan.job.id)
    assert [image["url"] for image in task["result"]["outputs"]] == [fake.image_url(plan.job)]
    assert task["created_at"] <= task["submitted_at"] <= task["finished_at"] <= task["deadline_at"]
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", ALL)
async def test_a_result_says_how_long_its_links_live_and_keeps_the_raw_payload(
    world: World, service: Service, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = script(fake, "success", prompt)
    task = await run(service, fake, prompt)
    image = task["result"]["outputs"][0]
    assert {"url", "expires_at", "content_type", "width", "height", "original_url", "original_expires_at"} <= set(image)
    finished = datetime.fromisoformat(task["finished_at"])
    if provider in LIFE_DAYS:
        life = datetime.fromisoformat(image["expires_at"]) - finished
        assert abs(life.total_seconds() - LIFE_DAYS[provider] * 86400) < 3600
    if provider == "fluxapi-ai":
        assert image["original_url"].startswith("https://origin.example.com/")
        life = datetime.fromisoformat(image["original_expires_at"]) - finished
        assert abs(life.total_seconds() - 600) < 60
    if provider == "flux-context":
        assert "10" in str(task["result"]["cost"])
    raw = {
        "flux-context": lambda: fake.polled(plan.job, "success").body,
        "fluxapi-ai": lambda: fake.callback_body(plan.job, "success"),
        "acedata": lambda: fake.callback_body(plan.job, "success"),
        "fluxapi-org": lambda: fake.accepted(plan.job).body,
    }[provider]()
    assert task["result"]["raw"] == raw


@pytest.mark.parametrize("provider", ALL)
async def test_a_moderated_prompt_fails_for_content_policy(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = script(fake, "moderated", prompt)
    task = await run(service, fake, prompt)
    assert (task["status"], task["error"]["code"]) == ("failed", "content_policy")
    assert task["error"]["retryable"] is False
    assert task["error"]["message"]
    assert task["result"] is None
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", POLLED)
async def test_a_generation_that_fails_is_the_providers_error(world: World, service: Service, provider: str) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    script(fake, "failed", prompt)
    task = await run(service, fake, prompt)
    assert (task["status"], task["error"]["code"]) == ("failed", "provider_error")


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    ("refusal", "code"),
    [("bad_key", "authentication"), ("no_credits", "insufficient_credits"), ("moderated", "content_policy")],
)
async def test_a_refused_submit_fails_at_once_with_the_reason(
    world: World, service: Service, everything: Subscriber, provider: str, refusal: str, code: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[refuse(refusal)])
    task = await run(service, fake, prompt)
    assert (task["status"], task["error"]["code"]) == ("failed", code)
    assert task["tracking"]["via"] == "submit"
    assert task["provider_task_id"] is None
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", ALL)
async def test_a_refusal_with_a_server_errors_status_is_not_sent_again(
    world: World, service: Service, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[refuse("broken")])
    task = await run_for_long(service, fake, prompt, "submit.")
    assert task["status"] == "failed"
    assert task["error"]["code"] in ("provider_error", "provider_unavailable", "submit_unconfirmed")
    assert len(plan.submits) == 1


@pytest.mark.parametrize("provider", ALL)
async def test_a_submit_that_was_throttled_twice_succeeds_at_the_third(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = script(fake, "success", prompt, submit=[throttle("30"), throttle("30"), accept()])
    task = await run_for_long(service, fake, prompt, "submit.throttled")
    assert task["status"] == "succeeded"
    assert len(plan.submits) == 3
    lines = await service.api.timeline(task["id"])
    at = [datetime.fromisoformat(one["at"]) for one in lines if one["type"] in ("submit.throttled", "submit.accepted")]
    at.append(datetime.fromisoformat(task["finished_at"]))
    assert min(at[1] - at[0], at[2] - at[1]) > timedelta(seconds=29), "Retry-After was not honoured"
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", ALL)
async def test_a_provider_that_cannot_be_reached_is_tried_again(world: World, service: Service, provider: str) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = script(fake, "success", prompt)
    await fake.server.close()
    task = await service.api.submit(f"{provider}/{fake.default_model}", prompt)
    await sent(service, task["id"])
    await fake.server.listen()
    task = await ended(service, task["id"])
    assert task["status"] == "succeeded"
    assert len(plan.submits) == 1


async def _line(service: Service, task_id: str, word: str) -> bool:
    return any(word in str(entry) for entry in await service.api.timeline(task_id))


@pytest.mark.parametrize("provider", CALLING_BACK)
@pytest.mark.parametrize("break_", [reset(accepted=True), reset(accepted=True, rst=False)], ids=["rst", "fin"])
async def test_a_submit_whose_answer_was_lost_ends_by_its_callback(
    world: World, service: Service, everything: Subscriber, provider: str, break_: Any
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[break_], callback="success", callback_delay=0.5)
    task = await run(service, fake, prompt)
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "callback")
    assert task["provider_task_id"] == plan.job.id
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", ALL)
@pytest.mark.parametrize(
    "lost",
    [
        reset(),
        answer(Reply(502, "<html>Bad gateway</html>")),
        answer(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n")),
    ],
    ids=["reset", "html 502", "half an answer"],
)
async def test_a_submit_nobody_confirms_ends_unconfirmed_and_was_sent_once(
    world: World, service: Service, everything: Subscriber, provider: str, lost: Any
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[lost])
    task = await run_for_long(service, fake, prompt, "submit.unconfirmed")
    assert (task["status"], task["error"]["code"]) == ("failed", "submit_unconfirmed")
    assert task["tracking"]["via"] in (("deadline",) if fake.has_callbacks else ("deadline", "submit"))
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)


async def test_an_unconfirmed_submit_is_sent_again_for_a_caller_who_asked_for_it(
    world: World, service: Service
) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    plan = fake.script(prompt, submit=[reset(), accept()], callback="success")
    task = await run_for_long(service, fake, prompt, "submit.unconfirmed", on_unconfirmed="resubmit")
    assert task["status"] == "succeeded"
    assert len(plan.submits) == 2


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_lost_callback_is_replaced_by_a_poll_at_the_grace_time(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, poll=["running", "success"])
    task = await run_for_long(service, fake, prompt, "submit.accepted")
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "poll")
    assert task["tracking"]["polls"] == len(plan.poll_requests) == 2
    lines = {one["type"]: datetime.fromisoformat(one["at"]) for one in await service.api.timeline(task["id"])}
    waited = lines["poll.pending"] - lines["submit.accepted"]
    assert waited > timedelta(seconds=0.9 * GRACE_S), "polled before the grace time"
    await has_one_event(service, everything, task)


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_callback_before_the_answer_to_the_submit_ends_the_task(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[accept(0.5, callback_first=True)], callback="success")
    task = await run(service, fake, prompt)
    await until(lambda: plan.callback_answers)  # a long poll may hear of the commit first
    assert [one.status for one in plan.callback_answers] == [200]
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "callback")
    assert task["provider_task_id"] == plan.job.id
    assert len(plan.submits) == 1
    await has_one_event(service, everything, task)

    async def answered() -> bool:
        return "submit.duplicate" in {entry["type"] for entry in await service.api.timeline(task["id"])}

    await until(answered, what="the answer to the submit")
    assert await service.api.task(task["id"]) == task, "it came too late to change anything"


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_callback_ends_a_task_whose_submit_is_never_answered(
    world: World, service: Service, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, submit=[hang(accepted=True)], callback="success")
    task = await run(service, fake, prompt)
    assert (task["status"], task["provider_task_id"]) == ("succeeded", plan.job.id)
    assert len(plan.submits) == 1


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_second_callback_changes_nothing(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, callback="success")
    task = await run(service, fake, prompt)
    assert (await fake.callback(plan.job, "success")).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["result"], after["finished_at"]) == (
        "succeeded",
        task["result"],
        task["finished_at"],
    )
    await has_one_event(service, everything, after)


@pytest.mark.parametrize("provider", CALLING_BACK)
@pytest.mark.parametrize(("first", "second"), [("success", "failed"), ("failed", "success")])
async def test_the_first_of_two_contradictory_callbacks_counts(
    world: World, service: Service, provider: str, first: str, second: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, callback=first)
    task = await run(service, fake, prompt)
    assert (await fake.callback(plan.job, second)).status == 200
    after = await service.api.task(task["id"])
    assert (after["status"], after["error"]) == (task["status"], task["error"])
    finals = await service.api.finals(task["id"])
    assert [event["type"] for event in finals] == [f"task.{task['status']}"]


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_garbage_callback_leads_to_a_poll(world: World, service: Service, provider: str) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt)
    task = await service.api.submit(f"{provider}/{fake.default_model}", prompt)
    await accepted(service, task["id"])
    assert (await fake.callback(plan.job, body=b"\xff\xfe not json")).status == 400
    plan.job.state = "success"
    task = await service.api.finished(task["id"])
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "poll")


@pytest.mark.parametrize("provider", CALLING_BACK)
async def test_a_callback_with_another_tasks_id_leads_to_a_poll(world: World, service: Service, provider: str) -> None:
    fake, prompt, other = world.fakes[provider], new_prompt(), new_prompt()
    plan, stranger = fake.script(prompt), fake.script(other)
    task = await service.api.submit(f"{provider}/{fake.default_model}", prompt)
    another = await service.api.submit(f"{provider}/{fake.default_model}", other)
    await accepted(service, task["id"])
    await accepted(service, another["id"])
    body = fake.callback_body(stranger.job, "success")
    assert (await fake.callback(plan.job, body=body)).status == 409
    plan.job.state = "failed"
    task = await service.api.finished(task["id"])
    assert (task["status"], task["tracking"]["via"]) == ("failed", "poll")
    assert (await service.api.task(another["id"]))["status"] == "running"


@pytest.mark.parametrize("provider", POLLED)
async def test_a_task_that_never_ends_times_out_after_one_last_poll(
    world: World, service: Service, everything: Subscriber, provider: str
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, poll=["running"])
    task = await run_for_long(service, fake, prompt, "submit.accepted", timeout_s=20)
    assert (task["status"], task["error"]["code"]) == ("failed", "timeout")
    assert task["tracking"]["via"] == "deadline"
    assert len(plan.submits) == 1
    last_poll = [one["at"] for one in await service.api.timeline(task["id"]) if one["type"] == "poll.pending"][-1]
    before_the_end = datetime.fromisoformat(task["deadline_at"]) - datetime.fromisoformat(last_poll)
    assert before_the_end <= timedelta(seconds=DEADLINE_MARGIN_S), "no last poll at the deadline"
    await has_one_event(service, everything, task)


async def test_a_result_after_the_timeout_is_published_as_late(world: World, service: Service) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    late = world.receiver.subscriber("late")
    await service.api.endpoint(late.url, events=["task.late_result"])
    plan = fake.script(prompt, poll=["running"])
    task = await run_for_long(service, fake, prompt, "submit.accepted")
    assert task["error"]["code"] == "timeout"
    assert (await fake.callback(plan.job, "success")).status == 200
    assert (await service.api.task(task["id"]))["status"] == "failed"
    await until(lambda: late.of(task["id"], "task.late_result"))
    assert late.types() == ["task.late_result"]


@pytest.mark.parametrize("provider", POLLED)
@pytest.mark.parametrize(
    "bad",
    [throttle("1"), answer(Reply(502, "<html>")), reset(), answer(Reply(200, "not json")), "not_found"],
    ids=["429", "html 502", "reset", "no json", "not found"],
)
async def test_a_poll_that_goes_wrong_does_not_fail_the_task(
    world: World, service: Service, provider: str, bad: Any
) -> None:
    fake, prompt = world.fakes[provider], new_prompt()
    plan = fake.script(prompt, poll=[bad, "success"])
    task = await run_for_long(service, fake, prompt, "submit.accepted")
    assert (task["status"], task["tracking"]["via"]) == ("succeeded", "poll")
    assert len(plan.poll_requests) == 2


@pytest.mark.parametrize(("blanks", "ended"), [(OUTPUT_POLLS_MAX, ("failed", "poll")), (2, ("succeeded", "poll"))])
async def test_a_success_without_a_picture_is_polled_until_the_picture_is_there(
    world: World, service: Service, blanks: int, ended: tuple[str, str]
) -> None:
    fake, prompt = world.fluxapi_ai, new_prompt()
    plan = fake.script(prompt)
    task = await service.api.submit("fluxapi-ai/flux-kontext-pro", prompt)
    await accepted(service, task["id"])
    body = fake.callback_body(plan.job, "success")
    body["data"]["info"] = blank = {"originImageUrl": "", "resultImageUrl": ""}
    polled = fake.polled(plan.job, "success").body
    assert isinstance(polled, dict)
    polled["data"]["response"] = blank
    complete = fake.polled(plan.job, "success")
    plan.polls += [answer(Reply(body=polled))] * blanks + [answer(complete)]
    assert (await fake.callback(plan.job, body=body)).status == 200
    task = await service.api.finished(task["id"])
    assert (task["status"], task["tracking"]["via"]) == ended
    assert task["error"] is None or task["error"]["code"] == "provider_error"


@pytest.mark.parametrize(
    ("model", "input", "wire"),
    [
        (
            "flux-context/gpt-4o",
            {"aspect_ratio": "3:2", "image_url": "https://example.com/in.png", "translate": True},
            {
                "model": "gpt-4o",
                "aspect_ratio": "3:2",
                "input_image": "https://example.com/in.png",
                "enable_translation": True,
            },
        ),
        (
            "fluxapi-ai/flux-kontext-max",
            {
                "aspect_ratio": "21:9",
                "output_format": "png",
                "translate": False,
                "options": {"promptUpsampling": True, "safetyTolerance": 6},
            },
            {
                "model": "flux-kontext-max",
                "aspectRatio": "21:9",
                "outputFormat": "png",
                "enableTranslation": False,
                "promptUpsampling": True,
                "safetyTolerance": 6,
            },
        ),
        (
            "acedata/flux-kontext-pro",
            {"aspect_ratio": "3:4", "image_url": "https://example.com/in.png"},
            {
                "model": "flux-kontext-pro",
                "action": "edit",
                "size": "3:4",
                "image_url": "https://example.com/in.png",
            },
        ),
        (
            "acedata/flux-dev",
            {"size": "1024x1024", "n": 2},
            {"model": "flux-dev", "action": "generate", "size": "1024x1024", "count": 2},
        ),
        (
            "fluxapi-org/flux-pro-1-1",
            {"size": "1024x1024", "n": 2},
            {"model": "flux-pro-1-1", "size": "1024x1024", "n": 2},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_input_travels_under_the_providers_own_names(
    world: World, service: Service, model: str, input: dict[str, Any], wire: dict[str, Any]
) -> None:
    fake, prompt = world.fakes[model.split("/", maxsplit=1)[0]], new_prompt()
    plan = script(fake, "success", prompt)
    task = await service.api.submit(model, prompt, input=input)
    await sent(service, task["id"])
    task = await service.api.finished(task["id"])
    assert task["status"] == "succeeded"
    body = plan.submits[0].json
    assert body["prompt"] == prompt
    assert {name: body.get(name) for name in wire} == wire
    assert len(task["result"]["outputs"]) == input.get("n", 1)
    if fake.has_callbacks:
        assert plan.job.callback_url is not None
        assert plan.job.callback_url.startswith(f"{service.url}/callbacks/{fake.provider}/")


@pytest.mark.parametrize(("name", "provider"), [("gpt-4o", "flux-context"), ("flux-pro-1-1", "fluxapi-org")])
async def test_a_bare_model_name_goes_to_a_provider_that_has_it(
    world: World, service: Service, name: str, provider: str
) -> None:
    prompt = new_prompt()
    script(world.fakes[provider], "success", prompt)
    task = await service.api.submit(name, prompt)
    await sent(service, task["id"])
    assert (task["provider"], task["model"]) == (provider, name)
    assert (await service.api.finished(task["id"]))["status"] == "succeeded"


async def test_providers_are_listed_with_what_they_support(service: Service) -> None:
    listed = ok(await service.client.get("/v1/providers"))
    text = str(listed)
    for provider in ALL:
        assert provider in text
    for model in ("gpt-4o", "flux-kontext-max", "flux-2-pro", "flux-pro-1-1"):
        assert model in text


async def test_every_request_to_a_provider_was_well_formed(world: World, service: Service) -> None:
    for fake in world.fakes.values():
        if not fake.server.requests:
            prompt = new_prompt()
            script(fake, "success", prompt)
            await run(service, fake, prompt)
        fake.check_requests()


async def test_the_log_names_no_key_no_token_and_no_prompt(world: World, service: Service) -> None:
    prompt = new_prompt("a secret garden")
    plan = script(world.fluxapi_ai, "success", prompt)
    task = await run(service, world.fluxapi_ai, prompt)
    await world.fluxapi_ai.callback(plan.job, url=plan.job.callback_url + "x")
    log = await until(lambda: service.log() if task["id"] in service.log() else "", what="the task's id in the log")
    for secret in (API_KEY, SECRET_KEY, SIGNING_SECRET, prompt, *(fake.key for fake in world.fakes.values())):
        assert secret not in log
    for fake in world.fakes.values():
        for job in fake.jobs.values():
            assert job.callback_url is None or job.token not in log
