"""Tasks: submit or poll, and store the result."""

import asyncio
from datetime import datetime
from itertools import count

import msgspec
import structlog
from msgspec.structs import replace

from service.core.account import Account
from service.core.breaker import AccountCall, CallKind, is_answer
from service.core.change import Change
from service.core.env import Env
from service.core.lifecycle import advance
from service.core.observation import Ask, Failed, NotSent, Observation, Pending, Unconfirmed, Unreadable
from service.core.problems import NotFound, Unavailable
from service.core.task import Task, TaskError, Via
from service.core.tokens import CallbackTokens
from service.large_bodies import read_apart
from service.outbound.client import ProviderClient
from service.outbound.failures import kind_of
from service.providers.base import Access, CallError, HttpReply, HttpRequest
from service.store import claims
from service.store.accounts import read_account
from service.store.batch import Batch
from service.store.driver import Driver
from service.store.writer import Writer
from service.telemetry import Metrics, log_dropped_outputs
from service.telemetry.tracing import OFF, Tracing, current_span
from service.worker.faults import again_s, putting_aside
from service.worker.loop import Claimed

log = structlog.get_logger()
EXCERPT_MAX: dict[CallKind, int] = {"submit": 16 * 1024, "poll": 2 * 1024}
"""Bytes of an unreadable body kept in the timeline; a task can have hundreds of polls."""
FROZEN_S = 20.0
"""Between claim and call. Leases are longer by more than that, so a process that was stopped sends nothing stale."""
STOOD_STILL = "this process stood still before it was sent"
TO_THE_DEADLINE_S = 0.01
STEPS_MAX = 3
"""Calls of one poll: the status, the result, and what the result leads to."""
TOO_MANY_STEPS = "the poll needs more calls than three"
Said = Observation | Ask
LAST_POLL_S = 5.0
"""What a poll may last although its task's time is over."""


class TaskWork:
    """Submits and polls the tasks of one provider account."""

    def __init__(
        self,
        access: Access,
        account: Account,
        driver: Driver,
        writer: Writer,
        client: ProviderClient,
        callback_urls: "CallbackUrls",
        env: Env,
        metrics: Metrics,
        tracing: Tracing = OFF,
    ) -> None:
        self._access = access
        self._account = account
        self._others = tuple(one for one in access.accounts.values() if one.id != account.id)
        self._driver = driver
        self._writer = writer
        self._client = client
        self._callback_urls = callback_urls
        self._env = env
        self._metrics = metrics
        self._tracing = tracing
        self._is_shut = False

    async def find_next_due(self) -> datetime | None:
        async with self._driver.reading() as session:
            return await claims.next_due_task(session, self._account.key)

    async def claim(self, batch: Batch, free: int) -> Claimed[tuple[Task, float]]:
        """Claim due tasks, each with the time of its claim."""
        policy, account, claimed_at = self._access.policy, self._account, self._env.monotonic()
        claim = await claims.claim_due_tasks(batch, account.key, policy, account.limits, free, self._others)
        return Claimed(items=[(task, claimed_at) for task in claim.tasks], next_due_at=claim.next_due_at)

    async def run(self, item: tuple[Task, float]) -> datetime | None:
        """The task's next due time."""
        task, claimed_at = item
        async with putting_aside(self._writer, task.id):
            if task.step == "tracking":
                with self._tracing.call("poll", task):
                    return await self._poll(task)
            with self._tracing.call("submit", task):
                return await self._submit(task, claimed_at)

    async def _submit(self, task: Task, claimed_at: float) -> datetime | None:
        policy, account = self._access.policy, self._account
        url = self._callback_urls.of(task) if policy.callbacks else None
        try:
            request = self._access.provider.build_submit(task, account, url)
        except CallError as error:
            wrong = TaskError(code="invalid_request", message=f"the request can't be built: {error}")
            return await self._record(task, _Heard(observation=Failed(error=wrong)), "submit")
        left_s = (task.deadline_at - self._env.now()).total_seconds()
        request = replace(request, timeout_s=min(request.timeout_s, max(left_s, 0.0) + TO_THE_DEADLINE_S))
        if self._env.monotonic() - claimed_at > FROZEN_S:  # another worker may hold the task by now
            return await self._record(task, _Heard(observation=NotSent(reason=STOOD_STILL)), "submit")
        try:
            _, heard = await self._call("submit", request)
        except asyncio.CancelledError:
            stopped = Unconfirmed(reason="the service stopped while it was being sent")
            await self._record(task, _Heard(observation=stopped), "submit")
            raise
        due_at = await self._record(task, heard, "submit")
        self._metrics.submit_window.labels(task.provider, task.account).observe(self._env.monotonic() - claimed_at)
        return due_at

    async def _poll(self, task: Task) -> datetime | None:
        left_s = (task.deadline_at - self._env.now()).total_seconds()
        try:
            heard = await self._poll_steps(task, max(left_s, LAST_POLL_S))
        except asyncio.CancelledError:
            stopped = Unreadable(reason="the service stopped while it was being polled")
            await self._record(task, _Heard(observation=stopped), "poll")
            raise
        return await self._record(task, heard, "poll")

    async def _poll_steps(self, task: Task, timeout_s: float) -> "_Heard":
        """Poll in one call, or in as many as its replies require."""
        step, links, heard = "status", dict[str, str](), _Heard(observation=Unreadable(reason=TOO_MANY_STEPS))
        for _ in range(STEPS_MAX):
            try:
                request = self._access.provider.build_poll(task, self._account, step)
            except CallError as error:
                return replace(heard, observation=Unreadable(reason=f"the poll can't be built: {error}"))
            request = replace(request, timeout_s=min(request.timeout_s, timeout_s))
            said, call = await self._call("poll", request, step)
            heard = replace(call, calls=(*heard.calls, *call.calls))
            if not isinstance(said, Ask):
                break
            heard = replace(heard, observation=Unreadable(reason=TOO_MANY_STEPS))
            step, links = said.step, {**links, **said.links}
            task = replace(task, links={**task.links, **links})
        return heard

    async def _call(self, call: CallKind, request: HttpRequest, step: str = "status") -> "tuple[Said, _Heard]":
        started, span = self._env.monotonic(), current_span()
        span.record_call(request.method, request.url)
        sent = await self._client.send(request)
        size = len(sent.body) if isinstance(sent, HttpReply) else 0
        reply, said = await read_apart(size, lambda: self._interpret(call, sent, step))
        observation = Pending() if isinstance(said, Ask) else said
        duration_s = self._env.monotonic() - started
        account, outcome = self._account, str(observation.__struct_config__.tag)
        self._metrics.calls.labels(account.provider, account.id, call, outcome).inc()
        self._metrics.call_seconds.labels(account.provider, account.id, call).observe(duration_s, span.find_exemplar())
        status = reply.status if isinstance(reply, HttpReply) else None
        span.record_result(outcome, status, _error_type(reply, outcome))
        refused, answers = _refused_key(call, observation), is_answer(observation, status)
        answered = AccountCall(
            account=account.key,
            kind=call,
            answered=answers,
            accepted=call == "submit" and answers and refused is None,  # whatever it says of the task
            refused=refused,
            key=account.fingerprint if refused else "",
        )
        return said, _Heard(observation=observation, calls=(answered,), excerpt=_unread(call, reply, observation))

    def _interpret(
        self, call: str, sent: HttpReply | NotSent | Unconfirmed, step: str
    ) -> "tuple[HttpReply | NotSent | Unconfirmed, Said]":
        reply = self._without_secrets(sent)
        return reply, self._read(call, reply, step)

    def _without_secrets(self, reply: HttpReply | NotSent | Unconfirmed) -> HttpReply | NotSent | Unconfirmed:
        if not isinstance(reply, HttpReply):
            return reply
        reply = replace(reply, body=self._account.clean(reply.body))
        if location := reply.headers.get("location"):  # the one header whose words are told
            reply = replace(reply, headers={**reply.headers, "location": self._account.clean_header(location)})
        return reply

    def _read(self, call: str, reply: HttpReply | NotSent | Unconfirmed, step: str) -> "Said":
        provider, account = self._access.provider, self._account
        if isinstance(reply, HttpReply):
            is_submit = call == "submit"
            return provider.parse_submit(reply, account) if is_submit else provider.parse_poll(reply, account, step)
        return reply if call == "submit" else Unreadable(reason=reply.reason)

    async def _record(self, task: Task, heard: "_Heard", via: Via) -> datetime | None:
        """Until it is stored: what a paid submit answered must not be lost because the database was busy."""

        def decide(newest: Task) -> Change:
            policy = self._access.policy
            change = advance(newest, heard.observation, via, self._env, policy, task.lease, heard.excerpt)
            return replace(change, calls=heard.calls)

        for tries in count():
            try:
                change = await self._writer.change_task(task.id, decide)
            except Unavailable:
                await asyncio.sleep(again_s(tries))
            except NotFound:
                return None
            else:
                break
        if self._is_shut or not all(call.answered and call.refused is None for call in heard.calls):
            await self._look()
        return self._told(change, heard.observation, via)

    async def _look(self) -> None:
        """Log when the account's circuit breaker opens and closes."""
        account = self._account
        try:
            async with self._driver.reading() as session:
                state = await read_account(session, account.key, account.limits)
        except Unavailable:
            return
        breaker, refusal = state.breaker, state.refusal
        was_shut, self._is_shut = self._is_shut, breaker.since is not None
        self._metrics.accounts_open.labels(account.provider, account.id).set(self._is_shut)
        named, failures = {"provider": account.provider, "account": account.id}, breaker.submits + breaker.polls
        if refusal is not None:
            self._metrics.accounts_disabled.labels(account.provider, account.id).set(1)
            log.warning("account.disabled", **named, outcome="disabled", reason=refusal.reason, times=refusal.refusals)
        if self._is_shut and not was_shut:
            log.warning("account.opened", **named, outcome="open", failures=failures)
        elif was_shut and not self._is_shut:
            log.warning("account.closed", **named, outcome="closed")

    def _told(self, change: Change, observation: Observation, via: Via) -> datetime | None:
        task = change.tasks[0]
        log_dropped_outputs(change)
        log.info(
            "task.submitted" if via == "submit" else "task.polled",
            task_id=task.id,
            provider=task.provider,
            account=task.account,
            provider_task_id=task.provider_task_id,
            outcome=str(observation.__struct_config__.tag),
            status=task.status,
            reason=getattr(observation, "reason", None),
        )
        return task.due_at


def _unread(call: CallKind, reply: HttpReply | NotSent | Unconfirmed, observation: Observation) -> str | None:
    """The beginning of a body that could not be read."""
    if not isinstance(reply, HttpReply) or not isinstance(observation, Unconfirmed | Unreadable):
        return None
    return reply.body[: EXCERPT_MAX[call]].decode("utf-8", "replace") or None


def _refused_key(call: CallKind, observation: Observation) -> str | None:
    if call == "submit" and isinstance(observation, Failed) and observation.error.code == "authentication":
        return observation.error.message
    return None


def _error_type(reply: HttpReply | NotSent | Unconfirmed, outcome: str) -> str | None:
    """Of a call, not of its task: a provider that answers that a task failed has answered."""
    if not isinstance(reply, HttpReply):
        return kind_of(reply.reason)
    if reply.status >= 400:
        return str(reply.status)
    return outcome if outcome in ("throttled", "unreadable", "unconfirmed", "not_sent", "not_found") else None


class _Heard(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a provider call; `calls` is empty if the call was cancelled."""

    observation: Observation
    calls: tuple[AccountCall, ...] = ()
    excerpt: str | None = None


class CallbackUrls:
    """Where a provider calls back about a task; a secret, made anew for each submit."""

    def __init__(self, public_url: str | None, tokens: CallbackTokens) -> None:
        self._public_url = public_url
        self._tokens = tokens

    def of(self, task: Task) -> str | None:
        if self._public_url is None:
            return None
        return f"{self._public_url}/callbacks/{task.provider}/{self._tokens.sign(task.provider, task.id)}"
