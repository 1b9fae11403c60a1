"""fluxapi.ai Flux Kontext: every answer is an envelope `{code, msg, data}`; it calls back, and can be polled.

Sources: the fluxapi.ai quickstart, and where it is silent docs.kie.ai (flux-kontext-api, webhook verification), which
describes what is very probably the same platform. HTTP 200 says nothing: the envelope's `code` decides. The ratio
`16:21` stands in the quickstart alone. An edit without a ratio keeps that of its picture, so none is sent.
"""

import base64
import hashlib
import hmac
import re
from itertools import zip_longest
from typing import Any
from urllib.parse import quote

from service.core.account import KEY, WEBHOOK_SECRET, Account, Limits
from service.core.observation import (
    Accepted,
    Failed,
    NotFound,
    NotSent,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unreadable,
    Unverified,
)
from service.core.problems import FieldError
from service.core.task import ErrorCode, Image, Task, TaskError, TaskInput
from service.providers.base import (
    Capabilities,
    HttpReply,
    HttpRequest,
    Model,
    Option,
    Secret,
    UnsignedCallbacks,
    build_call,
    json_body,
)
from service.providers.checks import check_declared
from service.providers.foreign import error_text, link_values, read_link
from service.providers.replies import (
    content_type,
    decode_object,
    dropped_links,
    expires_at,
    is_moderation,
    is_no_task_id,
    judge_foreign_submit,
    judge_poll_status,
    judge_submit_status,
    no_output,
    raw_payload,
    read_code,
    read_int,
    read_object,
    read_task_id,
    retry_after_s,
    task_error,
    tidy,
)

PATH = "/api/v1/flux/kontext"
WINDOW_S = 10.0
"""A refused request is dropped, not queued: after a 429 a whole window has to pass."""
RESULT_LIFE_S = 14 * 24 * 3600.0
ORIGINAL_LIFE_S = 10 * 60.0
SIGNATURE_AGE_S = 300
"""Between whole seconds, as it is signed. No tolerance is documented; this is what integrators use."""

RATIOS = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "16:21")
OPTIONS = (
    Option(name="promptUpsampling", type="boolean", note="let the provider enrich the prompt; default false"),
    Option(
        name="safetyTolerance", type="integer", minimum=0, maximum=6, maximum_edit=2, note="0 is strictest; default 2"
    ),
    Option(name="uploadCn", type="boolean", note="upload to servers in China; default false"),
    Option(name="watermark", type="string", note="an identifier to put on the picture"),
)
CODES: dict[int, ErrorCode] = {
    400: "content_policy",
    401: "authentication",
    402: "insufficient_credits",
    404: "invalid_request",
    422: "invalid_request",
    429: "rate_limited",
    433: "insufficient_credits",
    455: "provider_unavailable",
    505: "invalid_request",
}
GENERATION_FAILED = 501
"""The one code of an envelope that is about the task, also where it answers a query."""
VALIDATION = re.compile(
    r"should be|must be|required|validation|out of range|not support|invalid (param|value|input|field|aspect|url)",
    re.IGNORECASE,
)
UNKNOWN_TASK = re.compile(r"is null|not found|not exist", re.IGNORECASE)


def _kontext(name: str) -> Model:
    formats = ("jpeg", "png")
    return Model(name=name, aspect_ratios=RATIOS, edits=True, output_formats=formats, translates=True, options=OPTIONS)


class FluxapiAi(UnsignedCallbacks):
    id = "fluxapi-ai"
    capabilities = Capabilities(
        callbacks=True,
        polling=True,
        blocking=False,
        base_url="https://api.fluxapi.ai",
        models=(_kontext("flux-kontext-pro"), _kontext("flux-kontext-max")),
        limits=Limits(submits=20, window_s=WINDOW_S, max_in_flight=100),
        submit_timeout_s=60,
        result_life_s=RESULT_LIFE_S,
        reserved_options=frozenset(
            {"prompt", "model", "aspectRatio", "outputFormat", "inputImage", "enableTranslation", "callBackUrl"}
        ),
        secrets=(Secret(name=KEY), Secret(name=WEBHOOK_SECRET, required=False, older_setting="HMAC_KEY")),
    )

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        return check_declared(model, task_input, self.capabilities.reserved_options)

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        """Documented defaults are sent too: a sibling endpoint was seen to refuse requests that relied on them."""
        given = task.input
        fields = {
            "prompt": given.prompt,
            "model": task.model,
            "aspectRatio": given.aspect_ratio or ("16:9" if given.image_url is None else None),
            "outputFormat": given.output_format or "jpeg",
            "inputImage": given.image_url,
            "enableTranslation": given.translate is not False,
            "callBackUrl": callback_url,
        }
        body = json_body(fields, given.options)
        return build_call(account, "POST", f"{PATH}/generate", body, self.capabilities.submit_timeout_s)

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        if early := judge_submit_status(reply, WINDOW_S):
            return early
        envelope = decode_object(reply.body)
        code = read_int((envelope or {}).get("code"))
        if envelope is None or (not reply.is_2xx and code in (None, 200)):
            return judge_foreign_submit(reply)
        if code is not None and code != 200:
            return _refuse(code, envelope, reply)
        if task_id := read_task_id(read_object(envelope.get("data")).get("taskId")):
            return Accepted(provider_task_id=task_id)
        return Failed(error=task_error("provider_error", "accepted without a task id"), raw=raw_payload(reply))

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest:
        return build_call(
            account, "GET", f"{PATH}/record-info?taskId={quote(task.provider_task_id or '', safe='')}", None
        )

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation:
        """The envelope is about the query; `successFlag` inside is about the task, under a `code` that stays 200."""
        envelope = decode_object(reply.body) or {}
        code, message = read_int(envelope.get("code")), _message(envelope)
        if _is_unknown_task(code, message) and reply.status != 404:  # a real 404 is a wrong route
            return NotFound(reason=f"code {code}: {tidy(message or '')}")
        if early := judge_poll_status(reply, WINDOW_S):
            return early
        if code == 429:
            return Throttled(reason="code 429", retry_after_s=retry_after_s(reply) or WINDOW_S)
        if code == GENERATION_FAILED:
            return Failed(error=_error(code, message), raw=raw_payload(reply))
        record = read_object(envelope.get("data"))
        if code != 200 or not record:
            return Unreadable(reason=f"code {code}: {tidy(message or 'no envelope with a record')}")
        return _read_record(record, reply)

    def parse_callback(self, request: HttpReply, account: Account) -> Observation:
        envelope = decode_object(request.body)
        places = _task_ids(envelope or {})
        task_id = next((task_id for task_id in map(read_task_id, places) if task_id), None)
        if account.webhook_secret and not _is_signed(request, account.webhook_secret, task_id):
            return Unverified(reason="the signature over the task id is missing, wrong, or more than 300 s off")
        code = read_int((envelope or {}).get("code"))
        if envelope is None or code is None:
            return Unreadable(reason="no JSON object with a code", provider_task_id=task_id)
        if any(map(is_no_task_id, places)):
            return Unreadable(reason="what should be the task's id can't be one")
        if code != 200:
            error = _error(code, _message(envelope))
            return Failed(error=error, raw=raw_payload(request), provider_task_id=task_id)
        return _read_output(read_object(envelope.get("data")).get("info"), request, task_id)


def _refuse(code: int, envelope: dict[str, Any], reply: HttpReply) -> Observation:
    message = _message(envelope)
    if code == 429:
        return Throttled(reason="code 429", retry_after_s=retry_after_s(reply) or WINDOW_S)
    if code == 455:
        return NotSent(reason=f"code 455: {tidy(message or 'maintenance')}", retry_after_s=retry_after_s(reply))
    return Failed(error=_error(code, message), raw=raw_payload(reply))


def _error(code: int | None, said: Any, provider_code: str | None = None) -> TaskError:
    """Codes that are in no table, such as 408 and 501, are the provider's failure; 500 is also used for bad input."""
    ours, message = CODES.get(code or 0, "provider_error"), error_text(said)
    if code == 500 and VALIDATION.search(message or ""):
        ours = "invalid_request"
    if ours in ("provider_error", "invalid_request") and is_moderation(said, provider_code):
        ours = "content_policy"
    return task_error(ours, message, provider_code or (None if code is None else str(code)))


def _message(envelope: dict[str, Any]) -> str | None:
    return error_text(envelope.get("msg")) or error_text(envelope)


def _is_unknown_task(code: int | None, message: str | None) -> bool:
    return code == 404 or (code in (422, 500) and bool(UNKNOWN_TASK.search(message or "")))


def _read_record(record: dict[str, Any], reply: HttpReply) -> Observation:
    flag, task_id = read_int(record.get("successFlag")), read_task_id(record.get("taskId"))
    if flag == 1:
        return _read_output(record.get("response"), reply, task_id)
    if flag in (2, 3):
        opaque = record.get("errorCode")  # null, a number or a word
        error = _error(read_int(opaque), record.get("errorMessage"), read_code(opaque))
        return Failed(error=error, raw=raw_payload(reply), provider_task_id=task_id)
    return Pending(provider_task_id=task_id)


def _read_output(links: Any, reply: HttpReply, task_id: str | None) -> Observation:
    result, original = (link_values(read_object(links).get(name)) for name in ("resultImageUrl", "originImageUrl"))
    images, dropped = _read_links(result, original, reply), dropped_links([*result, *original])
    if not images:
        return no_output(reply, task_id, dropped)
    return Succeeded(images=images, raw=raw_payload(reply), provider_task_id=task_id, dropped=dropped)


def _read_links(results: list[Any], originals: list[Any], reply: HttpReply) -> tuple[Image, ...]:
    """The copies that last 14 days, and the originals that expire after 10 minutes; missing ones are empty strings."""
    pairs = [(read_link(result), read_link(original)) for result, original in zip_longest(results, originals)]
    return tuple(_image(result, original, reply) for result, original in pairs if result or original)


def _image(result: str | None, original: str | None, reply: HttpReply) -> Image:
    soon = expires_at(reply, ORIGINAL_LIFE_S)
    if result is None:
        return Image(url=original or "", expires_at=soon, content_type=content_type(original or ""))
    return Image(
        url=result,
        expires_at=expires_at(reply, RESULT_LIFE_S),
        content_type=content_type(result),
        original_url=original,
        original_expires_at=soon if original else None,
    )


def _task_ids(envelope: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values at the four places where the platform's pages put the id (docs.kie.ai webhook verification)."""
    inner = read_object(envelope.get("data"))
    return inner.get("taskId"), inner.get("task_id"), envelope.get("taskId"), envelope.get("task_id")


def _is_signed(request: HttpReply, key: str, task_id: str | None) -> bool:
    """Over task id and time alone (docs.kie.ai webhook verification): a good one does not vouch for the body."""
    timestamp = request.headers.get("x-webhook-timestamp", "")
    given = request.headers.get("x-webhook-signature", "")
    sent_at = read_int(timestamp)
    if task_id is None or sent_at is None or abs(int(request.received_at.timestamp()) - sent_at) > SIGNATURE_AGE_S:
        return False
    digest = hmac.digest(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
    return hmac.compare_digest(base64.b64encode(digest), given.strip().encode("utf-8", "replace"))
