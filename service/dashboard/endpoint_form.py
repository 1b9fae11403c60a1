"""The settings of an endpoint as a form: what was entered becomes a request, and what is set fills the fields."""

from typing import Any, get_args

from msgspec.structs import replace

from service.core.delivery import Format
from service.core.problems import FieldError, InvalidRequest
from service.core.views import EndpointView
from service.dashboard.forms import ON, Entered, boxes, checked, errors_by_field, lines, number_or_text, read_lines
from service.web.subscribing import Pattern

PATTERNS: tuple[str, ...] = get_args(Pattern)
FORMATS: tuple[str, ...] = get_args(Format)
NEW: Entered = {"format": "standard", "max_in_flight": "10", "timeout_s": "15", **boxes("events", ("task.*",))}


def read_settings(form: Entered) -> dict[str, Any]:
    """The body of a request. Values of headers are never shown, so an empty field keeps them."""
    rate = form.get("rate_per_s", "").strip()
    settings: dict[str, Any] = {
        "url": form.get("url", "").strip(),
        "events": checked(form, "events"),
        "filter": {
            "providers": checked(form, "filter.providers"),
            "models": form.get("filter.models", "").split(),
            "accounts": form.get("filter.accounts", "").split(),
            "metadata": read_lines(form.get("filter.metadata", ""), "=", "filter.metadata"),
        },
        "metadata": read_lines(form.get("metadata", ""), "=", "metadata"),
        "format": form.get("format", ""),
        "max_in_flight": number_or_text(form.get("max_in_flight", "")),
        "timeout_s": number_or_text(form.get("timeout_s", "")) or None,
        "rate_per_s": number_or_text(rate) if rate else None,
        "description": form.get("description", "").strip(),
    }
    headers = read_lines(form.get("headers", ""), ":", "headers")
    return {**settings, "headers": headers} if headers or form.get("drop_headers") == ON else settings


def entered_of(endpoint: EndpointView) -> Entered:
    """The fields as they are set."""
    return {
        "url": endpoint.url,
        "filter.models": "\n".join(endpoint.filter.models),
        "filter.accounts": "\n".join(endpoint.filter.accounts),
        "filter.metadata": lines(endpoint.filter.metadata, "="),
        "metadata": lines(endpoint.metadata, "="),
        "format": endpoint.format,
        "max_in_flight": str(endpoint.max_in_flight),
        "timeout_s": f"{endpoint.timeout_s:g}",
        "rate_per_s": "" if endpoint.rate_per_s is None else f"{endpoint.rate_per_s:g}",
        "description": endpoint.description,
        **boxes("events", endpoint.events),
        **boxes("filter.providers", endpoint.filter.providers),
    }


def find_errors(problem: InvalidRequest) -> dict[str, str]:
    """The errors by the names of the fields; those of the filter have two parts."""
    return errors_by_field(InvalidRequest([_name_field(error) for error in problem.errors]))


def _name_field(error: FieldError) -> FieldError:
    match error.loc:
        case [start, "filter", field, *rest]:
            return replace(error, loc=[start, f"filter.{field}", *rest])
        case _:
            return error
