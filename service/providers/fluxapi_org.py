"""fluxapi.org: compatible with OpenAI's image API: the submit's answer is the result, and there is nothing to ask.

Source: fluxapi.org docs; what they leave open follows OpenAI's API. They name `1024x1024` and `1536x1024` and end the
list with an ellipsis, so the sizes are those of OpenAI's image models. How long a link lives is not said (OpenAI's: one
hour).
Answers are asked for as links: a picture inline would be megabytes in every event.
"""

from typing import Any

import msgspec

from service.core.account import Account, Limits
from service.core.observation import Failed, Observation, Succeeded, Throttled, Unreadable
from service.core.problems import FieldError
from service.core.task import ErrorCode, Image, Task, TaskError, TaskInput
from service.providers.base import Capabilities, HttpReply, HttpRequest, Model, UnsignedCallbacks, build_call, json_body
from service.providers.checks import PIXELS, check_declared
from service.providers.foreign import error_text
from service.providers.replies import (
    CONTENT_TYPES,
    code_by_status,
    decode_object,
    is_moderation,
    judge_foreign_submit,
    judge_submit_status,
    no_output,
    raw_payload,
    read_code,
    read_images,
    read_list,
    read_object,
    read_text,
    retry_after_s,
    task_error,
    too_long,
)

SIZES = ("256x256", "512x512", "1024x1024", "1536x1024", "1024x1536", "1792x1024", "1024x1792")
COUNT_MAX = 10  # OpenAI's
INLINE = "the picture came inline (b64_json) although a link was asked for; it is not kept"

CODES: dict[str | None, ErrorCode] = {
    "content_policy_violation": "content_policy",
    "moderation_blocked": "content_policy",
    "billing_hard_limit_reached": "insufficient_credits",
    "insufficient_quota": "insufficient_credits",
    "insufficient_credits": "insufficient_credits",
    "invalid_api_key": "authentication",
    "rate_limit_exceeded": "rate_limited",
}


class FluxapiOrg(UnsignedCallbacks):
    id = "fluxapi-org"
    capabilities = Capabilities(
        callbacks=False,
        polling=False,
        blocking=True,
        base_url="https://api.fluxapi.org/v1",
        models=(
            Model(name="flux-pro-1-1", sizes=SIZES, max_images=COUNT_MAX),
            Model(name="flux-dev", sizes=SIZES, max_images=COUNT_MAX),
        ),
        limits=Limits(submits=5, window_s=1, max_in_flight=20),
        submit_timeout_s=600,
        result_life_s=None,
        reserved_options=frozenset({"prompt", "model", "size", "n", "response_format", "stream", "partial_images"}),
    )

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        return check_declared(model, task_input, self.capabilities.reserved_options)

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        fields = {
            "model": task.model,
            "prompt": task.input.prompt,
            "size": task.input.size,
            "n": task.input.n,
            "response_format": "url",
        }
        body = json_body(fields, task.input.options)
        return build_call(account, "POST", "/images/generations", body, self.capabilities.submit_timeout_s)

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        """Check for an empty balance before the rate: OpenAI answers both with 429."""
        body = decode_object(reply.body)
        error = _find_error(body or {}, reply.status)
        if error is not None and error.code == "insufficient_credits":
            return Failed(error=error, raw=raw_payload(reply))
        if early := judge_submit_status(reply):
            return early
        if error is not None and error.code == "rate_limited":
            return Throttled(reason=error.message, retry_after_s=retry_after_s(reply))
        if error is not None:
            return Failed(error=error, raw=raw_payload(reply))
        if not reply.is_2xx or (body is None and not reply.too_long):
            return judge_foreign_submit(reply)
        return _read_pictures(body or {}, reply)

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest:
        raise NotImplementedError("fluxapi.org has no tasks to poll")

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation:
        return Unreadable(reason="fluxapi.org has no tasks to poll")

    def parse_callback(self, request: HttpReply, account: Account) -> Observation:
        return Unreadable(reason="fluxapi.org sends no callbacks")


def _find_error(body: dict[str, Any], status: int) -> TaskError | None:
    """`code`, `type` and `message` may each be null."""
    error = body.get("error")
    if not error:
        return None
    code, kind = (read_code(read_object(error).get(name)) for name in ("code", "type"))
    text = error_text(error)
    ours = CODES.get(code) or CODES.get(kind) or code_by_status(status)
    if ours == "invalid_request" and is_moderation(error):
        ours = "content_policy"
    return task_error(ours, text, code or kind)


def _read_pictures(body: dict[str, Any], reply: HttpReply) -> Observation:
    images, dropped = read_images(body.get("data"), "url", None)
    if images:
        described = tuple(_describe(image, body) for image in images)
        return Succeeded(images=described, raw=raw_payload(reply), dropped=dropped)
    if reply.too_long:
        return Failed(error=task_error("provider_error", f"{too_long(reply.too_long)}, as when {INLINE}"))
    if any(read_text(read_object(item).get("b64_json")) for item in read_list(body.get("data"))):
        return Failed(error=task_error("provider_error", INLINE))
    return no_output(reply, dropped=dropped)


def _describe(image: Image, body: dict[str, Any]) -> Image:
    """Newer OpenAI replies say once, for all the pictures, what size and format they have."""
    sides = PIXELS.fullmatch(read_text(body.get("size")) or "")
    width, height = map(int, sides.groups()) if sides else (None, None)
    told = CONTENT_TYPES.get(read_text(body.get("output_format")) or "")
    return msgspec.structs.replace(image, width=width, height=height, content_type=told or image.content_type)
