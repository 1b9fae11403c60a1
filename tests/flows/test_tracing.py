"""A trace shows the whole life of a task in all its processes, and no secrets."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from tests.flows.conftest import World
from tests.support.api import Api, new_prompt, ok
from tests.support.collector import Collector, Seen
from tests.support.receiver import status
from tests.support.replicas import of_one_process
from tests.support.server import Hang, Reply
from tests.support.service import API_KEY, SECRET_KEY, SIGNING_SECRET, Service, free_port
from tests.support.upstream import FakeProvider, Plan, accept
from tests.support.wait import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("tracing")]

MODEL = "fluxapi-ai/flux-kontext-pro"
CREATED, CALLED_BACK = "POST /v1/tasks", "POST /callbacks/{provider}/{token}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(world: World, collector: Collector) -> AsyncIterator[Service]:
    yield await world.start({**collector.environment, "TASKHOOK_CALLBACK_GRACE_S": "60"})


class Caller:
    """An application with tracing of its own."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {
            "traceparent": f"00-{self.trace_id}-{self.span_id}-0{int(sampled)}",
            "tracestate": "vendor=opaque",
            "baggage": "user=alice",
        }

    async def submit(self, api: Api, model: str, prompt: str, **rest: Any) -> dict[str, Any]:
        body = {"model": model, "input": {"prompt": prompt}, **rest}
        return ok(await api.client.post("/v1/tasks", json=body, headers=self.headers), 202)


def children(spans: list[Seen], parent: Seen) -> set[str]:
    return {span.name for span in spans if span.parent_id == parent.id}


async def called_back(fake: FakeProvider, plan: Plan, **headers: str) -> None:
    await until(lambda: plan.jobs)
    assert (await fake.callback(plan.job, headers=headers or None)).status == 200


async def test_one_trace_leads_from_the_caller_to_the_subscriber(
    world: World, service: Service, collector: Collector
) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(), new_prompt()
    subscriber = world.receiver.subscriber("joins")
    endpoint = await service.api.endpoint(subscriber.url)
    plan = fake.script(prompt)
    task = await caller.submit(service.api, MODEL, prompt)
    await service.api.accepted(task["id"])
    await called_back(fake, plan)
    attempt = await collector.one(caller.trace_id, "deliver task.succeeded")
    await collector.one(caller.trace_id, "task ")

    created = await collector.one(caller.trace_id, CREATED)
    assert (created.parent_id, created.kind) == (caller.span_id, "SERVER")
    assert created.attributes["taskhook.task.id"] == task["id"]
    assert created.attributes["http.response.status_code"] == 202
    assert created.resource["service.name"] == "taskhook"
    steps = {f"submit {fake.provider}", CALLED_BACK, "deliver task.succeeded", f"task {MODEL}"}
    assert children(collector.of(caller.trace_id), created) == steps

    (received,) = subscriber.of(task["id"])
    assert received.request.headers["traceparent"] == f"00-{caller.trace_id}-{attempt.id}-01"
    assert received.request.headers["tracestate"] == "vendor=opaque"
    assert "baggage" not in received.request.headers
    assert attempt.attributes["taskhook.endpoint.id"] == endpoint["id"]
    assert attempt.attributes["messaging.message.id"] == received.id
    assert not {"traceparent", "tracestate", "baggage"} & plan.submits[0].headers.keys(), "a provider learned of us"
    await service.client.delete(f"/v1/endpoints/{endpoint['id']}")


async def test_spans_are_described_as_the_conventions_say(world: World, service: Service, collector: Collector) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(), new_prompt()
    plan = fake.script(prompt)
    task = await caller.submit(service.api, MODEL, prompt)
    await service.api.accepted(task["id"])
    theirs = Caller()
    await called_back(fake, plan, **theirs.headers)

    submit = await collector.one(caller.trace_id, "submit ")
    assert submit.kind == "CLIENT" and not submit.failed
    assert submit.attributes["http.request.method"] == "POST"
    assert submit.attributes["server.address"] == "127.0.0.1"
    assert submit.attributes["server.port"] == fake.server.port
    assert (submit.attributes["http.response.status_code"], submit.attributes["taskhook.outcome"]) == (200, "accepted")

    callback = await collector.one(caller.trace_id, CALLED_BACK)
    assert callback.kind == "SERVER" and callback.links == [(theirs.trace_id, theirs.span_id)]
    assert callback.attributes["http.route"] == callback.attributes["url.path"] == "/callbacks/{provider}/{token}"
    assert callback.attributes["taskhook.provider_task.id"] == plan.job.id
    assert collector.of(theirs.trace_id) == [], "a callback's context is a link, never the parent"

    life = await collector.one(caller.trace_id, "task ")
    assert (life.kind, life.attributes["taskhook.task.status"]) == ("INTERNAL", "succeeded")
    assert life.attributes["taskhook.task.via"] == "callback"
    assert life.seconds > submit.seconds


async def test_a_task_of_a_caller_without_tracing_has_a_trace_of_its_own_with_each_poll(
    world: World, service: Service, collector: Collector
) -> None:
    fake, prompt = world.flux_context, new_prompt()
    fake.script(prompt, poll=["running", "success"])
    task = await service.api.submit("flux-context/flux-kontext-pro", prompt)
    await service.api.finished(task["id"])
    (created,) = await until(
        lambda: [s for s in collector.spans if s.name == CREATED and s.attributes.get("taskhook.task.id") == task["id"]]
    )
    await collector.one(created.trace_id, "task ")
    polls = collector.of(created.trace_id, "poll flux-context")
    assert created.parent_id == "" and {poll.parent_id for poll in polls} == {created.id}
    assert [poll.attributes["taskhook.outcome"] for poll in polls] == ["pending", "succeeded"]


async def test_each_attempt_to_deliver_is_a_span_and_a_failed_one_says_why(
    world: World, service: Service, collector: Collector
) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(), new_prompt()
    subscriber = world.receiver.subscriber("late", [status(503)])
    fake.script(prompt, callback="success")
    await caller.submit(service.api, MODEL, prompt, webhook_url=subscriber.url)
    failed = await collector.one(caller.trace_id, "deliver task.succeeded", http__response__status_code=503)
    again = await collector.one(caller.trace_id, "deliver task.succeeded", http__response__status_code=204)
    assert failed.failed and failed.attributes["error.type"] == "503"
    assert not again.failed and again.attributes["http.request.resend_count"] == 1
    sent = [received.request.headers["traceparent"] for received in subscriber.received]
    assert [parent.split("-")[2] for parent in sent] == [failed.id, again.id]


async def test_what_the_caller_does_not_sample_is_not_sampled_here(
    world: World, service: Service, collector: Collector
) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(sampled=False), new_prompt()
    subscriber = world.receiver.subscriber("unsampled")
    fake.script(prompt, callback="success")
    task = await caller.submit(service.api, MODEL, prompt, webhook_url=subscriber.url)
    (received,) = await until(lambda: subscriber.of(task["id"]))
    version, trace_id, _, flags = received.request.headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", caller.trace_id, "00")
    sampled = Caller()
    fake.script(later := new_prompt(), callback="success")
    await sampled.submit(service.api, MODEL, later)
    await collector.one(sampled.trace_id, "task ")
    assert collector.of(caller.trace_id) == []


@of_one_process("its metrics and its log are those of the process that did it")
async def test_lines_of_the_log_and_buckets_of_the_metrics_lead_to_the_trace(
    world: World, service: Service, collector: Collector
) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(), new_prompt()
    fake.script(prompt, callback="success")
    await caller.submit(service.api, MODEL, prompt, webhook_url=world.receiver.subscriber("logged").url)
    spans = [
        await collector.one(caller.trace_id, name)
        for name in (CREATED, "submit ", CALLED_BACK, "task ", "deliver task.succeeded")
    ]
    events = ("task.created", "task.submitted", "callback.accepted", "task.finished", "delivery.attempted")
    for event, span in zip(events, spans, strict=True):
        lines = [line for line in service.log().splitlines() if f'"event":"{event}"' in line]
        assert any(f'"trace_id":"{caller.trace_id}","span_id":"{span.id}"' in line for line in lines), event

    text = (await service.client.get("/metrics", headers={"Accept": "application/openmetrics-text"})).text
    assert text.endswith("# EOF\n")
    assert re.search(r'taskhook_http_request_duration_seconds_bucket{.*} \S+ # {.*trace_id="[0-9a-f]{32}"', text)
    assert f'trace_id="{caller.trace_id}"' in text
    assert 'taskhook_trace_spans_total{outcome="exported"}' in text


async def test_the_trace_goes_on_after_a_kill_and_a_restart(world: World, collector: Collector) -> None:
    fake, caller, prompt = world.fluxapi_ai, Caller(), new_prompt()
    service = await world.start({**collector.environment, "TASKHOOK_CALLBACK_GRACE_S": "60"})
    subscriber = world.receiver.subscriber("restarted")
    plan = fake.script(prompt)
    task = await caller.submit(service.api, MODEL, prompt, webhook_url=subscriber.url)
    submit = await collector.one(caller.trace_id, "submit ")
    created = await collector.one(caller.trace_id, CREATED)
    await service.restart()
    await called_back(fake, plan)
    later = [
        await collector.one(caller.trace_id, name) for name in (CALLED_BACK, "deliver task.succeeded", f"task {MODEL}")
    ]
    assert {span.parent_id for span in (submit, *later)} == {created.id}
    before, after = (span.resource["service.instance.id"] for span in (submit, later[0]))
    assert before != after
    assert len(subscriber.of(task["id"])) == 1
    await service.close()


async def test_no_secret_and_nothing_of_a_prompt_gets_into_a_trace(world: World, collector: Collector) -> None:
    canaries = {name: f"canary-{name}-{secrets.token_hex(8)}" for name in ("prompt", "meta", "path", "query", "value")}
    service, fake, caller = await world.start(collector.environment), world.fluxapi_ai, Caller()
    subscriber = world.receiver.subscriber(canaries["path"], [status(500, body=canaries["prompt"].encode())])
    own = world.receiver.subscriber("canary")
    await service.api.endpoint(own.url, headers={"X-Api-Key": canaries["value"], "Traceparent": "its-own"})
    plan = fake.script(canaries["prompt"], submit=[accept(job_id="canary-job")])
    webhook_url, metadata = f"{subscriber.url}?token={canaries['query']}", {"order": canaries["meta"]}
    await caller.submit(service.api, MODEL, canaries["prompt"], webhook_url=webhook_url, metadata=metadata)
    await until(lambda: plan.jobs)
    token = plan.job.token
    assert (await fake.callback(plan.job, url=f"{plan.job.callback_url}x")).status == 403
    assert (await fake.callback(plan.job, body={"what": canaries["prompt"]})).status == 400
    await called_back(fake, plan)
    for path in (f"/v1/tasks?metadata.order={canaries['meta']}", f"/wrong/{canaries['path']}?{canaries['query']}"):
        await service.client.get(path)
    await collector.one(caller.trace_id, "deliver task.succeeded", http__response__status_code=500)
    await until(lambda: own.received)
    assert own.received[0].request.headers["traceparent"] == "its-own", "what an endpoint asks for goes before ours"
    assert (await service.terminate()).code == 0
    names = {span.name for span in collector.spans}
    assert {"GET", "GET /v1/tasks", CALLED_BACK} <= names, "what should have leaked was not traced"
    secret = [*canaries.values(), token.rpartition(".")[2], API_KEY, SECRET_KEY, SIGNING_SECRET, fake.key, "alice"]
    everything = collector.everything.decode("latin-1")
    assert [one for one in secret if one in everything] == []


@of_one_process("each process has an exporter of its own")
async def test_a_collector_that_is_down_slow_or_ill_breaks_nothing(world: World) -> None:
    async with Collector(Hang()) as slow, Collector(Reply(500)) as ill:
        down = {**slow.environment, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
        services = [await world.start(env) for env in (down, slow.environment, ill.environment)]
        await asyncio.gather(*(finish_a_task(world, service) for service in services))
        await until(partial(lost_spans, services[-1]))
        ends = await asyncio.gather(*(service.terminate() for service in services))
    assert [end.code for end in ends] == [0, 0, 0]
    assert not any("service.cut_off" in service.log() for service in services)


async def finish_a_task(world: World, service: Service) -> None:
    world.fluxapi_ai.script(prompt := new_prompt(), callback="success")
    task = await service.api.submit(MODEL, prompt)
    assert (await service.api.finished(task["id"]))["status"] == "succeeded"


async def lost_spans(service: Service) -> bool:
    return 'taskhook_trace_spans_total{outcome="failed"}' in (await service.client.get("/metrics")).text
