"""Answers for operators and readers of the documentation."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.core.change import Change, Pause
from service.core.event import EVENT_TYPES, Event, EventType, render_body, render_cloudevent
from service.core.problems import Unavailable
from service.core.times import after
from service.core.views import view_endpoint_facts, view_task
from service.store.batch import Keys
from service.web.openapi import problems_of
from service.web.routes import OPERATIONS
from tests.support.env import FakeEnv
from tests.support.factory import make_endpoint, make_task
from tests.support.registry import PROVIDERS
from tests.web.conftest import DOCUMENT, Site, make_access

OPEN = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]


@pytest.mark.parametrize("path", OPEN)
async def test_what_operators_ask_needs_no_key(client: httpx.AsyncClient, path: str) -> None:
    del client.headers["Authorization"]
    assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("query", ["x=1", "x=1&x=2", "x", "%FF", "%00=1", "&&", "x=1&exclude=worker"])
@pytest.mark.parametrize("path", OPEN)
async def test_what_monitors_add_to_the_address_is_ignored(client: httpx.AsyncClient, path: str, query: str) -> None:
    assert (await client.get(f"{path}?{query}")).status_code == 200


async def test_a_ready_service_says_by_what_it_is_judged(site: Site) -> None:
    async with site.client(running__worker_alive=lambda: True) as client:
        assert (await client.get("/readyz")).json() == {
            "status": "ok",
            "checks": {"service": {"ok": True}, "database": {"ok": True}, "worker": {"ok": True}},
        }


async def test_a_service_that_stops_is_not_ready_and_still_alive(site: Site, client: httpx.AsyncClient) -> None:
    site.stopping.set()
    reply = await client.get("/readyz")
    assert (reply.status_code, reply.json()["checks"]["service"]["ok"]) == (503, False)
    assert (await client.get("/healthz")).status_code == 200


async def test_a_service_without_its_database_is_not_ready(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise Unavailable("The database can't be used right now.")

    monkeypatch.setattr(site.writer, "check", away)
    reply = await client.get("/readyz")
    assert (reply.status_code, reply.json()["checks"]["database"]["ok"]) == (503, False)
    monkeypatch.setattr(site.reads, "count_open", away)
    assert "taskhook_http_requests_total" in (await client.get("/metrics")).text


async def test_a_worker_that_died_here_makes_it_not_ready(site: Site) -> None:
    async with site.client(running__worker_alive=lambda: False) as client:
        assert (await client.get("/readyz")).status_code == 503


async def test_work_that_nobody_takes_makes_it_not_ready(site: Site, client: httpx.AsyncClient) -> None:
    await site.create(client)
    site.env.pass_time(50)
    assert (await client.get("/readyz")).status_code == 200
    site.env.pass_time(40)
    reply = await client.get("/readyz")
    assert reply.status_code == 503
    assert "90 s" in reply.json()["checks"]["worker"]["note"]


async def test_work_that_nobody_takes_need_not_take_the_web_away(site: Site, client: httpx.AsyncClient) -> None:
    await site.create(client)
    site.env.pass_time(90)
    reply = await client.get("/readyz?exclude=worker")
    assert (reply.status_code, reply.json()["checks"]["worker"]["ok"]) == (200, False)
    site.stopping.set()
    assert (await client.get("/readyz?exclude=worker")).status_code == 503
    assert (await client.get("/readyz?exclude=database")).status_code == 422


async def test_metrics_tell_that_the_database_is_away(
    site: Site, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> Any:
        raise Unavailable("The database can't be used right now.")

    with monkeypatch.context() as broken:
        broken.setattr(site.writer, "check", away)
        assert "taskhook_database_up 0.0" in (await client.get("/metrics")).text
    assert "taskhook_database_up 1.0" in (await client.get("/metrics")).text


async def test_metrics_count_what_is_due_by_its_kind(site: Site, client: httpx.AsyncClient) -> None:
    await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:9999/"})
    await site.create(client)
    await site.run(client)
    await site.succeed(client)
    site.env.pass_time(10)
    text = (await client.get("/metrics")).text
    found = dict(re.findall(r'taskhook_due\{kind="(\w+)"\} ([\d.]+)', text))
    assert found == {"submit": "1.0", "poll": "0.0", "delivery": "1.0"}


async def test_metrics_count_what_is_open(site: Site, client: httpx.AsyncClient) -> None:
    await client.post("/v1/endpoints", json={"url": "http://127.0.0.1:9999/"})
    await site.create(client)
    await site.run(client)
    await site.succeed(client)
    site.env.pass_time(10)
    reply = await client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }
    assert samples["taskhook_tasks_open", "queued"] == 1
    assert samples["taskhook_tasks_open", "running"] == 1
    assert samples["taskhook_deliveries_open", "pending"] == 1
    assert samples["taskhook_deliveries_open", "held"] == 0
    assert samples["taskhook_oldest_due_age_seconds",] == 10
    await site.create(client)
    assert 'taskhook_tasks_open{status="queued"} 1.0' in (await client.get("/metrics")).text, "counted again too soon"


async def test_providers_are_told_with_their_models_and_their_state(site: Site) -> None:
    providers = dict(site.context.providers) | {"acedata": make_access("acedata", accounts={})}
    pause = Pause(account="fluxapi-ai", until=after(site.env.now(), 30))
    await site.writer.change(Keys(), lambda _: Change(pauses=(pause,)))
    async with site.client(providers=providers) as client:
        found = {one["id"]: one for one in (await client.get("/v1/providers")).json()["data"]}
    assert list(found) == list(PROVIDERS)
    paused, missing, fine = found["fluxapi-ai"], found["acedata"], found["flux-context"]
    assert (paused["configured"], paused["healthy"]) == (True, False)
    assert paused["paused_until"] == "2026-01-01T00:00:30.000Z"
    assert (missing["configured"], missing["healthy"], missing["setting"]) == (False, None, "TASKHOOK_ACEDATA_API_KEY")
    assert (fine["healthy"], fine["paused_until"], fine["callbacks"]) == (True, None, False)
    assert "16:9" in paused["models"][0]["aspect_ratios"]
    assert "provider-key" not in str(found)


# The document


def test_the_document_has_every_operation_once() -> None:
    names = [operation.endpoint.__name__ for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    described = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert sorted(described) == sorted(names)


def test_every_example_of_a_body_is_one_that_is_taken() -> None:
    for operation in OPERATIONS:
        if operation.body is not None:
            described = DOCUMENT["paths"][operation.path][operation.method.lower()]["requestBody"]
            example = described["content"]["application/json"]["example"]
            assert msgspec.convert(example, operation.body)


def test_every_operation_with_a_key_says_so_and_every_refusal_is_described() -> None:
    for operation in OPERATIONS:
        assert (operation.right is not None) == operation.path.startswith("/v1/")
        assert ({401, 403, 429} <= set(problems_of(operation))) == (operation.right is not None)


def test_no_field_has_a_default_that_makes_it_required() -> None:
    """openapi-typescript makes a field with a default required; others write code for it that does not compile."""
    schemas = DOCUMENT["components"]["schemas"]
    fields = [(name, field) for name, one in schemas.items() for field in one.get("properties", {}).items()]
    assert fields
    assert [(name, field) for name, (field, schema) in fields if "default" in schema] == []


def test_a_request_says_its_defaults_in_words() -> None:
    fields = DOCUMENT["components"]["schemas"]["CreateTask"]["properties"]
    assert fields["timeout_s"]["description"].endswith("Default: `900`.")
    assert fields["on_unconfirmed"]["description"] == "Default: `wait`."


def test_an_answer_requires_what_it_always_has() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert "object" in schemas["TaskView"]["required"]
    assert "late_result" not in schemas["TaskView"]["required"]
    assert set(schemas["CreateTask"]["required"]) == {"model", "input"}


def test_an_object_says_whether_it_takes_members_of_any_name() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    options, _ = schemas["TaskInput"]["properties"]["options"]["anyOf"]
    assert options["additionalProperties"] is True
    assert schemas["TimelineItem"]["properties"]["detail"]["additionalProperties"] is True


def test_every_parameter_has_a_name_that_can_be_sent() -> None:
    operations = [one for path in DOCUMENT["paths"].values() for one in path.values()]
    parameters = [parameter for one in operations for parameter in one["parameters"]]
    assert {one["name"] for one in parameters if not re.fullmatch(r"[A-Za-z][A-Za-z_-]*", one["name"])} == set()
    (metadata,) = (one for one in DOCUMENT["paths"]["/v1/tasks"]["get"]["parameters"] if one["name"] == "metadata")
    assert (metadata["style"], metadata["schema"]["type"]) == ("deepObject", "object")


@pytest.mark.parametrize("kind", EVENT_TYPES)
def test_every_event_is_a_webhook_whose_schema_it_fits(kind: EventType) -> None:
    sent = DOCUMENT["webhooks"][kind]["post"]["requestBody"]["content"]
    env = FakeEnv()
    about = view_task(make_task(env)) if kind.startswith("task.") else view_endpoint_facts(make_endpoint(env), None)
    body = render_body(Event(id="evt_1", type=kind, at=env.now(), data=msgspec.json.encode(about)), 1)
    for media_type, rendered in (
        ("application/json", body),
        ("application/cloudevents+json", render_cloudevent(body, "https://example.com", None)),
    ):
        schema = {**sent[media_type]["schema"], "components": DOCUMENT["components"]}
        jsonschema.validate(msgspec.json.decode(rendered), schema)
    other = msgspec.json.decode(body) | {"type": "task.unknown"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(other, {**sent["application/json"]["schema"], "components": DOCUMENT["components"]})


async def test_the_document_is_served_as_it_is_built(client: httpx.AsyncClient) -> None:
    assert (await client.get("openapi.json")).json() == DOCUMENT


# The page


class Page(HTMLParser):
    """Parses a page, and checks that every opened element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        assert not {"style", "onclick", "src"} & set(given)
        if "id" in given:
            self.ids.append(given["id"])
        if "href" in given:
            self.links.append(given["href"])
        if tag not in ("meta", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


async def test_the_page_is_sound_complete_and_loads_nothing(client: httpx.AsyncClient) -> None:
    reply = await client.get("/docs")
    page = Page(reply.text)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link in ("data:,", "openapi.json") or link[1:] in page.ids for link in page.links)
    assert {operation.endpoint.__name__ for operation in OPERATIONS} <= set(page.ids)
    assert {f"schema-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(page.ids)
    assert not {"script", "img", "iframe", "form"} & set(page.tags)
    assert re.findall(r"@import|url\(", reply.text) == []


async def test_the_page_allows_its_own_style_and_nothing_else(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/docs")).headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; img-src data:; "
        r"base-uri 'none'; frame-ancestors 'none'",
        policy,
    )
