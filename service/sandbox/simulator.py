"""The common part of all simulators: keys, magic prompts, and the life of a job."""

import asyncio
import hmac
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.sandbox.broken_responses import CutResponse, bad_gateway
from service.sandbox.callbacks import GARBAGE, Courier, Report, reports
from service.sandbox.faults import Tally, parse_faults
from service.sandbox.jobs import Job, JobOutcome, Jobs, Order
from service.sandbox.reading import Reason, Refused

Answer = Callable[[Request], Awaitable[Response]]

SLOW: Final = 10
LATE: Final = 60
HOLD: Final = 100
EARLY_WAIT_S: Final = 20.0
METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """State that all simulators of one sandbox share."""

    base_url: str
    job_seconds: float
    key: str | None
    webhook_secrets: Mapping[str, str | None]
    sleep: Callable[[float], Awaitable[None]]
    jobs: Jobs
    courier: Courier
    submits: Tally

    def picture_url(self, job: Job, index: int = 0, kind: str = "result") -> str:
        ending = "jpg" if job.order.picture_format == "jpeg" else "png"
        return f"{self.base_url}/pictures/{job.id}/{kind}-{index + 1}.{ending}"

    def picture_urls(self, job: Job) -> list[str]:
        return [self.picture_url(job, index) for index in range(job.order.count)]


class Broken(Exception):
    """Raised to answer with this response instead of one in the provider's format."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Simulator(ABC):
    """A simulated provider. Its base URL is `/{id}{prefix}`; `calls` are below it."""

    id: ClassVar[str]
    prefix: ClassVar[str] = ""
    calls: ClassVar[tuple[str, ...]]
    moderates_at_submit: ClassVar[bool] = False
    callback_tries: ClassVar[int] = 1

    def __init__(self, site: Site) -> None:
        self.site = site

    @abstractmethod
    def answers(self) -> dict[str, Answer]:
        """Return the handler of each `METHOD /path`."""

    @abstractmethod
    def refuse(self, refused: Refused) -> Response:
        """Return the error response in the provider's format."""

    def new_id(self) -> str:
        return str(uuid.uuid4())

    def callback_body(self, job: Job, task_id: str, outcome: JobOutcome) -> dict[str, object]:
        raise NotImplementedError(f"{self.id} has no callbacks")

    def callback_headers(self, task_id: str) -> dict[str, str]:
        return {}

    def routes(self) -> list[Route]:
        routes = [self._route(call, answer) for call, answer in self.answers().items()]
        return [*routes, Route(f"/{self.id}/{{rest:path}}", self._nowhere, methods=METHODS)]

    def _route(self, call: str, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                self.check_key(request)
                return await answer(request)
            except Refused as refused:
                return self.refuse(refused)
            except Broken as broken:
                return broken.response

        method, path = call.split(" ")
        return Route(f"/{self.id}{self.prefix}{path}", endpoint, methods=[method])

    async def _nowhere(self, request: Request) -> Response:
        return self.refuse(Refused(Reason.NO_ROUTE, f"No route for {request.method} {request.url.path}"))

    def check_key(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise Refused(Reason.NO_KEY)
        expected = self.site.key
        wrong = expected is not None and not hmac.compare_digest(key.encode(), expected.encode())
        if wrong or key.startswith("bad-"):
            raise Refused(Reason.BAD_KEY)

    async def begin(self, order: Order) -> Job:
        """Start a job for a submit. Raises Refused or Broken if a magic prompt asks for it."""
        self._check_faults(order.prompt)
        job = Job(id=self.new_id(), provider=self.id, order=order)
        self.site.jobs.add(job)
        life = None if "stuck" in job.faults else self.site.jobs.spawn(self._live(job))
        if life and order.callback_url and "early-callback" in job.faults:
            await asyncio.wait({life}, timeout=EARLY_WAIT_S)
        if "cut-connection" in job.faults:
            raise Broken(CutResponse())
        return job

    def _check_faults(self, prompt: str) -> None:
        faults = parse_faults(prompt)
        if "bad-key" in faults:
            raise Refused(Reason.BAD_KEY)
        if "no-credits" in faults:
            raise Refused(Reason.NO_CREDITS)
        self._check_passing_faults(prompt, faults)
        if "html-error" in faults:
            raise Broken(bad_gateway())
        if "cut-lost" in faults:
            raise Broken(CutResponse())
        if "moderated" in faults and self.moderates_at_submit:
            raise Refused(Reason.MODERATED)

    def _check_passing_faults(self, prompt: str, faults: frozenset[str]) -> None:
        for fault, reason in (("throttled", Reason.THROTTLED), ("unavailable", Reason.UNAVAILABLE)):
            if fault in faults and self.site.submits.first(2, self.id, fault, prompt):
                raise Refused(reason)

    async def _live(self, job: Job) -> None:
        await self.site.sleep(self._duration_s(job))
        job.finish()
        if job.order.callback_url is None:
            return
        if "late-callback" in job.faults:
            await self.site.sleep(self.site.job_seconds * LATE)
        for report in reports(job):
            await self._send(job, job.order.callback_url, report)

    def _duration_s(self, job: Job) -> float:
        if "early-callback" in job.faults and job.order.callback_url:
            return 0.0
        return self.site.job_seconds * (SLOW if "slow" in job.faults else 1)

    async def _send(self, job: Job, url: str, report: Report) -> None:
        task_id = self.new_id() if report.names_another else job.id
        body = None if report.outcome is None else self.callback_body(job, task_id, report.outcome)
        raw_body = GARBAGE if body is None else json.dumps(body, ensure_ascii=False).encode()
        await self.site.courier.deliver(
            url,
            raw_body,
            self.callback_headers(task_id),
            tries=self.callback_tries,
            pause_s=self.site.job_seconds,
        )

    def find(self, task_id: str) -> Job | None:
        """Return the job that a poll asks for, after applying the faults that disturb polls."""
        job = self.site.jobs.find(task_id)
        if job is None or job.provider != self.id:
            return None
        if job.disturbs_poll("html-poll"):
            raise Broken(bad_gateway())
        return None if job.disturbs_poll("not-found") else job

    async def hold(self, request: Request, job: Job) -> bool:
        """Hold the request until the job has finished; return False if the client left or the limit passed."""
        finished = self.site.jobs.spawn(job.finished.wait())
        gone = asyncio.ensure_future(request.receive())
        limit_s = self.site.job_seconds * HOLD
        await asyncio.wait({finished, gone}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        gone.cancel()
        return job.finished.is_set()
