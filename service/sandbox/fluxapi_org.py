"""Simulator of fluxapi.org after its docs: the OpenAI images call, which returns the result, and its error objects."""

import asyncio
import base64
from typing import ClassVar, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.sandbox.broken_responses import gateway_timeout
from service.sandbox.jobs import Job, JobOutcome, Order
from service.sandbox.pictures import Studio
from service.sandbox.reading import Fields, Reason, Refused, parse_pair, read_object, refuse_field
from service.sandbox.simulator import Answer, Simulator, Site

MODELS: Final = ("flux-pro-1-1", "flux-dev")
MAX_COUNT: Final = 10
MIN_SIDE: Final = 64
MAX_SIDE: Final = 2048

ERRORS: Final = {
    Reason.NO_KEY: (401, "invalid_request_error", "invalid_api_key", "You didn't provide an API key."),
    Reason.BAD_KEY: (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    Reason.NO_CREDITS: (402, "insufficient_quota", "insufficient_credits", "You have no credits left."),
    Reason.THROTTLED: (429, "rate_limit_error", "rate_limit_exceeded", "Rate limit reached for images per minute."),
    Reason.UNAVAILABLE: (503, "server_error", "service_unavailable", "The upstream is temporarily unavailable."),
    Reason.MODERATED: (
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
}


def error_answer(status: int, kind: str, code: str | None, text: str, param: str | None = None) -> Response:
    headers = {"Retry-After": "1"} if status == 429 else None
    return JSONResponse({"error": {"message": text, "type": kind, "param": param, "code": code}}, status, headers)


class FluxapiOrg(Simulator):
    id: ClassVar[str] = "fluxapi-org"
    prefix: ClassVar[str] = "/v1"
    calls: ClassVar[tuple[str, ...]] = ("POST /images/generations",)
    moderates_at_submit: ClassVar[bool] = True

    def __init__(self, site: Site, studio: Studio) -> None:
        super().__init__(site)
        self._studio = studio

    def answers(self) -> dict[str, Answer]:
        return {self.calls[0]: self._generate}

    def new_id(self) -> str:
        return f"img-{super().new_id()}"

    def refuse(self, refused: Refused) -> Response:
        if refused.reason in ERRORS:
            return error_answer(*ERRORS[refused.reason])
        status = 404 if refused.reason is Reason.NO_ROUTE else 400
        return error_answer(status, "invalid_request_error", None, refused.text, refused.field)

    async def _generate(self, request: Request) -> Response:
        fields = await read_object(request)
        order = _parse_order(fields)
        inline = fields.choice("response_format", ("url", "b64_json"), "url") == "b64_json"
        job = await self.begin(order)
        if not await self.hold(request, job):
            return gateway_timeout()
        if job.outcome is JobOutcome.FAILED:
            return error_answer(500, "server_error", "generation_failed", "The image could not be generated.")
        pictures = await self._pictures(job, inline)
        return JSONResponse({"created": int(job.created_at), "data": pictures})

    async def _pictures(self, job: Job, inline: bool) -> list[dict[str, str]]:
        if job.outcome is JobOutcome.NO_PICTURE:
            return []
        if not inline:
            return [{"url": url} for url in self.site.picture_urls(job)]
        drawn = await asyncio.gather(*(self._studio.draw(job.order, index) for index in range(job.order.count)))
        return [{"b64_json": base64.b64encode(picture).decode()} for picture in drawn]


def _parse_order(fields: Fields) -> Order:
    model = fields.choice("model", MODELS)
    prompt = fields.text("prompt")
    width, height = _parse_size(fields)
    count = fields.whole_between("n", 1, MAX_COUNT, 1)
    return Order(prompt=prompt, model=model, width=width, height=height, count=count, body=fields.body)


def _parse_size(fields: Fields) -> tuple[int, int]:
    pair = parse_pair(fields.find_text("size") or "1024x1024", "x")
    if pair is None or not all(MIN_SIDE <= side <= MAX_SIDE for side in pair):
        raise refuse_field("size", f"must be WIDTHxHEIGHT with sides from {MIN_SIDE} to {MAX_SIDE}")
    return pair
