"""The events that endpoints receive, as the webhooks of the OpenAPI document: one operation and one schema each."""

from collections.abc import Mapping
from typing import Any

from service.core.event import EVENT_TYPES, CloudEvent, Envelope, EventType
from service.core.views import EndpointFacts, TaskView
from service.web.schemas import REF

Json = dict[str, Any]

TAG = "Webhooks"
ABOUT = (
    "The service posts these to endpoints and to the `webhook_url` of a task, signed after Standard Webhooks. "
    "Any 2xx counts as received, 410 disables the endpoint, anything else is retried."
)
SUMMARIES: Mapping[EventType, str] = {
    "task.succeeded": "A task has its result",
    "task.failed": "A task failed; `error` says why",
    "task.canceled": "A task was canceled",
    "task.running": "The provider has accepted a task",
    "task.late_result": "A result arrived after the task had ended",
    "endpoint.failing": "Deliveries to an endpoint fail",
    "endpoint.recovered": "Deliveries to an endpoint succeed again",
    "endpoint.disabled": "An endpoint was disabled",
    "taskhook.ping": "A test of an endpoint",
}
TYPES = (Envelope, CloudEvent, TaskView, EndpointFacts)
"""The types that the schemas of events refer to."""
_HEADERS = {
    "webhook-id": ("The id of the event: the same on every attempt.", {"type": "string"}),
    "webhook-timestamp": ("When this attempt was signed, in seconds since 1970.", {"type": "integer"}),
    "webhook-signature": ("`v1,` and a signature for each secret, separated by spaces.", {"type": "string"}),
}
_ANSWERS = {
    "2XX": {"description": "Received."},
    "410": {"description": "The endpoint is gone: it gets no further events."},
    "default": {"description": "Not received: the event is sent again later."},
}


def describe_webhooks() -> Json:
    return {kind: {"post": _describe(kind)} for kind in EVENT_TYPES}


def describe_events(components: Json) -> Json:
    """Return the schema of each event: an envelope with its own type and data."""
    return {_schema_name(kind): _event_schema(kind, components[Envelope.__name__]) for kind in EVENT_TYPES}


def _event_schema(kind: EventType, envelope: Json) -> Json:
    about = TaskView if kind.startswith("task.") else EndpointFacts
    own = {"type": {"type": "string", "enum": [kind]}, "data": {"$ref": REF.format(name=about.__name__)}}
    description = f"The body of `{kind}`: {SUMMARIES[kind]}."
    return {
        **envelope,
        "title": _schema_name(kind),
        "description": description,
        "properties": {**envelope["properties"], **own},
    }


def _schema_name(kind: EventType) -> str:
    return "".join(part.capitalize() for part in kind.replace("_", ".").split(".")) + "Event"


def _describe(kind: EventType) -> Json:
    schemas = {"application/json": _schema_name(kind), "application/cloudevents+json": CloudEvent.__name__}
    return {
        "operationId": "on" + _schema_name(kind).removesuffix("Event"),
        "summary": SUMMARIES[kind],
        "tags": [TAG],
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": text, "schema": dict(schema)}
            for name, (text, schema) in _HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {media: {"schema": {"$ref": REF.format(name=name)}} for media, name in schemas.items()},
        },
        "responses": _ANSWERS,
        "security": [],
    }
