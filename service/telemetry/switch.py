"""Decide whether to trace: by the setting, the OTEL_* variables, and whether the extra is installed."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import cast

import structlog

from service.core.problems import Unavailable
from service.telemetry.metrics import Metrics
from service.telemetry.tracing import OFF, Tracing

log = structlog.get_logger()

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def start_tracing(wanted: bool | None, otel: Mapping[str, str], metrics: Metrics) -> Tracing:
    """Start tracing if `wanted`, or if it is None and the OTEL_* variables in `otel` name an endpoint.

    Raises Unavailable if tracing is wanted and impossible. An endpoint alone stops no start, since a platform may set
    it for every service.
    """
    endpoint = any(otel.get(name) for name in ENDPOINTS)
    if wanted is False or _word(otel, "OTEL_SDK_DISABLED") == "true" or not (wanted or endpoint):
        return OFF
    obstacle = _find_obstacle(otel)
    if obstacle is None:
        return _start(otel, metrics)
    if wanted:
        raise Unavailable("TASKHOOK_TRACING is true, but tracing is not possible.", cause=obstacle)
    log.warning("tracing.off", reason=obstacle)
    return OFF


def _start(otel: Mapping[str, str], metrics: Metrics) -> Tracing:
    try:
        return cast(Tracing, import_module("service.telemetry.otel").start(otel, metrics))
    except (ImportError, ValueError) as error:
        raise Unavailable("Tracing could not start.", cause=str(error)) from error


def _find_obstacle(otel: Mapping[str, str]) -> str | None:
    if not all(map(_is_installed, NEEDED)):
        return "it needs the extra: pip install 'taskhook[otel]'"
    exporter = _word(otel, "OTEL_TRACES_EXPORTER") or "otlp"
    if exporter not in ("otlp", "none"):
        return f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter!r}"
    protocol = next((found for name in PROTOCOLS if (found := _word(otel, name))), "http/protobuf")
    if exporter == "otlp" and protocol != "http/protobuf":
        return f"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not {protocol!r}"
    return None


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _word(otel: Mapping[str, str], name: str) -> str:
    return otel.get(name, "").strip().lower()
