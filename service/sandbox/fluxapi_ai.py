"""Simulator of fluxapi.ai Flux Kontext after its quickstart and its twin kie.ai: HTTP 200 around an own `code`."""

import base64
import hashlib
import hmac
import json
import time
import uuid
from typing import ClassVar, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from service.sandbox.jobs import Job, JobOutcome, Order
from service.sandbox.reading import Fields, Reason, Refused, pixels, read_object, refuse_field
from service.sandbox.simulator import Answer, Broken, Simulator

PREFIX: Final = "/api/v1/flux/kontext"
MODELS: Final = ("flux-kontext-pro", "flux-kontext-max")
RATIOS: Final = ("21:9", "16:9", "4:3", "1:1", "3:4", "9:16", "16:21")
FORMATS: Final = ("jpeg", "png")
CREDITS: Final = 1000

FLAGGED: Final = "Your prompt was flagged by Website as violating content policies."
UNAUTHORIZED: Final = (
    "Unauthorized \u2013 Authentication failed. Please check that your Authorization and Content-Type headers"
    " are correctly set."
)
ERRORS: Final = {
    Reason.NO_CREDITS: (402, "The current credits are insufficient. Please top up."),
    Reason.THROTTLED: (429, "Your call frequency is too high. Please try again later."),
    Reason.OUT_OF_RANGE: (500, ""),
}
CALLBACKS: Final = {
    JobOutcome.SUCCEEDED: (200, "BFL image generated successfully."),
    JobOutcome.NO_PICTURE: (200, "BFL image generated successfully."),
    JobOutcome.MODERATED: (400, FLAGGED),
    JobOutcome.FAILED: (501, "Image generation task failed"),
}


def envelope(code: int, text: str, content: object) -> Response:
    return JSONResponse({"code": code, "msg": text, "data": content})


class FluxapiAi(Simulator):
    id: ClassVar[str] = "fluxapi-ai"
    calls: ClassVar[tuple[str, ...]] = (
        f"POST {PREFIX}/generate",
        f"GET {PREFIX}/record-info",
        "GET /api/v1/common/credit",
    )
    callback_tries: ClassVar[int] = 4

    def answers(self) -> dict[str, Answer]:
        submit, poll, credit = self.calls
        return {submit: self._submit, poll: self._poll, credit: self._credit}

    def new_id(self) -> str:
        return f"task_flux_{uuid.uuid4().hex}"

    def check_key(self, request: Request) -> None:
        if not request.headers.get("user-agent"):
            # The proxy in front of the API answers before the API does, and not with JSON.
            raise Broken(PlainTextResponse("error code: 1010", 403))
        super().check_key(request)

    def refuse(self, refused: Refused) -> Response:
        match refused.reason:
            case Reason.NO_KEY | Reason.BAD_KEY:
                return JSONResponse({"code": 401, "msg": UNAUTHORIZED})
            case Reason.UNAVAILABLE:
                return JSONResponse({"code": 455, "msg": "The service is under maintenance.", "data": None}, 503)
            case Reason.NO_ROUTE:
                return JSONResponse({"code": 404, "msg": "Not Found", "data": None}, 404)
            case _:
                code, text = ERRORS.get(refused.reason, (422, refused.text))
                return envelope(code, text or refused.text, None)

    async def _submit(self, request: Request) -> Response:
        job = await self.begin(_parse_order(await read_object(request)))
        return envelope(200, "success", {"taskId": job.id})

    async def _credit(self, request: Request) -> Response:
        return envelope(200, "success", CREDITS)

    async def _poll(self, request: Request) -> Response:
        task_id = request.query_params.get("taskId")
        if not task_id:
            raise refuse_field("taskId", "is required")
        job = self.find(task_id)
        if job is None:
            return envelope(422, "record is null", None)
        return envelope(200, "success", self._record(job))

    def _record(self, job: Job) -> dict[str, object]:
        record: dict[str, object] = {
            "taskId": job.id,
            "paramJson": json.dumps(job.order.body, ensure_ascii=False, separators=(",", ":")),
            "completeTime": None,
            "response": None,
            "successFlag": 0,
            "errorCode": None,
            "errorMessage": "",
            "createTime": _iso(job.created_at),
        }
        if job.disturbs_poll("unknown-status"):
            return record | {"successFlag": 9}
        return record | self._outcome(job) if job.finished.is_set() else record

    def _outcome(self, job: Job) -> dict[str, object]:
        ended = {"completeTime": _iso(job.finished_at or job.created_at)}
        code, text = CALLBACKS[job.outcome]
        if code == 200:
            return ended | {"successFlag": 1, "response": self._urls(job, job.outcome)}
        return ended | {"successFlag": 3, "errorCode": code, "errorMessage": text}

    def _urls(self, job: Job, outcome: JobOutcome) -> dict[str, str]:
        """Return the URLs; a missing one is an empty string, not null."""
        if outcome is not JobOutcome.SUCCEEDED:
            return {"originImageUrl": "", "resultImageUrl": ""}
        return {
            "originImageUrl": self.site.picture_url(job, kind="origin"),
            "resultImageUrl": self.site.picture_url(job),
        }

    def callback_body(self, job: Job, task_id: str, outcome: JobOutcome) -> dict[str, object]:
        code, text = CALLBACKS[outcome]
        return {"code": code, "msg": text, "data": {"taskId": task_id, "info": self._urls(job, outcome)}}

    def callback_headers(self, task_id: str) -> dict[str, str]:
        """The signature covers the task id and the time, never the body (kie.ai webhook verification guide)."""
        secret = self.site.webhook_secrets.get(self.id)
        if secret is None:
            return {}
        timestamp = str(int(time.time()))
        digest = hmac.digest(secret.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256)
        return {"X-Webhook-Timestamp": timestamp, "X-Webhook-Signature": base64.b64encode(digest).decode()}


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _parse_order(fields: Fields) -> Order:
    prompt = fields.text("prompt")
    model = fields.choice("model", MODELS, MODELS[0])
    edits = fields.find_url("inputImage") is not None
    ratio = fields.choice("aspectRatio", RATIOS, "1:1" if edits else "16:9")
    _check_extras(fields, edits)
    width, height = pixels(ratio)
    return Order(
        prompt=prompt,
        model=model,
        width=width,
        height=height,
        picture_format=fields.choice("outputFormat", FORMATS, "jpeg"),
        callback_url=fields.find_url("callBackUrl"),
        body=fields.body,
    )


def _check_extras(fields: Fields, edits: bool) -> None:
    for name in ("enableTranslation", "promptUpsampling", "uploadCn"):
        fields.flag(name)
    fields.find_text("watermark")
    if not 0 <= fields.whole("safetyTolerance", 2) <= (2 if edits else 6):
        raise Refused(Reason.OUT_OF_RANGE, "The safetyTolerance parameter is out of range, should be 0-2 or 0-6")
