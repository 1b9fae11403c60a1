"""Simulator of Ace Data Cloud's FLUX API after its guides: it blocks unless asked not to; states have no names."""

import hashlib
import uuid
from collections.abc import Iterable
from typing import ClassVar, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.sandbox.acedata_sizes import SIZES, measure
from service.sandbox.broken_responses import gateway_timeout
from service.sandbox.jobs import Job, JobOutcome, Order
from service.sandbox.reading import Fields, Reason, Refused, read_object, refuse_field
from service.sandbox.simulator import Answer, Simulator

EDIT_MODELS: Final = ("flux-kontext-pro", "flux-kontext-max")
MAX_COUNT: Final = 10
MAX_BATCH: Final = 100

ERRORS: Final = {
    Reason.NO_KEY: (400, "no_token", "No token provided."),
    Reason.BAD_KEY: (401, "invalid_token", "The token is invalid."),
    Reason.NO_CREDITS: (403, "used_up", "Your balance is used up, please top up."),
    Reason.THROTTLED: (429, "too_many_requests", "Too many requests, please slow down."),
    Reason.UNAVAILABLE: (503, "api_error", "The service is temporarily unavailable."),
    Reason.MODERATED: (403, "forbidden", "The prompt was rejected by content moderation."),
    Reason.NO_ROUTE: (404, "no_api", "The API does not exist."),
}


def error_answer(status: int, code: str, text: str) -> Response:
    """Only the guide's example of `api_error` has `success`; the other documented HTTP errors lack it."""
    body: dict[str, object] = {"success": False} if code == "api_error" else {}
    return JSONResponse(body | {"error": {"code": code, "message": text}, "trace_id": str(uuid.uuid4())}, status)


class Acedata(Simulator):
    id: ClassVar[str] = "acedata"
    calls: ClassVar[tuple[str, ...]] = ("POST /flux/images", "POST /flux/tasks")
    moderates_at_submit: ClassVar[bool] = True

    def answers(self) -> dict[str, Answer]:
        submit, poll = self.calls
        return {submit: self._submit, poll: self._query}

    def refuse(self, refused: Refused) -> Response:
        return error_answer(*ERRORS.get(refused.reason, (400, "bad_request", refused.text)))

    async def _submit(self, request: Request) -> Response:
        fields = await read_object(request)
        order = _parse_order(fields)
        detached = fields.flag("async")
        job = await self.begin(order)
        if order.callback_url:
            return JSONResponse({"task_id": job.id})
        if detached:
            return JSONResponse({"task_id": job.id, "trace_id": _derived_id(job, "trace")})
        return await self._block(request, job)

    async def _block(self, request: Request, job: Job) -> Response:
        if not await self.hold(request, job):
            return gateway_timeout()
        if job.outcome is JobOutcome.FAILED:
            return error_answer(500, "api_error", "fetch failed")
        return JSONResponse(self._result(job, job.id, job.outcome, {"timings": int(job.finished_at or 0)}))

    def _result(self, job: Job, task_id: str, outcome: JobOutcome, extras: dict[str, object]) -> dict[str, object]:
        head: dict[str, object] = {"task_id": task_id, "trace_id": _derived_id(job, "trace")}
        if outcome is JobOutcome.FAILED:
            return {"success": False} | head | {"error": {"code": "api_error", "message": "fetch failed"}}
        urls = [] if outcome is JobOutcome.NO_PICTURE else self.site.picture_urls(job)
        pictures = [{"prompt": job.order.prompt, "image_url": url} | extras for url in urls]
        return {"success": True} | head | {"data": pictures}

    def callback_body(self, job: Job, task_id: str, outcome: JobOutcome) -> dict[str, object]:
        return self._result(job, task_id, outcome, _late_extras(job))

    async def _query(self, request: Request) -> Response:
        fields = await read_object(request)
        action = fields.choice("action", ("retrieve", "retrieve_batch"), "retrieve")
        if action == "retrieve_batch":
            items = self._items(_parse_ids(fields))
            return JSONResponse({"items": items, "count": len(items)})
        items = self._items([fields.text("id")])
        return JSONResponse(items[0] if items else {})

    def _items(self, ids: Iterable[str]) -> list[dict[str, object]]:
        return [self._item(job) for job in map(self.find, ids) if job is not None]

    def _item(self, job: Job) -> dict[str, object]:
        item: dict[str, object] = {
            "_id": _derived_id(job, "row").replace("-", "")[:24],
            "id": job.id,
            "api_id": _derived_id(job, "api"),
            "application_id": _derived_id(job, "application"),
            "created_at": job.created_at,
            "started_at": job.created_at,
            "credential_id": _derived_id(job, "credential"),
            "user_id": _derived_id(job, "user"),
            "trace_id": _derived_id(job, "trace"),
            "state": "",
            "request": job.order.body,
        }
        if job.disturbs_poll("unknown-status"):
            return item | {"state": "reviewing", "response": {"status": "reviewing"}}
        return item | self._ended(job) if job.finished.is_set() else item

    def _ended(self, job: Job) -> dict[str, object]:
        response = self._result(job, job.id, job.outcome, _late_extras(job))
        return {"finished_at": job.finished_at, "elapsed": job.elapsed_s, "response": response}


def _late_extras(job: Job) -> dict[str, object]:
    """Extra fields of pictures in callbacks and queries: `timings` is an object here, a number in blocking answers."""
    seed = int.from_bytes(hashlib.sha256(job.order.prompt.encode()).digest()[:4], "big")
    return {"seed": seed, "timings": {"inference": round(job.elapsed_s, 3)}}


def _derived_id(job: Job, what: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{what}/{job.id}"))


def _parse_ids(fields: Fields) -> list[str]:
    ids = fields.body.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise refuse_field("ids", "must be a list of strings")
    if len(ids) > MAX_BATCH:
        raise refuse_field("ids", f"must have at most {MAX_BATCH} items")
    return ids


def _parse_order(fields: Fields) -> Order:
    action = fields.choice("action", ("generate", "edit"))
    prompt = fields.text("prompt")
    model = fields.choice("model", SIZES, "flux-dev")
    width, height = measure(model, fields.find_text("size"))
    count = fields.whole_between("count", 1, MAX_COUNT, 1)
    if action == "edit":
        _check_edit(fields, model)
    return Order(
        prompt=prompt,
        model=model,
        width=width,
        height=height,
        count=1 if action == "edit" else count,
        callback_url=fields.find_url("callback_url"),
        body=fields.body,
    )


def _check_edit(fields: Fields, model: str) -> None:
    if model not in EDIT_MODELS:
        raise refuse_field("model", f"{model} does not support the edit action")
    if fields.find_url("image_url") is None:
        raise refuse_field("image_url", "is required for the edit action")
