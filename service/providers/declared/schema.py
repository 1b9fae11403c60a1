"""The tables of a declaration, as frozen values. Every key that a declaration may have is a field here.

`loading.py` reads a TOML document into `Declaration`; the field types say how each value is read and checked.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from service.core.task import ErrorCode
from service.providers.declared.bodies import BodyPath, TemplateTree
from service.providers.declared.callback_texts import CallbackAnswer, Place
from service.providers.declared.document import REPLY_NAMES, TASK_NAMES
from service.providers.declared.expressions import Expression
from service.providers.declared.signed_message import SignedMessage
from service.providers.declared.templates import Template

WEBHOOK_SECRET = "webhook_secret"  # noqa: S105 -- a name
State = Literal["queued", "running", "partial", "succeeded", "failed", "canceled", "not_found"]
OutputKind = Literal["image", "video", "audio", "text", "model3d", "file"]
Encoding = Literal["url", "base64", "bytes", "json"]

Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
HttpStatus = Annotated[int, Meta(ge=100, le=599)]
Reading = Annotated[Expression, REPLY_NAMES]
"""An expression over `{http, headers, body}`."""
Mapped = Annotated[Expression, TASK_NAMES]
"""An expression over `{input, model, task}`."""
Templates = dict[str, Template]


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table. `REST` names the field that takes all other keys."""

    REST: ClassVar[str | None] = None


class Rule(Table, frozen=True, kw_only=True, rename={"is_": "is"}):
    when: Reading
    is_: State


class ErrorRule(Table, frozen=True, kw_only=True):
    """A class of errors. All given conditions must hold."""

    code: ErrorCode
    when: Reading | None = None
    http: tuple[HttpStatus, ...] = ()
    retryable: bool | None = None
    wait_s: Seconds | Reading | None = None


class Cost(Table, frozen=True, kw_only=True):
    at: Reading
    unit: str


class Auth(Table, frozen=True, kw_only=True):
    """How calls are authenticated: a header or a query parameter, whose value may hold a minted token."""

    header: str | None = None
    query: str | None = None
    value: Template | None = None
    mint: Literal["jwt-hs256"] | None = None
    claims: Templates = {}
    signing_secret: str | None = None
    reuse_s: Positive | None = None
    when_secret: str | None = None


class Overlay(Table, frozen=True, kw_only=True):
    """Differences of a submit with images, or for models whose name fits a pattern."""

    path: Template | None = None
    map: dict[BodyPath, Mapped] = {}
    set: dict[BodyPath, TemplateTree] = {}


class Submit(Table, frozen=True, kw_only=True):
    path: Template
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    query: Templates = {}
    headers: Templates = {}
    encoding: Literal["json", "multipart"] = "json"
    input: BodyPath = BodyPath()
    wrap: Literal["array"] | None = None
    map: dict[BodyPath, Mapped] = {}
    set: dict[BodyPath, TemplateTree] = {}
    with_images: Overlay | None = None
    accept: tuple[HttpStatus, ...] = (200, 201, 202)
    success: Reading | None = None
    id: Reading | None = None
    own_id: Literal["uuid4"] | None = None
    reference: BodyPath | None = None
    remember: dict[str, Reading] = {}
    final: Reading | None = None
    cost: Cost | None = None
    retry: Literal["never", "same_id"] = "never"
    timeout_s: Positive = 60.0


class Progress(Table, frozen=True, kw_only=True):
    at: Reading
    of: Positive = 1.0


class Poll(Table, frozen=True, kw_only=True):
    none: bool = False
    method: Literal["GET", "POST"] | None = None
    path: Template | None = None
    url: Template | None = None
    query: Templates = {}
    headers: Templates = {}
    body: dict[BodyPath, TemplateTree] = {}
    every_s: Positive | None = None
    min_every_s: Positive | None = None
    max_every_s: Positive | None = None
    give_up_s: Positive | None = None
    success: Reading | None = None
    rules: tuple[Rule, ...] = ()
    state: Reading | None = None
    states: dict[str, State] = {}
    progress: Progress | None = None
    queue_position: Reading | None = None
    remember: dict[str, Reading] = {}


class Fetch(Table, frozen=True, kw_only=True):
    """A further call, once the task is done: its reply is the body that `result.urls` reads."""

    method: Literal["GET", "POST"] = "GET"
    path: Template | None = None
    url: Template | None = None
    query: Templates = {}
    headers: Templates = {}
    body: dict[BodyPath, TemplateTree] = {}


class ResultTable(Table, frozen=True, kw_only=True):
    urls: Reading | None = None
    encoding: Encoding = "url"
    output_kind: OutputKind | None = None
    content_type: str | None = None
    fetch: Fetch | None = None
    refused: Reading | None = None
    item_error: Reading | None = None
    link_ttl_s: Positive | None = None
    finished_at: Reading | None = None
    expires_at: Reading | None = None
    link_auth: bool = False
    refresh: Literal["poll"] | None = None
    cost: Cost | None = None


class Failure(Table, frozen=True, kw_only=True):
    provider_code: Reading | None = None
    message: Reading | None = None


class Timestamp(Table, frozen=True, kw_only=True):
    header: str
    item: str | None = None
    tolerance: Positive = 300.0


class Signature(Table, frozen=True, kw_only=True):
    header: str
    item: str | None = None
    split: str | None = None
    strip: str = ""
    encoding: Literal["hex", "base64"] = "hex"


class KeySet(Table, frozen=True, kw_only=True):
    jwks: str
    cache_s: Positive = 86_400.0


class Verify(Table, frozen=True, kw_only=True):
    algorithm: Literal["hmac-sha256", "ed25519", "equals"]
    signature: Signature
    secret: str = WEBHOOK_SECRET
    when_secret: str | None = None
    message: SignedMessage | None = None
    key_strip: str = ""
    key_encoding: Literal["utf8", "base64"] = "utf8"
    keys: KeySet | None = None
    timestamp: Timestamp | None = None
    prefix: str = ""


class Challenge(Table, frozen=True, kw_only=True):
    when: Reading
    answer: dict[str, Reading]
    max_bytes: Count = 4_096


class Callback(Table, frozen=True, kw_only=True):
    place: Place = Place("none")
    set: dict[BodyPath, TemplateTree] = {}
    methods: tuple[Literal["POST", "PUT"], ...] = ("POST",)
    events: tuple[str, ...] = ()
    ignore: Reading | None = None
    id: Reading | None = None
    reference: Reading | None = None
    rules: tuple[Rule, ...] | None = None
    state: Reading | None = None
    states: dict[str, State] | None = None
    remember: dict[str, Reading] = {}
    result: Reading | None = None
    result_missing: Reading | None = None
    thin: bool = False
    trust: Literal["full", "hint"] = "full"
    answer: CallbackAnswer = CallbackAnswer('200 {"received": true}')
    answer_within_s: Positive | None = None
    challenge: Challenge | None = None
    verify: Verify | None = None


class Cancel(Table, frozen=True, kw_only=True):
    method: Literal["none", "DELETE", "POST", "PUT", "GET"] = "POST"
    path: Template | None = None
    url: Template | None = None
    query: Templates = {}
    body: dict[BodyPath, TemplateTree] = {}
    accept: tuple[HttpStatus, ...] = (200, 202, 204)
    success: Reading | None = None
    too_late: Reading | None = None
    only: Literal["queued"] | None = None


class Lookup(Table, frozen=True, kw_only=True):
    """Finds a task by our reference when the reply to its submit was lost."""

    path: Template
    id: Reading
    method: Literal["GET", "POST"] = "GET"
    query: Templates = {}
    body: dict[BodyPath, TemplateTree] = {}


class Check(Table, frozen=True, kw_only=True):
    """A cheap call that succeeds if the credentials are good; for `taskhook doctor`."""

    path: Template
    method: Literal["GET", "POST"] = "GET"
    query: Templates = {}
    body: dict[BodyPath, TemplateTree] = {}
    accept: tuple[HttpStatus, ...] = (200,)
    success: Reading | None = None


class Rate(Table, frozen=True, kw_only=True):
    count: Count
    per_s: Positive


class LimitsTable(Table, frozen=True, kw_only=True):
    submits: Rate | None = None
    polls: Rate | None = None
    in_flight: Count | None = None


class OptionTable(Table, frozen=True, kw_only=True):
    """An option under the provider's own name, with its allowed values."""

    type: Literal["boolean", "integer", "number", "string"]
    minimum: float | None = None
    maximum: float | None = None
    maximum_edit: float | None = None
    choices: tuple[str, ...] = ()
    note: str = ""


class PixelsTable(Table, frozen=True, kw_only=True):
    minimum: Count
    multiple: Count
    maximum: Count | None = None


class ModelResult(Table, frozen=True, kw_only=True):
    urls: Reading | None = None


class ModelTable(Table, frozen=True, kw_only=True):
    """A model, or all that match a name with `*`; any other key is a variable for templates."""

    REST: ClassVar[str | None] = "variables"

    kind: OutputKind | None = None
    requires: tuple[str, ...] = ()
    accepts: tuple[str, ...] | None = None
    aspect_ratios: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    pixels: PixelsTable | None = None
    durations_s: tuple[float, ...] = ()
    output_formats: tuple[str, ...] = ()
    n_max: Count = 1
    n_max_edit: Count | None = None
    edits: bool = False
    defaults: dict[str, Any] = {}
    options: dict[str, OptionTable] = {}
    alias: str | None = None
    in_flight: Count | None = None
    path: Template | None = None
    set: dict[BodyPath, TemplateTree] = {}
    result: ModelResult = ModelResult()
    note: str = ""
    variables: dict[str, Any] = {}


class ModelsTable(Table, frozen=True, kw_only=True):
    REST: ClassVar[str | None] = "entries"

    open: bool = False
    entries: dict[str, ModelTable] = {}


class Example(Table, frozen=True, kw_only=True):
    """A documented reply with the observation that it must give."""

    call: Literal["submit", "poll", "result", "callback", "cancel"]
    expect: dict[str, Any]
    name: str = ""
    source: str = ""
    status: HttpStatus = 200
    headers: dict[str, str] = {}
    body: Any = None


class Declaration(Table, frozen=True, kw_only=True):
    """A declared provider."""

    schema: Literal[1]
    id: str
    base_url: str
    submit: Submit
    title: str = ""
    docs: tuple[str, ...] = ()
    note: str = ""
    hosts: tuple[str, ...] = ()
    regions: dict[str, str] = {}
    secrets: tuple[str, ...] = ("key",)
    headers: Templates = {}
    errors: tuple[ErrorRule, ...] = ()
    auth: tuple[Auth, ...] = ()
    models: ModelsTable = ModelsTable()
    poll: Poll | None = None
    result: ResultTable = ResultTable()
    failure: Failure = Failure()
    callback: Callback = Callback()
    cancel: Cancel | None = None
    lookup: Lookup | None = None
    check: Check | None = None
    limits: LimitsTable = LimitsTable()
    sim: dict[str, Any] | None = None
    example: tuple[Example, ...] = ()
