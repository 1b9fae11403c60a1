"""Validation of endpoints beyond the types of their fields; each error names its field."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import Meta

from service.core.delivery import EndpointFilter
from service.core.problems import FieldError, InvalidRequest
from service.web.context import Web
from service.web.creating import is_model

Pattern = Literal[
    "task.*",
    "endpoint.*",
    "task.succeeded",
    "task.failed",
    "task.canceled",
    "task.running",
    "task.late_result",
    "endpoint.failing",
    "endpoint.recovered",
    "endpoint.disabled",
]
Headers = Annotated[
    dict[str, Annotated[str, Meta(max_length=4_096)]],
    Meta(max_length=20, description="Sent with every attempt; shown by name alone afterwards."),
]

NO_CONFIG = "is not known here: an endpoint of type webhook has no configuration"
HIDDEN = "(hidden)"
NAME_MAX = 128
OURS = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "date", "expect", "host"}
    | {"keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
"""Set by the protocol or by the delivery itself; `user-agent` is the subscriber's to choose."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)
_VALUE = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?", re.ASCII)


async def check_settings(web: Web, settings: dict[str, Any]) -> None:
    """Raises InvalidRequest with all that is wrong with these settings; those that are left out are fine."""
    errors = [FieldError(loc=["body", "config", name], msg=NO_CONFIG) for name in settings.get("config", {})]
    errors += _check_filter(web, settings.get("filter", EndpointFilter()))
    errors += _check_headers(settings.get("headers", {}))
    if "url" in settings and (reason := await web.trust.guard.resolve_public(settings["url"])):
        errors.append(FieldError(loc=["body", "url"], msg=reason))
    if errors:
        raise InvalidRequest(errors)


def _check_filter(web: Web, wanted: EndpointFilter) -> Iterator[FieldError]:
    """A name that no event can have would silently select nothing."""
    for index, name in enumerate(wanted.providers):
        if name not in web.providers:
            msg = f"must be one of {', '.join(web.providers)}"
            yield FieldError(loc=["body", "filter", "providers", index], msg=msg)
    for index, name in enumerate(wanted.models):
        if not is_model(web.providers, name):
            msg = "is no model of any provider; GET /v1/providers lists them"
            yield FieldError(loc=["body", "filter", "models", index], msg=msg)


def _check_headers(headers: dict[str, str]) -> Iterator[FieldError]:
    seen: set[str] = set()
    for name, value in headers.items():
        reason = _name_reason(name, seen) or _value_reason(value)
        seen.add(name.lower())
        if reason:
            yield FieldError(loc=["body", "headers", name], msg=reason)


def _name_reason(name: str, seen: set[str]) -> str | None:
    lower = name.lower()
    if not _TOKEN.fullmatch(name):
        return f"is no header name: letters, digits and hyphens, {NAME_MAX} at most"
    if lower in OURS or lower.startswith("webhook-"):
        return "is set by the delivery itself"
    return "is given twice" if lower in seen else None


def _value_reason(value: str) -> str | None:
    if value == HIDDEN:
        return "is how values are shown; give the real one, or leave headers out to keep them"
    return None if _VALUE.fullmatch(value) else "must be printable ASCII, with no space at its ends"
