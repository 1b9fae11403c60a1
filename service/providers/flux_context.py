"""flux-context.org: submit, then poll; it never calls back.

Source: flux-context.org "API Reference". What it leaves open and is inferred here: an unknown task gives 404, a 429 may
come, other errors than 402 look like 402's, the ratios of the Kontext models beyond its three examples.
"""

from typing import Any
from urllib.parse import quote

from service.core.account import Account, Limits
from service.core.observation import Accepted, Failed, NotFound, Observation, Pending, Succeeded, Unreadable
from service.core.problems import FieldError
from service.core.task import ErrorCode, Task, TaskError, TaskInput
from service.providers.base import Capabilities, HttpReply, HttpRequest, Model, UnsignedCallbacks, build_call, json_body
from service.providers.checks import check_declared
from service.providers.foreign import error_code, error_text
from service.providers.replies import (
    code_by_status,
    decode_object,
    expires_at,
    is_moderation,
    judge_foreign_submit,
    judge_poll_status,
    judge_submit_status,
    no_output,
    raw_payload,
    read_amount,
    read_images,
    read_task_id,
    read_text,
    task_error,
)

PATH = "/v1/images/generations"
KONTEXT_RATIOS = ("21:9", "16:9", "3:2", "4:3", "1:1", "3:4", "2:3", "9:16", "9:21")


class FluxContext(UnsignedCallbacks):
    id = "flux-context"
    capabilities = Capabilities(
        callbacks=False,
        polling=True,
        blocking=False,
        base_url="https://api.flux-context.org",
        models=(
            Model(name="flux-kontext-pro", aspect_ratios=KONTEXT_RATIOS, edits=True, translates=True),
            Model(name="flux-kontext-max", aspect_ratios=KONTEXT_RATIOS, edits=True, translates=True),
            Model(name="gpt-4o", aspect_ratios=("1:1", "3:2", "2:3"), edits=True, translates=True),
        ),
        limits=Limits(submits=20, window_s=10, max_in_flight=50),  # none are documented
        submit_timeout_s=60,
        result_life_s=14 * 24 * 3600,
        reserved_options=frozenset({"prompt", "model", "aspect_ratio", "input_image", "enable_translation"}),
    )

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        return check_declared(model, task_input, self.capabilities.reserved_options)

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        fields = {
            "prompt": task.input.prompt,
            "model": task.model,
            "aspect_ratio": task.input.aspect_ratio,
            "input_image": task.input.image_url,
            "enable_translation": task.input.translate,
        }
        body = json_body(fields, task.input.options)
        return build_call(account, "POST", PATH, body, self.capabilities.submit_timeout_s)

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        """An accept is HTTP 202, and says what it charged."""
        if early := judge_submit_status(reply):
            return early
        body = decode_object(reply.body)
        if body is None or (not reply.is_2xx and error_text(body.get("error")) is None):
            return judge_foreign_submit(reply)
        if not reply.is_2xx or body.get("error"):
            return Failed(error=_refusal(body, reply.status), raw=raw_payload(reply))
        if task_id := read_task_id(body.get("taskId")):
            return Accepted(provider_task_id=task_id, cost=read_amount(body.get("creditsCharged")))
        return Failed(error=task_error("provider_error", "accepted without a task id"), raw=raw_payload(reply))

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest:
        return build_call(account, "GET", f"{PATH}/{quote(task.provider_task_id or '', safe='')}", None)

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation:
        """A poll's reply never repeats the task id."""
        body = decode_object(reply.body)
        if reply.status == 404 and (body is not None or not reply.body):
            return NotFound(reason="HTTP 404")
        if early := judge_poll_status(reply):
            return early
        status = read_text((body or {}).get("status"))
        if body is None or status is None:
            return Unreadable(reason="no JSON object with a status")
        if status == "completed":
            return self._read_picture(body, reply)
        if status == "failed":
            return Failed(error=_failure(body), raw=raw_payload(reply))
        return Pending()

    def parse_callback(self, request: HttpReply, account: Account) -> Observation:
        return Unreadable(reason="flux-context.org sends no callbacks")

    def _read_picture(self, body: dict[str, Any], reply: HttpReply) -> Observation:
        images, dropped = read_images(body.get("result"), "url", expires_at(reply, self.capabilities.result_life_s))
        if not images:
            return no_output(reply, dropped=dropped)
        return Succeeded(images=images, raw=raw_payload(reply), dropped=dropped)


def _refusal(body: dict[str, Any], status: int) -> TaskError:
    """Errors are `{"error": "<text>"}`; the one for credits adds two numbers that are worth telling."""
    message, code = error_text(body), code_by_status(status)
    if is_moderation(body) and status in (400, 403, 422):
        code = "content_policy"
    required, available = read_amount(body.get("creditsRequired")), read_amount(body.get("creditsAvailable"))
    if message and required is not None and available is not None:
        message = f"{message} (required {required:g}, available {available:g})"
    return task_error(code, message, str(status))


def _failure(body: dict[str, Any]) -> TaskError:
    """No code is documented, so words distinguish moderation from other failures."""
    error = body.get("error") or body
    text, word = error_text(error), error_code(body.get("error"))
    code: ErrorCode = "content_policy" if is_moderation(error) else "provider_error"
    return task_error(code, text, word)
