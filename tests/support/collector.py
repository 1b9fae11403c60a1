"""A real OTLP/HTTP collector: it decodes what it is sent, and answers by script."""

from dataclasses import dataclass
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.server import Answer, Reply, Request, ScriptedServer
from tests.support.wait import until


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    trace_id: str
    id: str
    parent_id: str
    name: str
    kind: str
    attributes: dict[str, Any]
    failed: bool
    links: list[tuple[str, str]]
    seconds: float
    starts_ns: int
    resource: dict[str, Any]


class Collector:
    """`then` is the answer to every request."""

    def __init__(self, then: Answer | None = None) -> None:
        self.server = ScriptedServer(self._answer)
        self.requests: list[Request] = []
        self.spans: list[Seen] = []
        self._then = then or Reply(200)

    async def __aenter__(self) -> Self:
        await self.server.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.close()

    @property
    def environment(self) -> dict[str, str]:
        """Sends it what there is at once instead of every five seconds."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.server.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    @property
    def everything(self) -> bytes:
        """Each byte that came, headers too."""
        return b"".join(repr(request.headers).encode() + request.raw_body for request in self.requests)

    def of(self, trace_id: str, name: str = "") -> list[Seen]:
        found = [span for span in self.spans if span.trace_id == trace_id and span.name.startswith(name)]
        return sorted(found, key=lambda span: span.starts_ns)

    async def one(self, trace_id: str, name: str, **attributes: Any) -> Seen:
        """The span of that name and with these attributes, as soon as it is here; dots are double underscores."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}

        def found() -> list[Seen]:
            return [span for span in self.of(trace_id, name) if wanted.items() <= span.attributes.items()]

        (span,) = await until(found, what=f"a span {name} {wanted} in {trace_id}")
        return span

    async def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        assert (request.method, request.path) == ("POST", "/v1/traces")
        for group in ExportTraceServiceRequest.FromString(request.raw_body).resource_spans:
            resource = _attributes(group.resource.attributes)
            for scoped in group.scope_spans:
                self.spans += [_seen(span, resource) for span in scoped.spans]
        return self._then


def _seen(span: WireSpan, resource: dict[str, Any]) -> Seen:
    return Seen(
        trace_id=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        attributes=_attributes(span.attributes),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        starts_ns=span.start_time_unix_nano,
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    return getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
