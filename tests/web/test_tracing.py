"""The span of a request: its attributes, and what it must not hold."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from service.core.observation import Accepted
from service.telemetry.otel import OtelTracing
from tests.web.conftest import KEY, Site

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
CANARY = "canary-7f3a"


class Traced:
    """The application with spans kept in memory."""

    def __init__(self, site: Site, **provider: Any) -> None:
        self._kept = InMemorySpanExporter()
        tracer_provider = TracerProvider(shutdown_on_exit=False, **provider)
        tracer_provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.client = site.client(running__tracing=OtelTracing(tracer_provider))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._kept.get_finished_spans()

    @property
    def last(self) -> ReadableSpan:
        return self.spans[-1]

    def everything(self) -> str:
        return "".join(span.to_json() for span in self.spans)


@pytest.fixture
def traced(site: Site) -> Iterator[Traced]:
    yield Traced(site)


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Of the trace, the span and its parent."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


async def test_a_request_is_a_server_span_named_by_its_route(site: Site, traced: Traced) -> None:
    await traced.client.get("/v1/tasks/task_" + "0" * 32, headers={"traceparent": PARENT, "X-Request-Id": "mine"})
    span = traced.last
    assert (span.name, span.kind, span.status.status_code) == ("GET /v1/tasks/{id}", SpanKind.SERVER, StatusCode.UNSET)
    assert ids(span)[0] == TRACE and ids(span)[2] == SPAN
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/tasks/{id}",
        "http.response.status_code": 404,
        "url.scheme": "http",
        "url.path": "/v1/tasks/task_" + "0" * 32,
        "network.protocol.version": "1.1",
        "taskhook.request.id": "mine",
    }


async def test_a_failure_of_ours_is_an_error_without_its_words(
    site: Site, traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(site.reads, "get_task", fail)
    assert (await traced.client.get("/v1/tasks/task_" + "0" * 32)).status_code == 500
    span = traced.last
    assert (span.status.status_code, (span.attributes or {})["error.type"]) == (StatusCode.ERROR, "500")
    assert CANARY not in traced.everything() and span.events == ()


@pytest.mark.parametrize("parent", ["", "00-x", f"00-{'0' * 32}-{SPAN}-01", PARENT.upper(), f"{PARENT}-{CANARY}"])
async def test_a_context_that_is_none_begins_a_new_trace(site: Site, traced: Traced, parent: str) -> None:
    task = await site.create(traced.client)
    reply = await traced.client.get(f"/v1/tasks/{task['id']}", headers={"traceparent": parent, "tracestate": CANARY})
    assert reply.status_code == 200
    assert ids(traced.last)[2] == "" and ids(traced.last)[0] != TRACE
    assert CANARY not in traced.everything()


async def test_the_context_is_kept_with_the_task_and_shown_to_nobody(site: Site, traced: Traced) -> None:
    task = await site.create(traced.client)
    kept = (await site.reads.get_task(task["id"])).trace
    assert kept is not None and (kept.trace_id, kept.span_id) == ids(traced.last)[:2]
    timeline = (await traced.client.get(f"/v1/tasks/{task['id']}/timeline")).text
    assert kept.trace_id not in str(task) + timeline
    assert (await site.reads.get_task((await site.create(site.client()))["id"])).trace is None


async def test_a_request_answered_before_and_a_cancel_are_linked_to_the_task(site: Site, traced: Traced) -> None:
    key = {"Idempotency-Key": "the same"}
    body = {"model": "fluxapi-ai/flux-kontext-pro", "input": {"prompt": "a lighthouse"}}
    task = (await traced.client.post("/v1/tasks", json=body, headers=key)).json()
    created = ids(traced.last)
    assert (await traced.client.post("/v1/tasks", json=body, headers=key)).status_code == 200
    await traced.client.post(f"/v1/tasks/{task['id']}/cancel")
    for span in traced.spans[-2:]:
        assert ids(span)[0] != created[0]
        assert [(f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") for link in span.links] == [
            created[:2]
        ], span.name


async def test_a_callback_joins_its_tasks_trace_and_tells_no_token(site: Site, traced: Traced) -> None:
    task = await site.create(traced.client)
    created = ids(traced.last)
    await site.learn(task["id"], Accepted(provider_task_id="job-1"))
    token = site.tokens.sign("fluxapi-ai", task["id"])
    headers = {"traceparent": PARENT}
    body = {"code": 200, "msg": CANARY, "data": {"taskId": "job-1", "info": {"resultImageUrl": f"https://x/{CANARY}"}}}
    reply = await traced.client.post(f"/callbacks/fluxapi-ai/{token}", json=body, headers=headers)
    assert reply.status_code == 200
    assert (ids(traced.last)[0], ids(traced.last)[2]) == (created[0], created[1])
    assert [f"{link.context.trace_id:032x}" for link in traced.last.links] == [TRACE]

    forged = f"{token[:-4]}AAAA"
    reply = await traced.client.post(f"/callbacks/fluxapi-ai/{forged}", json=body, headers=headers)
    assert reply.status_code == 403
    assert ids(traced.last)[0] not in (created[0], TRACE) and ids(traced.last)[2] == "", "a stranger chose the trace"
    assert not re.search(rf"{CANARY}|{token.rpartition('.')[2]}|AAAA", traced.everything())


async def test_nothing_that_a_caller_writes_gets_into_a_span(site: Site, traced: Traced) -> None:
    body = {
        "model": "fluxapi-ai/flux-kontext-pro",
        "input": {"prompt": CANARY, "image_url": f"https://example.com/{CANARY}"},
        "webhook_url": f"https://example.com/{CANARY}?token={CANARY}",
        "metadata": {CANARY: CANARY},
    }
    headers = {"User-Agent": CANARY, "Idempotency-Key": CANARY, "baggage": f"a={CANARY}", "Cookie": CANARY}
    task = (await traced.client.post("/v1/tasks", json=body, headers=headers)).json()
    await traced.client.get(f"/v1/tasks?metadata.a={CANARY}")
    await traced.client.get(f"/{CANARY}")
    await traced.client.request(CANARY.upper(), "/v1/tasks")
    await traced.client.get("/v1/tasks", headers={"Authorization": f"Bearer {CANARY}"})
    await traced.client.get(f"/v1/tasks/{task['id']}/timeline")
    assert {"POST /v1/tasks", "GET /v1/tasks", "GET", "_OTHER /v1/tasks"} <= {span.name for span in traced.spans}
    assert CANARY not in traced.everything().lower() and KEY not in traced.everything()


async def test_questions_of_machines_are_no_spans(site: Site, traced: Traced) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await traced.client.get(path)
    assert traced.spans == ()


async def test_the_sampler_decides_and_a_trace_that_is_not_sampled_leaves_no_exemplar(site: Site) -> None:
    traced = Traced(site, sampler=ParentBased(ALWAYS_OFF))
    task = await site.create(traced.client)
    assert traced.spans == ()
    kept = (await site.reads.get_task(task["id"])).trace
    assert kept is not None and kept.flags & 1 == 0
    openmetrics = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert "# {" not in (await traced.client.get("/metrics", headers=openmetrics)).text
    await traced.client.get("/v1/tasks", headers={"traceparent": PARENT})
    assert [ids(span)[0] for span in traced.spans] == [TRACE]
    assert f'trace_id="{TRACE}"' in (await traced.client.get("/metrics", headers=openmetrics)).text


async def test_metrics_are_plain_text_for_whoever_asks_for_nothing_else(client: httpx.AsyncClient) -> None:
    for accept in ("", "text/plain", "*/*", "application/json;;=;version=x.y"):
        reply = await client.get("/metrics", headers={"Accept": accept})
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/plain"), accept
    reply = await client.get("/metrics", headers={"Accept": "application/openmetrics-text;version=x.y, text/plain"})
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert reply.text.endswith("# EOF\n")
