"""The settings of an endpoint as a form: what was entered becomes a request, and what is set fills the fields."""

from typing import Any, get_args

from service.core.delivery import Format
from service.core.views import EndpointView
from service.dashboard.forms import ON, Entered, boxes, checked, lines, number_or_text, read_lines
from service.web.subscribing import Pattern

PATTERNS: tuple[str, ...] = get_args(Pattern)
FORMATS: tuple[str, ...] = get_args(Format)
NEW: Entered = {"format": "standard", "max_in_flight": "10", **boxes("events", ("task.*",))}


def read_settings(form: Entered) -> dict[str, Any]:
    """The body of a request. Values of headers are never shown, so an empty field keeps them."""
    rate = form.get("rate_per_s", "").strip()
    settings: dict[str, Any] = {
        "url": form.get("url", "").strip(),
        "events": checked(form, "events"),
        "providers": checked(form, "providers"),
        "metadata": read_lines(form.get("metadata", ""), "=", "metadata"),
        "format": form.get("format", ""),
        "max_in_flight": number_or_text(form.get("max_in_flight", "")),
        "rate_per_s": number_or_text(rate) if rate else None,
        "description": form.get("description", "").strip(),
    }
    headers = read_lines(form.get("headers", ""), ":", "headers")
    return {**settings, "headers": headers} if headers or form.get("drop_headers") == ON else settings


def entered_of(endpoint: EndpointView) -> Entered:
    """The fields as they are set."""
    return {
        "url": endpoint.url,
        "metadata": lines(endpoint.metadata, "="),
        "format": endpoint.format,
        "max_in_flight": str(endpoint.max_in_flight),
        "rate_per_s": "" if endpoint.rate_per_s is None else f"{endpoint.rate_per_s:g}",
        "description": endpoint.description,
        **boxes("events", endpoint.events),
        **boxes("providers", endpoint.providers),
    }
