"""Observability: one wide log line for each thing done, metrics, and traces."""

from service.telemetry.logs import request_context, set_up_logging
from service.telemetry.metrics import Metrics

__all__ = ["Metrics", "request_context", "set_up_logging"]
