"""The client against the service's OpenAPI document: no operation left out unknowingly, no field on either side."""

import dataclasses
import inspect
import re
import typing
from typing import Any

import httpx
import msgspec
import pytest
import taskhook
from taskhook import AsyncTaskhook, Taskhook, _operations, events, models
from taskhook._arguments import OMIT
from taskhook._methods import Method

from service.core.views import EndpointFacts
from tests.support.service import Service

LEFT_OUT = {
    "POST /callbacks/{provider}/{token}": "for providers alone",
    "POST /v1/tasks/{id}/ticket": "for pages: the TypeScript client",
    "GET /v1/tasks/{id}/stream": "for pages: the TypeScript client",
    "GET /healthz": "for the platform",
    "GET /readyz": "for the platform",
    "GET /metrics": "for Prometheus",
    "GET /openapi.json": "the document itself",
    "GET /docs": "for people",
    "POST /v1/providers/{provider}/accounts/{account}/enable": "for operators",
}
MODELS: dict[type, str] = {
    models.TaskInput: "TaskInput",
    models.Output: "Output",
    models.Cost: "Cost",
    models.Result: "Result",
    models.TaskError: "TaskError",
    models.Tracking: "Tracking",
    models.Task: "TaskView",
    models.TimelineItem: "TimelineItem",
    models.Why: "Why",
    models.Endpoint: "EndpointView",
    models.EndpointFilter: "EndpointFilter",
    models.EndpointAuth: "NoAuth",
    models.Recovered: "Recovered",
    models.Retried: "Retried",
    models.Attempt: "AttemptView",
    models.Delivery: "DeliveryView",
    models.Option: "Option",
    models.PixelRange: "PixelRange",
    models.ImageModel: "Model",
    models.Limits: "Limits",
    models.Circuit: "Circuit",
    models.Account: "AccountView",
    models.Provider: "ProviderView",
    models.Key: "KeyView",
    models.Fault: "FaultView",
    events.TaskEvent: "Envelope",
    events.EndpointEvent: "Envelope",
    events.OtherEvent: "Envelope",
}
BODIES = {
    "create_task": ({"CreateTask", "TaskInput"}, {"input"}, {"idempotency_key"}),
    "create_endpoint": ({"CreateEndpoint"}, set(), set()),
    "update_endpoint": ({"ChangeEndpoint"}, set(), {"endpoint_id"}),
    "recover_endpoint": ({"Recover"}, set(), {"endpoint_id"}),
    "create_key": ({"CreateKey"}, set(), set()),
}
"""By operation: the schemas that its arguments fill, what they fill as a whole, and arguments that are elsewhere."""
QUERIES = {
    "list_tasks": "/v1/tasks",
    "list_events": "/v1/events",
    "stream_events": "/v1/events/stream",
    "list_endpoints": "/v1/endpoints",
    "list_deliveries": "/v1/deliveries",
    "list_keys": "/v1/keys",
    "task_timeline": "/v1/tasks/{id}/timeline",
}
CALLS = [
    ("tasks.create", {"model": "m", "prompt": "p"}),
    ("tasks.retrieve", "task_1"),
    ("tasks.list", {}),
    ("tasks.wait", "task_1"),
    ("tasks.create_and_wait", {"model": "m", "prompt": "p"}),
    ("tasks.poll", "task_1"),
    ("tasks.cancel", "task_1"),
    ("tasks.erase", "task_1"),
    ("tasks.timeline", "task_1"),
    ("tasks.why", "task_1"),
    ("events.retrieve", "evt_1"),
    ("events.list", {}),
    ("events.stream", {}),
    ("endpoints.create", {"url": "https://example.com"}),
    ("endpoints.retrieve", "ep_1"),
    ("endpoints.list", {}),
    ("endpoints.update", "ep_1"),
    ("endpoints.delete", "ep_1"),
    ("endpoints.rotate_secret", "ep_1"),
    ("endpoints.test", "ep_1"),
    ("endpoints.recover", ("ep_1", {"since": "2026-01-01"})),
    ("deliveries.retrieve", "dlv_1"),
    ("deliveries.list", {}),
    ("deliveries.body", "dlv_1"),
    ("deliveries.retry", "dlv_1"),
    ("deliveries.retry_all", {"dry_run": True}),
    ("providers.list", {}),
    ("keys.create", {"name": "n", "scopes": ["admin"]}),
    ("keys.list", {}),
    ("keys.revoke", "key_1"),
    ("faults.list", {}),
    ("faults.retry", "task_1"),
]


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    return httpx.get(f"{service.url}/openapi.json", trust_env=False).json()


def fields(model: type) -> set[str]:
    return {field.name for field in dataclasses.fields(model) if not field.name.startswith("_")}


def asked(name: str, arguments: Any) -> str:
    """The request that a method makes, as a line of the API's table."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(400)

    args, kwargs = arguments if isinstance(arguments, tuple) else ((), arguments)
    if isinstance(arguments, str):
        args, kwargs = arguments, {}
    given = (args,) if isinstance(args, str) else args
    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        client = Taskhook("key", base_url="http://taskhook", http_client=http)
        noun, _, verb = name.partition(".")
        with pytest.raises(taskhook.BadRequestError):
            found = getattr(getattr(client, noun), verb)(*given, **kwargs)
            next(iter(found))
    return f"{seen[0].method} {re.sub(r'/(task|evt|ep|dlv|key)_1', '/{id}', seen[0].url.path)}"


def test_every_operation_has_a_method_or_is_left_out_for_a_reason(document: Any) -> None:
    offered = {f"{verb.upper()} {path}" for path, verbs in document["paths"].items() for verb in verbs}
    assert {asked(name, arguments) for name, arguments in CALLS} | set(LEFT_OUT) == offered


def test_both_clients_have_the_same_methods_and_all_of_them_are_in_the_table_above() -> None:
    def methods(client: type) -> set[str]:
        nouns = typing.get_type_hints(client, vars(__import__("taskhook._client", fromlist=["resources"])))
        return {
            f"{noun}.{name}"
            for noun, resource in nouns.items()
            for name, value in vars(resource).items()
            if isinstance(value, Method)
        }

    assert methods(Taskhook) == methods(AsyncTaskhook) == {name for name, _ in CALLS}


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_the_fields_of_its_schema(document: Any, model: type) -> None:
    assert fields(model) == set(document["components"]["schemas"][MODELS[model]]["properties"])


def test_no_model_is_left_out_of_this_comparison() -> None:
    made = {
        one
        for module in (models, events)
        for one in vars(module).values()
        if dataclasses.is_dataclass(one) and one.__module__ == module.__name__ and one is not events.BaseEvent
    }
    assert made - set(MODELS) == {models.EndpointFacts}
    assert fields(models.EndpointFacts) == set(EndpointFacts.__struct_fields__)


@pytest.mark.parametrize("name", BODIES)
def test_an_operation_takes_what_the_body_may_hold(document: Any, name: str) -> None:
    schemas, whole, elsewhere = BODIES[name]
    properties = {field for schema in schemas for field in document["components"]["schemas"][schema]["properties"]}
    assert set(inspect.signature(getattr(_operations, name)).parameters) - elsewhere == properties - whole


@pytest.mark.parametrize("name", QUERIES)
def test_an_operation_takes_what_the_query_may_hold(document: Any, name: str) -> None:
    parameters = {one["name"] for one in document["paths"][QUERIES[name]]["get"]["parameters"] if one["in"] == "query"}
    taken = set(inspect.signature(getattr(_operations, name)).parameters) - {"task_id" if "timeline" in name else ""}
    assert taken == parameters


def test_words_of_enumerations_are_those_of_the_service(document: Any) -> None:
    schemas = document["components"]["schemas"]

    def words(schema: str, field: str) -> set[str]:
        found = schemas[schema]["properties"][field]
        found = found["anyOf"][0] if "anyOf" in found else found
        return set(found.get("enum") or found["items"]["enum"])

    assert set(typing.get_args(models.TaskStatus)) == words("TaskView", "status")
    assert set(typing.get_args(models.ErrorCode)) == words("TaskError", "code")
    assert set(typing.get_args(models.Via)) == words("Tracking", "via")
    assert set(typing.get_args(models.EventType)) == words("Envelope", "type")
    assert set(typing.get_args(models.EventPattern)) == words("CreateEndpoint", "events")
    assert set(typing.get_args(models.DeliveryStatus)) == words("DeliveryView", "status")
    assert set(typing.get_args(models.Format)) == words("EndpointView", "format")
    assert set(typing.get_args(models.Scope)) == words("KeyView", "scopes")
    assert set(typing.get_args(models.OnUnconfirmed)) == words("CreateTask", "on_unconfirmed")


def test_what_a_newer_service_adds_breaks_nothing() -> None:
    body = msgspec.json.decode(
        b"""{"id": "ep_1", "url": "https://x.test", "events": ["task.new"], "filter": {}, "metadata": {},
        "format": "grpc", "headers": {}, "max_in_flight": 1, "rate_per_s": null, "description": "", "enabled": true,
        "failing": false, "disabled_reason": null, "disabled_at": null, "held": 0, "held_since": null,
        "created_at": "2026-01-01T00:00:00.000Z", "colour": {"name": "blue"}}"""
    )
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, json=body))) as http:
        endpoint = Taskhook("key", http_client=http).endpoints.retrieve("ep_1")
    assert (endpoint.format, endpoint.events, endpoint.secret) == ("grpc", ["task.new"], None)
    assert endpoint.to_dict()["colour"] == {"name": "blue"}
    assert events.decode_event({**EVENT, "type": "moon.rose", "data": [1]}) == events.OtherEvent(
        id="evt_1", type="moon.rose", timestamp=events.decode_event(EVENT).timestamp, sequence=1, data=[1]
    )


EVENT = {"id": "evt_1", "type": "x.y", "timestamp": "2026-01-01T00:00:00.000Z", "sequence": 1, "data": None}


def test_the_limit_of_an_endpoint_can_be_lifted_or_left() -> None:
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(msgspec.json.decode(request.content))
        return httpx.Response(400)

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        endpoints = Taskhook("key", http_client=http).endpoints
        for rate in (OMIT, None, 2.5):
            with pytest.raises(taskhook.BadRequestError):
                endpoints.update("ep_1", rate_per_s=rate, enabled=False)
    assert sent == [{"enabled": False}, {"enabled": False, "rate_per_s": None}, {"enabled": False, "rate_per_s": 2.5}]
