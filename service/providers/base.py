"""The Provider interface: declared data, and pure functions between values and bytes."""

import re
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any, Literal, Protocol

import msgspec

from service.core.account import KEY, Account, Limits
from service.core.observation import Answer, Ask, Observation
from service.core.problems import FieldError
from service.core.schedule import Policy
from service.core.task import Task, TaskInput

USER_AGENT = f"Taskhook/{version('taskhook')}"
POLL_TIMEOUT_S = 30.0
DEPTH_MAX = 100
"""Levels of nesting in foreign JSON: far more than any provider sends, far fewer than Python's stack."""
_WEB_URL = re.compile(r"https?://([^/?#@\s]*@)?(\[[0-9a-f:.]+\]|[^/?#@:\[\]\s]+)(:\d*)?([/?#]\S*)?", re.IGNORECASE)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """An option under the provider's own name, with what it allows; `maximum_edit` where edits allow less."""

    name: str
    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    maximum_edit: float | None = None
    choices: tuple[str, ...] = ()
    note: str = ""


class PixelRange(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes given as WIDTHxHEIGHT: each side within the bounds, in pixels, and a multiple; None is no upper bound."""

    minimum: int
    maximum: int | None
    multiple: int


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model with its limits; an empty limit means that the API has no such parameter for it.

    `max_images_edit` is the limit where a picture is edited, since some APIs make several only from text.
    """

    name: str
    aspect_ratios: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    pixels: PixelRange | None = None
    max_images: int = 1
    max_images_edit: int = 1
    edits: bool = False
    output_formats: tuple[str, ...] = ()
    translates: bool = False
    options: tuple[Option, ...] = ()
    requires: tuple[str, ...] = ("prompt",)
    accepts: frozenset[str] | None = None
    """Fields of the input that reach the provider; with it, an empty list of choices allows any value."""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A credential of an account. `older_setting` ends the name of a setting that is accepted in place of the new."""

    name: str
    required: bool = True
    older_setting: str | None = None

    @property
    def setting(self) -> str:
        """The end of its setting's name."""
        return "API_KEY" if self.name == KEY else self.name.upper()


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Features of the API. `blocking`: the submit's reply is the result, and there is nothing to poll."""

    callbacks: bool
    polling: bool
    blocking: bool
    base_url: str
    models: tuple[Model, ...]
    limits: Limits
    submit_timeout_s: float
    result_life_s: float | None
    reserved_options: frozenset[str]
    """Fields of the request body that Taskhook sets itself, so no option may name them."""
    secrets: tuple[Secret, ...] = (Secret(name=KEY),)
    """A secret of an account. The account exists once every required one is set."""
    open_model: Model | None = None
    """Stands for every name that is not declared, under the provider's own prefix."""
    callback_methods: tuple[str, ...] = ("POST",)
    callback_answer: tuple[int, bytes] = (200, b'{"status":"received"}')
    simulated: bool = True
    poll_first_s: float | None = None
    poll_max_s: float | None = None
    """Times between polls that the provider asks for, in place of the settings'."""

    def model(self, name: str) -> Model | None:
        return next((model for model in self.models if model.name == name), None)


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A call to make; the headers hold the account's key and never show in a repr."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    url: str
    headers: dict[str, str]
    body: bytes | None
    timeout_s: float

    def __repr__(self) -> str:
        return f"HttpRequest({self.method} {self.url})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("url", self.url)]


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, or a callback's request: header names in lower case, the body as received.

    One over the limit is omitted, and `too_long` is the limit in bytes.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime
    too_long: int | None = None

    @property
    def is_2xx(self) -> bool:
        return 200 <= self.status < 300


class Provider(Protocol):
    """An upstream API. No `parse_*` ever raises, whatever the bytes; what `capabilities` deny is never called."""

    id: str
    capabilities: Capabilities

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        """Return the errors of this input for this model; empty if the provider would accept it."""
        ...

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest: ...

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        """Accepted, Succeeded, Failed, Throttled, NotSent or Unconfirmed."""
        ...

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest: ...

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation | Ask:
        """Pending, Succeeded, Failed, Throttled, NotFound or Unreadable."""
        ...

    def verify_callback(self, request: HttpReply, account: Account) -> str | None:
        """Return why the callback is not trusted, or None. It sees every header and the raw body."""
        ...

    def answer_challenge(self, request: HttpReply) -> Answer | None:
        """Return the answer to a handshake, which is not a callback."""
        ...

    def parse_callback(self, request: HttpReply, account: Account) -> Observation | Answer:
        """Pending, Succeeded, Failed, Unreadable or Unverified. `request.status` means nothing here."""
        ...


class UnsignedCallbacks:
    """A provider without signatures and handshakes."""

    def verify_callback(self, request: HttpReply, account: Account) -> str | None:
        return None

    def answer_challenge(self, request: HttpReply) -> Answer | None:
        return None


class CallError(ValueError):
    """A request can't be built. The message says why; no secret is in it."""


def json_body(fields: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> bytes:
    """The fields that have a value, then the caller's options as they are, as JSON."""
    given = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode(given | dict(options or {}))


def build_call(
    account: Account, method: Literal["GET", "POST"], path: str, body: bytes | None, timeout_s: float = POLL_TIMEOUT_S
) -> HttpRequest:
    """A call below the account's own base URL, with its key as a bearer token."""
    headers = {"authorization": f"Bearer {account.api_key}", "accept": "application/json", "user-agent": USER_AGENT}
    if body is not None:
        headers["content-type"] = "application/json"
    url = account.base_url.rstrip("/") + path
    return HttpRequest(method=method, url=url, headers=headers, body=body, timeout_s=timeout_s)


def is_web_url(value: str) -> bool:
    """An absolute http or https URL of printable characters, with a host; the empty string is none."""
    return _WEB_URL.fullmatch(value) is not None and value.isprintable()


def is_too_deep(value: Any) -> bool:
    """Whether lists and dicts are nested beyond `DEPTH_MAX`; goes level by level, so any depth may be asked about."""
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """A provider with its configured accounts by id; without an account it is not configured."""

    provider: Provider
    accounts: Mapping[str, Account]
    policy: Policy

    @property
    def is_configured(self) -> bool:
        return bool(self.accounts)
