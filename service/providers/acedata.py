"""Ace Data Cloud Flux: calls back and can be polled; where it is not asked to, the submit's answer is the result.

Sources: the "Flux Images Generation" guide, and AceDataCloud/Docs (openapi/flux.json, async tasks, responses,
concurrency). There is no status field: the shape of a reply decides. Errors branch on `error.code`, since one HTTP
status means several things. Where the pages contradict each other:

- Which sizes a model takes is the guide's. Newer pages take ratios alone for FLUX.2, more of them for `flux-dev`; what
  they no longer take is refused there at no cost.
- Newer pages require `size`, so generating without one sends a default that both accept, `1024x1024` or `1:1` (for
  FLUX.2 there is no such value; the guide's counts). An edit sends none: the guide's example does without, and a
  made-up ratio would crop the picture.
- No page bounds `count`; ten is ours.
"""

from typing import Any

from service.core.account import Account, Limits
from service.core.observation import (
    Accepted,
    Failed,
    NotFound,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.problems import FieldError
from service.core.task import ErrorCode, Image, Task, TaskError, TaskInput
from service.providers.base import (
    Capabilities,
    HttpReply,
    HttpRequest,
    Model,
    PixelRange,
    UnsignedCallbacks,
    build_call,
    json_body,
)
from service.providers.checks import check_declared
from service.providers.foreign import error_text
from service.providers.replies import (
    code_by_status,
    decode_object,
    expires_at,
    is_moderation,
    is_no_task_id,
    judge_foreign_submit,
    judge_poll_status,
    judge_submit_status,
    no_output,
    raw_payload,
    read_code,
    read_images,
    read_object,
    read_task_id,
    retry_after_s,
    task_error,
)

RESULT_LIFE_S = 30 * 24 * 3600.0
COUNT_MAX = 10
RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21")
FLUX_1 = PixelRange(minimum=256, maximum=1440, multiple=32)
FLUX_2 = PixelRange(minimum=64, maximum=None, multiple=32)

CODES: dict[str | None, ErrorCode] = {
    "bad_request": "invalid_request",
    "api_not_implemented": "invalid_request",
    "no_api": "invalid_request",
    "no_token": "authentication",
    "invalid_token": "authentication",
    "token_expired": "authentication",
    "token_mismatched": "authentication",
    "disabled": "authentication",
    "used_up": "insufficient_credits",
    "forbidden": "content_policy",
    "too_many_requests": "rate_limited",
    "rate_limited": "rate_limited",
    "api_error": "provider_error",
    "timeout": "provider_error",
}


def _by_pixels(name: str, pixels: PixelRange) -> Model:
    return Model(name=name, pixels=pixels, max_images=COUNT_MAX)


def _by_ratio(name: str, *, edits: bool) -> Model:
    return Model(name=name, aspect_ratios=RATIOS, max_images=COUNT_MAX, edits=edits)


class Acedata(UnsignedCallbacks):
    id = "acedata"
    capabilities = Capabilities(
        callbacks=True,
        polling=True,
        blocking=False,
        base_url="https://api.acedata.cloud",
        models=(
            _by_pixels("flux-dev", FLUX_1),
            _by_pixels("flux-pro-1.1", FLUX_1),
            _by_ratio("flux-pro-1.1-ultra", edits=False),
            _by_ratio("flux-kontext-pro", edits=True),
            _by_ratio("flux-kontext-max", edits=True),
            _by_pixels("flux-2-flex", FLUX_2),
            _by_pixels("flux-2-pro", FLUX_2),
            _by_pixels("flux-2-max", FLUX_2),
        ),
        limits=Limits(submits=5, window_s=1, max_in_flight=10),
        submit_timeout_s=300,  # it answers at once, unless it ignores the wish to be asynchronous
        result_life_s=RESULT_LIFE_S,
        reserved_options=frozenset(
            {"action", "prompt", "model", "size", "count", "image_url", "callback_url", "async"}
        ),
    )

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        return check_declared(model, task_input, self.capabilities.reserved_options)

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        """With neither a callback URL nor `async` it would hold the connection open until the pictures are done."""
        given, editing = task.input, task.input.image_url is not None
        fields = {
            "action": "edit" if editing else "generate",
            "prompt": given.prompt,
            "model": task.model,
            "size": given.size or given.aspect_ratio or (None if editing else self._default_size(task.model)),
            "count": None if editing else given.n,
            "image_url": given.image_url,
            "callback_url": callback_url,
            "async": True if callback_url is None else None,
        }
        body = json_body(fields, given.options)
        return build_call(account, "POST", "/flux/images", body, self.capabilities.submit_timeout_s)

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        """A bare `{"task_id"}` is an accept; so is one with `success`; with `data` it is the finished result."""
        body = decode_object(reply.body)
        task_id = read_task_id((body or {}).get("task_id"))
        if (early := judge_submit_status(reply)) and not (reply.status == 503 and task_id):
            return early  # a 503 that names a task is about one that was started
        error = _find_error(body or {})
        if reply.status == 504 or body is None or (error is None and not reply.is_2xx):
            return judge_foreign_submit(reply)
        if error is not None:
            return _refuse(error, reply, task_id)
        images, dropped = _read_pictures(body, reply)
        if images:
            return Succeeded(images=images, raw=raw_payload(reply), provider_task_id=task_id, dropped=dropped)
        if task_id:
            return Accepted(provider_task_id=task_id)
        return Failed(error=task_error("provider_error", "accepted without a task id"), raw=raw_payload(reply))

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest:
        return build_call(
            account, "POST", "/flux/tasks", json_body({"action": "retrieve", "id": task.provider_task_id})
        )

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation:
        """`response` holds the same as a callback; an unknown task is `{}`."""
        if early := judge_poll_status(reply):
            return early
        body = decode_object(reply.body)
        if body is None:
            return Unreadable(reason="no JSON object")
        if not body:
            return NotFound(reason="an empty object")
        response = read_object(body.get("response"))
        if not response and (error := _find_error(body)) is not None:
            return Unreadable(reason=_task_error(error).message)
        return _read_response(response, reply, read_task_id(body.get("id")))

    def parse_callback(self, request: HttpReply, account: Account) -> Observation:
        """Unsigned. Success and failure both carry `success`, and the task id mostly."""
        body = decode_object(request.body) or {}
        task_id, error = read_task_id(body.get("task_id")), _find_error(body)
        if is_no_task_id(body.get("task_id")):
            return Unreadable(reason="what should be the task's id can't be one")
        if error is not None:
            return Failed(error=_task_error(error), raw=raw_payload(request), provider_task_id=task_id)
        if body.get("success") is True:
            return _read_output(body, request, task_id)
        return Unreadable(reason="neither a success with pictures nor an error", provider_task_id=task_id)

    def _default_size(self, name: str) -> str:
        model = self.capabilities.model(name)
        return "1024x1024" if model is None or model.pixels else "1:1"


def _refuse(error: dict[str, Any], reply: HttpReply, task_id: str | None) -> Observation:
    code = read_code(error.get("code"))
    if code in ("too_many_requests", "rate_limited"):
        return Throttled(reason=f"error code {code}", retry_after_s=retry_after_s(reply))
    if code == "timeout":
        return Unconfirmed(reason="error code timeout: the task may have been started")
    return Failed(error=_task_error(error, reply.status), raw=raw_payload(reply), provider_task_id=task_id)


def _read_response(response: dict[str, Any], reply: HttpReply, task_id: str | None) -> Observation:
    """A task without a `success` is not finished, whatever else it shows."""
    success = response.get("success")
    if success is False:
        error = _task_error(_find_error(response) or {})
        return Failed(error=error, raw=raw_payload(reply), provider_task_id=task_id)
    if success is not True:
        return Pending(provider_task_id=task_id)
    return _read_output(response, reply, task_id)


def _read_output(body: dict[str, Any], reply: HttpReply, task_id: str | None) -> Observation:
    images, dropped = _read_pictures(body, reply)
    if not images:
        return no_output(reply, task_id, dropped)
    return Succeeded(images=images, raw=raw_payload(reply), provider_task_id=task_id, dropped=dropped)


def _read_pictures(body: dict[str, Any], reply: HttpReply) -> tuple[tuple[Image, ...], tuple[str, ...]]:
    return read_images(body.get("data"), "image_url", expires_at(reply, RESULT_LIFE_S))


def _find_error(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the error, also if only `success: false` reports one; HTTP errors often come without `success`."""
    error = body.get("error")
    if body.get("success") is True:
        return None
    if error and not isinstance(error, dict):
        return {"message": error}
    return read_object(error) or ({} if body.get("success") is False else None)


def _task_error(error: dict[str, Any], status: int = 500) -> TaskError:
    code, text = read_code(error.get("code")), error_text(error)
    ours = CODES.get(code) or ("content_policy" if is_moderation(error) else code_by_status(status))
    return task_error(ours, text, code)
