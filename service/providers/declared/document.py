"""The document that expressions read: `{"http", "headers", "body"}` of a reply or callback, read within bounds."""

from collections.abc import Mapping
from typing import Any

import msgspec

from service.core.foreign_json import is_costly
from service.providers.base import DEPTH_MAX, HttpReply, is_too_deep

STEPS_MAX = 100_000
"""Steps for one document, over all expressions: about 50 ms, whatever a body holds."""
REPLY_NAMES = frozenset({"http", "headers", "body"})
TASK_NAMES = frozenset({"input", "model", "task"})
INPUT_FIELDS = (
    "prompt",
    "negative_prompt",
    "aspect_ratio",
    "size",
    "n",
    "seed",
    "duration_s",
    "image_urls",
    "output_format",
    "translate",
)
"""Members of `input` in `submit.map`."""


class ExhaustedError(ValueError):
    """The document has no steps left."""


class Document:
    """Values that expressions read, and the steps left for reading them."""

    __slots__ = ("steps_left", "values")

    def __init__(self, values: Mapping[str, Any], steps_left: int = STEPS_MAX) -> None:
        self.values = dict(values)
        self.steps_left = steps_left

    def spend(self, steps: int) -> None:
        """Raise ExhaustedError when the steps are used up."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise ExhaustedError

    def with_body(self, body: Any) -> "Document":
        """The document with another body. The steps that are left stay the same."""
        return Document(self.values | {"body": body}, self.steps_left)


def read_reply(reply: HttpReply) -> Document:
    return Document({"http": reply.status, "headers": dict(reply.headers), "body": read_json(reply.body)})


def read_callback(request: HttpReply) -> Document:
    """In callbacks `http` is null."""
    return Document({"http": None, "headers": dict(request.headers), "body": read_json(request.body)})


def read_json(body: bytes | str) -> Any:
    """Return the JSON value; None for what is no JSON, nested too deep or costly. Integers keep every digit."""
    if is_costly(body if isinstance(body, bytes) else body.encode("utf-8", "replace")):
        return None
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    opening = ("{", "[") if isinstance(body, str) else (b"{", b"[")
    may_be_deep = sum(map(body.count, opening)) > DEPTH_MAX  # type: ignore[arg-type]
    return None if may_be_deep and is_too_deep(value) else value
