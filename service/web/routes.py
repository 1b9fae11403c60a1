"""Every route on one screen: the table that the routes and the OpenAPI document are made from."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import msgspec
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.event import Envelope
from service.core.keys import Scope as Right
from service.core.problems import NotFound
from service.core.views import DeliveryView, EndpointView, TaskView
from service.core.why import Why
from service.large_bodies import read_apart
from service.web import (
    callbacks,
    deliveries,
    docs,
    endpoints,
    events,
    faults,
    keys,
    operations,
    stream,
    task_stream,
    tasks,
)
from service.web.auth import NOBODY, Caller
from service.web.bodies import BODY_MAX, check_content_type, decode_body, read_body
from service.web.calls import Answer, B, Call, Operation, Q, Reply, find_header
from service.web.codings import gunzip, is_gzipped
from service.web.context import Web, WebContext
from service.web.cors import find_ticket
from service.web.errors import MethodNotAllowed
from service.web.middleware import ALWAYS, Gate
from service.web.openapi import build_document
from service.web.prefix import Prefixed, prefix_of
from service.web.queries import decode_query, pick_query
from service.web.tickets import CreateTicket, TicketView

HTML, TEXT, EVENT_STREAM, JSON_TEXT = "text/html", "text/plain", "text/event-stream", "application/json"
METRICS = f"{TEXT}, application/openmetrics-text"
IDEMPOTENCY = {"Idempotency-Key": "Up to 255 characters: the same key and body give the same task."}
LAST_STATE = {"Last-Event-ID": "The `id` of the last frame: the same state is not sent again."}
LAST_EVENT = {"Last-Event-ID": "Go on after this event; without it the stream starts at its present end."}


def _op(
    tag: str,
    right: Right | None,
    line: str,
    endpoint: Callable[[Web, Call[Q, B]], Awaitable[Reply]],
    summary: str,
    answers: Mapping[int, Any],
    query: type[Q] | None = None,
    body: type[B] | None = None,
    problems: tuple[int, ...] = (),
    headers: Mapping[str, str] | None = None,
    takes_ticket: bool = False,
) -> Operation[Q, B]:
    method, _, path = line.partition(" ")
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        tag=tag,
        right=right,
        answers=answers,
        query=query,
        body=body,
        problems=problems,
        headers=headers or {},
        takes_ticket=takes_ticket,
    )


async def get_openapi(web: Web, _call: Call[None, None]) -> Answer:
    """The document of this very table."""
    return Answer(200, _document(prefix_of(web.running.public_url) or "/"))


async def get_docs(_web: Web, _call: Call[None, None]) -> Answer:
    """The same for people."""
    return _page()


# fmt: off
T, E, S, D, P, K, O = "Tasks", "Events", "Endpoints", "Deliveries", "Providers", "Keys", "Operation"  # noqa: E741
OPEN = None
# ruff: noqa: E501
OPERATIONS: tuple[Operation[Any, Any], ...] = (
    _op(P, OPEN, "POST /callbacks/{provider}/{token:path}", callbacks.receive_callback, "Take a provider's callback", {200: callbacks.Received}, problems=(400, 403, 409, 413, 415)),
    _op(T, "tasks:write", "POST /v1/tasks", tasks.create_task, "Create a task", {202: TaskView, 200: TaskView}, body=tasks.CreateTask, problems=(409,), headers=IDEMPOTENCY),
    _op(T, "tasks:read", "GET /v1/tasks", tasks.list_tasks, "List tasks, newest first", {200: tasks.TaskList}, query=tasks.ListTasks),
    _op(T, "tasks:read", "GET /v1/tasks/{id}", tasks.get_task, "Get a task, or wait for its end", {200: TaskView}, query=tasks.GetTask, takes_ticket=True),
    _op(T, "tasks:read", "GET /v1/tasks/{id}/stream", task_stream.stream_task, "Follow one task until it is final", {200: EVENT_STREAM, 204: None}, query=task_stream.StreamTask, headers=LAST_STATE, takes_ticket=True),
    _op(T, "tasks:read", "POST /v1/tasks/{id}/ticket", tasks.create_ticket, "Issue a ticket that reads this task", {201: TicketView}, body=CreateTicket, problems=(409,)),
    _op(T, "tasks:read", "GET /v1/tasks/{id}/timeline", tasks.get_timeline, "What happened to a task", {200: tasks.Timeline}, query=tasks.GetTimeline),
    _op(T, "tasks:read", "GET /v1/tasks/{id}/why", tasks.get_why, "Why a task is where it is, and what comes next", {200: Why}),
    _op(T, "tasks:write", "POST /v1/tasks/{id}/cancel", tasks.cancel_task, "Stop tracking a task", {200: TaskView}, problems=(409,)),
    _op(T, "tasks:write", "POST /v1/tasks/{id}/poll", tasks.poll_task, "Ask the provider now", {202: TaskView}, problems=(409,)),
    _op(T, "tasks:write", "DELETE /v1/tasks/{id}", tasks.erase_task, "Erase what a final task holds", {204: None}, problems=(409,)),
    _op(E, "tasks:read", "GET /v1/events/stream", stream.stream_events, "Follow events as they happen", {200: EVENT_STREAM}, query=stream.StreamEvents, headers=LAST_EVENT),
    _op(E, "tasks:read", "GET /v1/events", events.list_events, "List events, oldest first", {200: events.EventList}, query=events.ListEvents),
    _op(E, "tasks:read", "GET /v1/events/{id}", events.get_event, "Get an event", {200: Envelope}),
    _op(S, "endpoints", "POST /v1/endpoints", endpoints.create_endpoint, "Create an endpoint; its secret is shown", {201: EndpointView}, body=endpoints.CreateEndpoint),
    _op(S, "endpoints", "GET /v1/endpoints", endpoints.list_endpoints, "List endpoints", {200: endpoints.EndpointList}, query=endpoints.ListEndpoints),
    _op(S, "endpoints", "GET /v1/endpoints/{id}", endpoints.get_endpoint, "Get an endpoint", {200: EndpointView}),
    _op(S, "endpoints", "PATCH /v1/endpoints/{id}", endpoints.change_endpoint, "Change, enable or disable an endpoint", {200: EndpointView}, body=endpoints.ChangeEndpoint),
    _op(S, "endpoints", "DELETE /v1/endpoints/{id}", endpoints.delete_endpoint, "Delete an endpoint", {204: None}),
    _op(S, "endpoints", "POST /v1/endpoints/{id}/rotate-secret", endpoints.rotate_secret, "A new secret; for 24 hours the old one signs, too", {200: EndpointView}, problems=(409,)),
    _op(S, "endpoints", "POST /v1/endpoints/{id}/test", endpoints.test_endpoint, "Send a taskhook.ping now", {202: DeliveryView}),
    _op(S, "endpoints", "POST /v1/endpoints/{id}/recover", endpoints.recover, "Send again what was not received", {200: endpoints.Recovered}, body=endpoints.Recover, problems=(409,)),
    _op(D, "endpoints", "GET /v1/deliveries", deliveries.list_deliveries, "List deliveries, newest first", {200: deliveries.DeliveryList}, query=deliveries.ListDeliveries),
    _op(D, "endpoints", "POST /v1/deliveries/retry", deliveries.retry_deliveries, "One attempt now for each that matches", {202: deliveries.Retried, 200: deliveries.Retried}, body=deliveries.RetryDeliveries),
    _op(D, "endpoints", "GET /v1/deliveries/{id}", deliveries.get_delivery, "Get a delivery with its attempts", {200: DeliveryView}),
    _op(D, "endpoints", "GET /v1/deliveries/{id}/body", deliveries.get_delivery_body, "What a delivery sends, byte for byte", {200: JSON_TEXT}),
    _op(D, "endpoints", "POST /v1/deliveries/{id}/retry", deliveries.retry_delivery, "One attempt now", {202: DeliveryView}, problems=(409,)),
    _op(P, "admin", "POST /v1/providers/{provider}/accounts/{account}/enable", operations.enable_account, "Send with an account again whose key was refused", {200: operations.AccountView}),
    _op(P, "tasks:read", "GET /v1/providers", operations.list_providers, "List providers, their models and limits", {200: operations.ProviderList}),
    _op(K, "admin", "POST /v1/keys", keys.create_key, "Make a key; it is shown this once", {201: keys.KeyView}, body=keys.CreateKey, problems=(409,)),
    _op(K, "admin", "GET /v1/keys", keys.list_keys, "List keys, oldest first", {200: keys.KeyList}, query=keys.ListKeys),
    _op(K, "admin", "DELETE /v1/keys/{id}", keys.revoke_key, "Revoke a key, everywhere within seconds", {204: None}),
    _op(O, "admin", "GET /v1/faults", faults.list_faults, "List what work failed on by our own mistake", {200: faults.FaultList}),
    _op(O, "admin", "POST /v1/faults/{id}/retry", faults.retry_fault, "Work on what is parked again", {202: faults.FaultView}, problems=(409,)),
    _op(O, OPEN, "GET /healthz", operations.get_health, "Whether the process answers", {200: operations.Health}),
    _op(O, OPEN, "GET /readyz", operations.get_readiness, "Whether requests may be sent here", {200: operations.Readiness, 503: operations.Readiness}, query=operations.GetReadiness),
    _op(O, OPEN, "GET /metrics", operations.get_metrics, "Metrics in Prometheus text format, or OpenMetrics", {200: METRICS}),
    _op(O, OPEN, "GET /openapi.json", get_openapi, "This document", {200: docs.ANY}),
    _op(O, OPEN, "GET /docs", get_docs, "This document for people", {200: HTML}),
)
# fmt: on


Pages = Callable[[Web], Sequence[BaseRoute]]


def no_pages(_web: Web) -> Sequence[BaseRoute]:
    return ()


PROBES = tuple(operation for operation in OPERATIONS if operation.path in ALWAYS)
"""All that a worker answers, which takes no requests."""


def build_app(
    context: WebContext,
    mounts: Sequence[BaseRoute] = (),
    pages: Pages = no_pages,
    operations: Sequence[Operation[Any, Any]] = OPERATIONS,
) -> ASGIApp:
    """The whole of HTTP coming in, as one ASGI application. `pages` are the dashboard."""
    web = Web(context)
    by_path: dict[str, dict[str, Operation[Any, Any]]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes = [Route(path, _Resource(web, found)) for path, found in by_path.items()]
    router = Router([*routes, *mounts, *pages(web)], redirect_slashes=False, default=partial(_nothing_here, web))
    gate = Gate(
        router,
        context.env,
        context.running.metrics,
        context.running.tracing,
        context.running.cors_origins,
    )
    prefix = prefix_of(context.running.public_url)
    return Prefixed(gate, prefix) if prefix else gate


@cache
def _document(server_url: str) -> bytes:
    return msgspec.json.encode(build_document(OPERATIONS, server_url))


@cache
def _page() -> Answer:
    return docs.render_page(msgspec.json.decode(_document("/")))


async def _authenticate(web: Web, scope: Scope) -> Caller:
    address, _ = scope.get("client") or ("", 0)
    return await web.keys.authenticate(find_header(scope, b"authorization"), address)


async def _nothing_here(web: Web, scope: Scope, _receive: Receive, _send: Send) -> None:
    """Answer 404; under /v1 only to authenticated callers."""
    if f"{scope['path']}/".startswith("/v1/"):
        await _authenticate(web, scope)
    raise NotFound("There is nothing at this address; /docs shows what there is.")


class _Resource:
    """Handles a path: authentication, method, query and body."""

    def __init__(self, web: Web, operations: Mapping[str, Operation[Any, Any]]) -> None:
        self._web = web
        self._is_open = all(operation.right is None for operation in operations.values())
        self._operations = dict(operations)
        if "GET" in operations:
            self._operations["HEAD"] = operations["GET"]
        self._decoders = {method: _decoder(operation.body) for method, operation in operations.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = self._operations.get(scope["method"])
        caller = NOBODY if self._is_open else await self._find_caller(scope, operation)
        if operation is None:
            raise MethodNotAllowed(", ".join(self._operations))
        if operation.right is None:
            query = None if operation.query is None else pick_query(scope["query_string"], operation.query)
            reply = await operation.endpoint(self._web, Call(scope, receive, caller, query, None))
        else:
            caller.check(operation.right)
            reply = await self._answer(operation, scope, receive, caller)
        await reply(receive, send)

    async def _find_caller(self, scope: Scope, operation: Operation[Any, Any] | None) -> Caller:
        ticket = find_ticket(scope) if operation is not None and operation.takes_ticket else None
        if ticket is None or find_header(scope, b"authorization") is not None:
            return await _authenticate(self._web, scope)
        return await self._web.tickets.authenticate(ticket, scope["path_params"]["id"])

    async def _answer(self, operation: Operation[Any, Any], scope: Scope, receive: Receive, caller: Caller) -> Reply:
        """Take a place only once the whole request is here, and give it back before the answer is sent.

        So nobody holds one by sending or reading slowly.
        """
        query = None if operation.query is None else decode_query(scope["query_string"], operation.query)
        sent, is_encoded = b"", False
        if operation.body is not None:
            check_content_type(find_header(scope, b"content-type"))
            is_encoded = is_gzipped(scope)
            sent = await read_body(scope, receive, self._web.slow_bodies, caller.name)
        with self._web.requests:
            sent = gunzip(sent, BODY_MAX) if is_encoded else sent
            body = None
            if operation.body is not None:
                body = await read_apart(len(sent), partial(decode_body, sent, self._decoders[scope["method"]]))
            return await operation.endpoint(self._web, Call(scope, receive, caller, query, body))


def _decoder(kind: type[Any] | None) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(Any if kind is None else kind)
