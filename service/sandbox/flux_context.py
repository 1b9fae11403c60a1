"""Simulator of flux-context.org after its API reference: 202 on submit, polling only, plain-text errors."""

from typing import ClassVar, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.sandbox.jobs import Job, JobOutcome, Order
from service.sandbox.reading import Fields, Reason, Refused, parse_pair, pixels, read_object, refuse_field
from service.sandbox.simulator import Answer, Simulator

CREDITS: Final = 10
MODELS: Final = ("flux-kontext-pro", "flux-kontext-max", "gpt-4o")
GPT_RATIOS: Final = ("1:1", "3:2", "2:3")

ERRORS: Final = {
    Reason.NO_KEY: (401, "Missing API key"),
    Reason.BAD_KEY: (401, "Invalid API key"),
    Reason.NO_CREDITS: (402, "Insufficient credits"),
    Reason.THROTTLED: (429, "Too many requests"),
    Reason.UNAVAILABLE: (503, "Model service not configured"),
    Reason.NO_ROUTE: (404, "Not found"),
}


class FluxContext(Simulator):
    id: ClassVar[str] = "flux-context"
    calls: ClassVar[tuple[str, ...]] = ("POST /v1/images/generations", "GET /v1/images/generations/{taskId}")

    def answers(self) -> dict[str, Answer]:
        submit, poll = self.calls
        return {submit: self._submit, poll: self._poll}

    def refuse(self, refused: Refused) -> Response:
        status, text = ERRORS.get(refused.reason, (400, refused.text))
        body: dict[str, object] = {"error": text}
        if refused.reason is Reason.NO_CREDITS:
            body |= {"creditsRequired": CREDITS, "creditsAvailable": CREDITS // 2}
        return JSONResponse(body, status)

    async def _submit(self, request: Request) -> Response:
        job = await self.begin(_parse_order(await read_object(request)))
        return JSONResponse({"taskId": job.id, "status": "processing", "creditsCharged": CREDITS}, 202)

    async def _poll(self, request: Request) -> Response:
        job = self.find(request.path_params["taskId"])
        if job is None:
            return JSONResponse({"error": "Task not found"}, 404)
        return JSONResponse(self._status(job))

    def _status(self, job: Job) -> dict[str, object]:
        if job.disturbs_poll("unknown-status"):
            return {"status": "awaiting_review"}
        if not job.finished.is_set():
            return {"status": "processing"}
        return self._outcome(job)

    def _outcome(self, job: Job) -> dict[str, object]:
        match job.outcome:
            case JobOutcome.SUCCEEDED:
                return {"status": "completed", "result": {"url": self.site.picture_url(job)}}
            case JobOutcome.NO_PICTURE:
                return {"status": "completed", "result": {}}
            case JobOutcome.MODERATED:
                return {"status": "failed", "error": "The prompt was rejected by the safety system."}
            case JobOutcome.FAILED:
                return {"status": "failed", "error": "The image could not be generated."}


def _parse_order(fields: Fields) -> Order:
    prompt = fields.text("prompt")
    model = fields.choice("model", MODELS)
    fields.find_url("input_image")
    fields.flag("enable_translation")
    width, height = pixels(_parse_ratio(fields, model))
    return Order(prompt=prompt, model=model, width=width, height=height, body=fields.body)


def _parse_ratio(fields: Fields, model: str) -> str:
    """The full set of ratios is not documented, so the kontext models accept any that is not extreme."""
    if model == "gpt-4o":
        return fields.choice("aspect_ratio", GPT_RATIOS, "1:1")
    ratio = fields.find_text("aspect_ratio") or "1:1"
    pair = parse_pair(ratio, ":")
    if pair is None or not 1 / 3 <= pair[0] / pair[1] <= 3:
        raise refuse_field("aspect_ratio", "is not supported")
    return ratio
