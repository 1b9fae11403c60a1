"""The four providers on real sockets: independent of the service, each speaking its own wire format from a script."""

import asyncio
import base64
import hashlib
import hmac
import itertools
import secrets
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import httpx

from tests.support.server import Answer, Hang, Reply, Request, Reset, ScriptedServer
from tests.support.wait import PATIENCE_S

Outcome = str
"""`running`, `success`, `moderated` or `failed`: what a provider says of a job."""


@dataclass(frozen=True)
class Step:
    """The behaviour of a provider for a submit or a poll."""

    kind: str
    answer: Answer | None = None
    delay: float = 0.0
    retry_after: str | None = None
    callback_first: bool = False
    job_id: str | None = None


def accept(delay: float = 0.0, *, callback_first: bool = False, job_id: str | None = None) -> Step:
    """The job is taken; with `callback_first` its callback is answered before this submit is."""
    return Step("accept", delay=delay, callback_first=callback_first, job_id=job_id)


def throttle(retry_after: str | None = None) -> Step:
    return Step("throttled", retry_after=retry_after)


def refuse(kind: str) -> Step:
    """`bad_key`, `no_credits`, `invalid`, `moderated`, `broken` or `throttled`, in the provider's own words."""
    return Step(kind)


def answer(answer: Answer, *, accepted: bool = False) -> Step:
    """Any answer at all; with `accepted` the job exists all the same."""
    return Step("accept" if accepted else "answer", answer)


def reset(*, accepted: bool = False, rst: bool = True) -> Step:
    """The submit was read, then the connection breaks."""
    return answer(Reset(rst), accepted=accepted)


def hang(*, accepted: bool = False) -> Step:
    return answer(Hang(), accepted=accepted)


@dataclass
class CallbackAnswer:
    """The service's answer to a callback; status 0 if it could not be reached."""

    status: int
    body: bytes
    at: float
    retry_after: str | None = None


@dataclass
class Job:
    """A task as its provider knows it."""

    id: str
    plan: "Plan"
    request: dict[str, Any]
    callback_url: str | None
    state: Outcome = "running"

    @property
    def token(self) -> str:
        assert self.callback_url is not None
        return self.callback_url.rsplit("/", 1)[1]


@dataclass
class Plan:
    """The plan for submits with a prompt, and what happened to them."""

    prompt: str | None
    steps: deque[Step]
    callback: Outcome | None
    callback_delay: float
    callback_tries: int
    polls: deque[Outcome | Step]
    submits: list[Request] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    poll_requests: list[Request] = field(default_factory=list)
    callback_answers: list[CallbackAnswer] = field(default_factory=list)

    @property
    def job(self) -> Job:
        assert self.jobs, f"no job for {self.prompt!r} yet"
        return self.jobs[-1]


class FakeProvider:
    """A scripted server and the jobs on it. Without a script every submit is accepted and stays running."""

    provider: ClassVar[str]
    setting: ClassVar[str]
    known_fields: ClassVar[frozenset[str]]
    required_fields: ClassVar[frozenset[str]] = frozenset({"prompt", "model"})
    default_model: ClassVar[str]
    base_path: ClassVar[str] = ""
    has_callbacks: ClassVar[bool] = False

    def __init__(self) -> None:
        self.key = f"key-{self.provider}-{secrets.token_hex(8)}"
        self.server = ScriptedServer(self._answer)
        self.plans: dict[str | None, Plan] = {}
        self.jobs: dict[str, Job] = {}
        self.complaints: list[str] = []
        self.down: Answer | None = None
        """What every request is answered while it is set."""
        self._unscripted: dict[str, Any] = {}
        self._next: deque[Plan] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._client: httpx.AsyncClient | None = None

    async def start(self) -> Self:
        await self.server.listen()
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False, limits=limits)
        return self

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.server.close()
        if self._client is not None:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The service's settings for this provider; its limits are out of the way."""
        return {
            f"TASKHOOK_{self.setting}_API_KEY": self.key,
            f"TASKHOOK_{self.setting}_BASE_URL": self.server.url + self.base_path,
            f"TASKHOOK_{self.setting}_SUBMITS_PER_S": "1000",
            f"TASKHOOK_{self.setting}_MAX_IN_FLIGHT": "1000",
        }

    def script(
        self,
        prompt: str | None = None,
        *,
        submit: Iterable[Step] = (),
        callback: Outcome | None = None,
        callback_delay: float = 0.05,
        callback_tries: int = 1,
        poll: Sequence[Outcome | Step] = (),
    ) -> Plan:
        """Script the submits with this prompt, or with the next prompt that has no script.

        Steps are used up one by one, then submits are accepted; the last poll step is repeated; without poll
        steps a poll tells the job's state.
        """
        plan = Plan(prompt, deque(submit), callback, callback_delay, callback_tries, deque(poll))
        if prompt is None:
            self._next.append(plan)
        else:
            self.plans[prompt] = plan
        return plan

    def script_rest(self, **script: Any) -> None:
        """The script of every prompt that has none of its own."""
        self._unscripted = script

    @property
    def submits(self) -> list[Request]:
        return [request for plan in self.plans.values() for request in plan.submits]

    def check_requests(self) -> None:
        """Every request had the right key and a User-Agent, and every submit was well formed."""
        assert self.server.requests, f"{self.provider} was never called"
        for request in self.server.requests:
            assert request.headers.get("authorization") == f"Bearer {self.key}", request
            assert _named_agent(request), f"no User-Agent of its own: {request.headers}"
        assert self.complaints == []

    async def callback(
        self,
        job: Job,
        outcome: Outcome = "success",
        *,
        body: dict[str, Any] | bytes | None = None,
        url: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> CallbackAnswer:
        """Sends one callback about the job, or any other body, to the URL it was given, or to any other."""
        target = url or job.callback_url
        assert target is not None, "this submit named no callback URL"
        assert self._client is not None
        if body is None:
            job.state = outcome
            body = self.callback_body(job, outcome)
        sent = Reply(body=body).raw_body
        signed = self.callback_headers(job) if headers is None else headers
        try:
            reply = await self._client.post(
                target, content=sent, headers={"Content-Type": "application/json", "User-Agent": "provider/1", **signed}
            )
            wait = reply.headers.get("retry-after")
            got = CallbackAnswer(reply.status_code, reply.content, time.monotonic(), wait)
        except httpx.TransportError as error:
            got = CallbackAnswer(0, repr(error).encode(), time.monotonic())
        job.plan.callback_answers.append(got)
        return got

    async def _answer(self, request: Request) -> Answer:
        if not _named_agent(request):
            return Reply(403, "error code: 1010")
        if self.down is not None:
            return self.down
        call, job_id = self.route(request)
        if call == "submit":
            return await self._submit(request)
        if call == "poll":
            return self._poll(request, job_id)
        return self.refusal("not_found", None)

    async def _submit(self, request: Request) -> Answer:
        body = request.json
        plan = self._plan(body.get("prompt"))
        plan.submits.append(request)
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return self.refusal("bad_key", None)
        self.complaints += [f"{self.provider}: {text}: {body}" for text in self.faults(request, body)]
        step = plan.steps.popleft() if plan.steps else accept()
        if step.kind == "accept":
            return await self._accept(step, plan, body)
        if step.answer is not None:
            return step.answer
        return self.refusal(step.kind, step.retry_after)

    async def _accept(self, step: Step, plan: Plan, body: dict[str, Any]) -> Answer:
        job = Job(step.job_id or self.new_id(), plan, body, self.callback_url_in(body))
        self.jobs[job.id] = job
        plan.jobs.append(job)
        if plan.callback and step.callback_first:
            await self.callback(job, plan.callback)
        elif plan.callback and job.callback_url:
            self._later(self._call_back(job, plan.callback))
        if step.delay:
            await asyncio.sleep(step.delay)
        return step.answer or self.accepted(job)

    async def _call_back(self, job: Job, outcome: Outcome) -> None:
        await asyncio.sleep(job.plan.callback_delay)
        for _ in range(job.plan.callback_tries):
            if (await self.callback(job, outcome)).status == 200:
                return
            await asyncio.sleep(0.2)

    def _poll(self, request: Request, job_id: str) -> Answer:
        job = self.jobs.get(job_id)
        if job is None:
            return self.refusal("not_found", None)
        plan = job.plan
        plan.poll_requests.append(request)
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return self.refusal("bad_key", None)
        step = (plan.polls.popleft() if len(plan.polls) > 1 else plan.polls[0]) if plan.polls else job.state
        if isinstance(step, str):
            return self.refusal(step, None) if step == "not_found" else self.polled(job, step)
        return step.answer or self.refusal(step.kind, step.retry_after)

    def _plan(self, prompt: str | None) -> Plan:
        if prompt not in self.plans:
            if self._next:
                self.plans[prompt] = self._next.popleft()
                self.plans[prompt].prompt = prompt
            else:
                self.plans[prompt] = self.script(prompt or "", **self._unscripted)
        return self.plans[prompt]

    def _later(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def faults(self, request: Request, body: dict[str, Any]) -> list[str]:
        found = [f"unknown field {name}" for name in body.keys() - self.known_fields]
        found += [f"missing field {name}" for name in self.required_fields - body.keys()]
        found += [f"null field {name}" for name, value in body.items() if value is None]
        if "json" not in request.headers.get("content-type", ""):
            found.append("a content type that is no JSON")
        return found

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def image_url(self, job: Job, index: int = 0) -> str:
        return f"https://images.example.com/{job.id}/{index}.png"

    def callback_url_in(self, body: dict[str, Any]) -> str | None:
        return None

    def callback_headers(self, job: Job) -> dict[str, str]:
        return {}

    def route(self, request: Request) -> tuple[str, str]:
        raise NotImplementedError

    def accepted(self, job: Job) -> Reply:
        raise NotImplementedError

    def polled(self, job: Job, state: Outcome) -> Reply:
        raise NotImplementedError

    def refusal(self, kind: str, retry_after: str | None) -> Reply:
        raise NotImplementedError

    def callback_body(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        raise NotImplementedError


def _named_agent(request: Request) -> bool:
    agent = request.headers.get("user-agent", "").lower()
    return bool(agent) and not agent.startswith(("python", "aiohttp"))


def _headers(retry_after: str | None) -> dict[str, str]:
    return {"Retry-After": retry_after} if retry_after is not None else {}


class FakeFluxContext(FakeProvider):
    """Poll only; 202 on accept; errors are `{"error": text}`; no reply to a poll names the task."""

    provider = "flux-context"
    setting = "FLUX_CONTEXT"
    default_model = "flux-kontext-pro"
    known_fields = frozenset({"prompt", "model", "aspect_ratio", "input_image", "enable_translation"})
    path = "/v1/images/generations"

    def script(self, prompt: str | None = None, **script: Any) -> Plan:
        script.setdefault("poll", ["running", "success"])
        return super().script(prompt, **script)

    def route(self, request: Request) -> tuple[str, str]:
        if request.method == "POST" and request.path == self.path:
            return "submit", ""
        if request.method == "GET" and request.path.startswith(self.path + "/"):
            return "poll", request.path.rsplit("/", 1)[1]
        return "", ""

    def accepted(self, job: Job) -> Reply:
        return Reply(202, {"taskId": job.id, "status": "processing", "creditsCharged": 10})

    def polled(self, job: Job, state: Outcome) -> Reply:
        return Reply(
            body={
                "running": {"status": "processing"},
                "success": {"status": "completed", "result": {"url": self.image_url(job)}},
                "moderated": {"status": "failed", "error": "The prompt was rejected by the safety system."},
                "failed": {"status": "failed", "error": "The model crashed."},
            }[state]
        )

    def refusal(self, kind: str, retry_after: str | None) -> Reply:
        status, body = {
            "bad_key": (401, {"error": "Invalid API key"}),
            "no_credits": (402, {"error": "Insufficient credits", "creditsRequired": 10, "creditsAvailable": 5}),
            "invalid": (400, {"error": "Field 'prompt' is invalid"}),
            "moderated": (400, {"error": "The prompt was rejected by the safety system."}),
            "throttled": (429, {"error": "Too many requests"}),
            "not_found": (404, {"error": "Task not found"}),
            "broken": (500, {"error": "Internal server error"}),
            "unavailable": (503, {"error": "Model service not configured"}),
        }[kind]
        return Reply(status, body, _headers(retry_after))


class FakeFluxapiAi(FakeProvider):
    """HTTP 200 with an envelope whose `code` counts; callbacks, which are signed when `hmac_key` is set."""

    provider = "fluxapi-ai"
    setting = "FLUXAPI_AI"
    default_model = "flux-kontext-pro"
    has_callbacks = True
    known_fields = frozenset(
        [
            "prompt",
            "aspectRatio",
            "model",
            "outputFormat",
            "inputImage",
            "enableTranslation",
            "promptUpsampling",
            "safetyTolerance",
            "callBackUrl",
            "uploadCn",
            "watermark",
        ]
    )
    required_fields = frozenset({"prompt", "model", "outputFormat"})
    prefix = "/api/v1/flux/kontext"

    def __init__(self, hmac_key: str | None = None) -> None:
        super().__init__()
        self.hmac_key = hmac_key

    def new_id(self) -> str:
        return f"task_flux_{secrets.token_hex(8)}"

    def callback_url_in(self, body: dict[str, Any]) -> str | None:
        return body.get("callBackUrl")

    def callback_headers(self, job: Job) -> dict[str, str]:
        return kie_signature(self.hmac_key, job.id) if self.hmac_key else {}

    def route(self, request: Request) -> tuple[str, str]:
        if request.method == "POST" and request.path == f"{self.prefix}/generate":
            return "submit", ""
        if request.method == "GET" and request.path == f"{self.prefix}/record-info":
            return "poll", request.query.get("taskId", "")
        return "", ""

    def accepted(self, job: Job) -> Reply:
        return Reply(body={"code": 200, "msg": "success", "data": {"taskId": job.id}})

    def urls(self, job: Job, outcome: Outcome) -> dict[str, str]:
        good = outcome == "success"
        return {
            "originImageUrl": f"https://origin.example.com/{job.id}.png" if good else "",
            "resultImageUrl": self.image_url(job) if good else "",
        }

    def polled(self, job: Job, state: Outcome) -> Reply:
        flag, code, text = {
            "running": (0, None, ""),
            "success": (1, None, ""),
            "moderated": (3, 400, "Your prompt was flagged by Website as violating content policies."),
            "failed": (2, 501, "Image generation task failed"),
        }[state]
        data = {
            "taskId": job.id,
            "paramJson": "{}",
            "createTime": "2026-01-01T10:25:00Z",
            "completeTime": None if state == "running" else "2026-01-01T10:30:00Z",
            "response": self.urls(job, state) if state == "success" else None,
            "successFlag": flag,
            "errorCode": code,
            "errorMessage": text,
        }
        return Reply(body={"code": 200, "msg": "success", "data": data})

    def refusal(self, kind: str, retry_after: str | None) -> Reply:
        code, text = {
            "bad_key": (401, "Unauthorized - Authentication failed. Please check that your headers are correctly set."),
            "no_credits": (402, "Insufficient credits"),
            "invalid": (422, "This field is required"),
            "moderated": (400, "Your prompt was flagged by Website as violating content policies."),
            "throttled": (429, "Too many requests"),
            "not_found": (422, "record is null"),
            "broken": (500, "Server error"),
            "unavailable": (455, "The service is under maintenance"),
        }[kind]
        status = 429 if code == 429 and retry_after is not None else 200
        return Reply(status, {"code": code, "msg": text, "data": None}, _headers(retry_after))

    def callback_body(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        code, text = {
            "success": (200, "BFL image generated successfully."),
            "moderated": (400, "Your prompt was flagged by Website as violating content policies."),
            "failed": (501, "Image generation task failed"),
        }[outcome]
        return {"code": code, "msg": text, "data": {"taskId": job.id, "info": self.urls(job, outcome)}}


def kie_signature(key: str, task_id: str, at: int | None = None) -> dict[str, str]:
    """The headers of a signed callback: the id and the time are signed, the body is not."""
    stamp = str(int(time.time()) if at is None else at)
    digest = hmac.new(key.encode(), f"{task_id}.{stamp}".encode(), hashlib.sha256).digest()
    return {"X-Webhook-Timestamp": stamp, "X-Webhook-Signature": base64.b64encode(digest).decode()}


class FakeAcedata(FakeProvider):
    """A bare task id on accept, the final result to a submit that names no callback; queries are POSTs."""

    provider = "acedata"
    setting = "ACEDATA"
    default_model = "flux-kontext-pro"
    has_callbacks = True
    known_fields = frozenset(["action", "prompt", "model", "size", "count", "image_url", "callback_url", "async"])
    required_fields = frozenset({"action", "prompt", "model"})

    def callback_url_in(self, body: dict[str, Any]) -> str | None:
        return body.get("callback_url")

    def faults(self, request: Request, body: dict[str, Any]) -> list[str]:
        found = super().faults(request, body)
        if not body.get("callback_url") and body.get("async") is not True:
            found.append("neither callback_url nor async: this blocks for minutes")
        if (body.get("action") == "edit") != ("image_url" in body):
            found.append("edit is the action of a submit with an image_url, and of no other")
        return found

    def route(self, request: Request) -> tuple[str, str]:
        if (request.method, request.path) == ("POST", "/flux/images"):
            return "submit", ""
        if (request.method, request.path) == ("POST", "/flux/tasks"):
            return "poll", request.json.get("id", "")
        return "", ""

    def _final(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        trace = {"task_id": job.id, "trace_id": "9b4b1ff3-90f2-470f-b082-1061ec2948cc"}
        if outcome == "success":
            pictures = [
                {
                    "prompt": job.request["prompt"],
                    "image_url": self.image_url(job, index),
                    "seed": 7,
                    "timings": timings,
                }
                for index, timings in zip(
                    range(job.request.get("count", 1)), itertools.cycle([{"inference": 3.3}, 1752743801]), strict=False
                )
            ]
            return {"success": True, **trace, "data": pictures}
        code, text = {
            "moderated": ("forbidden", "The prompt was rejected by content moderation"),
            "failed": ("api_error", "fetch failed"),
        }[outcome]
        return {"success": False, **trace, "error": {"code": code, "message": text}}

    def accepted(self, job: Job) -> Reply:
        if job.callback_url or job.request.get("async"):
            return Reply(body={"task_id": job.id})
        return Reply(body=self._final(job, "success"), delay=1.0)

    def polled(self, job: Job, state: Outcome) -> Reply:
        record: dict[str, Any] = {
            "_id": "677de81d550a4144a5f4cf62",
            "id": job.id,
            "created_at": 1736304669.779,
            "started_at": 1736304669.839,
            "request": job.request,
        }
        if state != "running":
            record |= {"finished_at": 1736304679.439, "elapsed": 9.6, "response": self._final(job, state)}
        return Reply(body=record)

    def refusal(self, kind: str, retry_after: str | None) -> Reply:
        if kind == "not_found":
            return Reply(200, {})
        status, code, text = {
            "bad_key": (401, "invalid_token", "The token is invalid"),
            "no_credits": (403, "used_up", "Your balance is used up"),
            "invalid": (400, "bad_request", "size is invalid"),
            "moderated": (403, "forbidden", "The prompt was rejected by content moderation"),
            "throttled": (429, "too_many_requests", "Too many requests"),
            "broken": (500, "api_error", "fetch failed"),
            "unavailable": (503, "api_error", "Service unavailable"),
        }[kind]
        error = {"error": {"code": code, "message": text}, "trace_id": "2cf86e86-22a4-46e1-ac2f-032c0f2a4e89"}
        return Reply(status, error, _headers(retry_after))

    def callback_body(self, job: Job, outcome: Outcome) -> dict[str, Any]:
        return self._final(job, outcome)


class FakeFluxapiOrg(FakeProvider):
    """Synchronous: the answer to the submit is the result, and there is nothing to ask later."""

    provider = "fluxapi-org"
    setting = "FLUXAPI_ORG"
    default_model = "flux-dev"
    base_path = "/v1"
    known_fields = frozenset({"model", "prompt", "size", "n", "response_format"})

    def route(self, request: Request) -> tuple[str, str]:
        return ("submit" if (request.method, request.path) == ("POST", "/v1/images/generations") else "", "")

    def accepted(self, job: Job) -> Reply:
        urls = [{"url": self.image_url(job, index)} for index in range(job.request.get("n") or 1)]
        return Reply(body={"created": 1716400000, "data": urls})

    def refusal(self, kind: str, retry_after: str | None) -> Reply:
        status, code, text = {
            "bad_key": (401, "invalid_api_key", "Incorrect API key provided"),
            "no_credits": (402, "insufficient_credits", "Insufficient credits"),
            "invalid": (400, "invalid_value", "Invalid value for size"),
            "moderated": (400, "content_policy_violation", "Your request was rejected by our safety system."),
            "throttled": (429, "rate_limit_exceeded", "Rate limit reached"),
            "not_found": (404, "not_found", "Unknown path"),
            "broken": (500, "server_error", "The server had an error"),
            "unavailable": (503, "overloaded", "The server is overloaded"),
        }[kind]
        error = {"error": {"message": text, "type": "invalid_request_error", "code": code, "param": None}}
        return Reply(status, error, _headers(retry_after))


FAKES: tuple[type[FakeProvider], ...] = (FakeFluxContext, FakeFluxapiAi, FakeAcedata, FakeFluxapiOrg)
