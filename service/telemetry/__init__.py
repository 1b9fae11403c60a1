"""Observability: one wide log line for each thing done, metrics, and traces."""

from service.telemetry.logs import request_context, set_up_logging
from service.telemetry.metrics import Metrics, log_dropped_outputs

__all__ = ["Metrics", "log_dropped_outputs", "request_context", "set_up_logging"]
