"""Callbacks of providers: the token names the task, and the answer goes out after the commit."""

from functools import partial

import msgspec
import structlog
from starlette.types import Scope

from service.core.account import Account
from service.core.change import Change, Outcome
from service.core.foreign_json import COMMAS_MAX, is_costly
from service.core.lifecycle import advance
from service.core.observation import Answer as CallbackAnswer
from service.core.observation import Observation, Unverified
from service.core.problems import Conflict, Forbidden, Malformed, NotFound, Problem, TooLarge
from service.core.task import Task
from service.large_bodies import read_apart
from service.providers.base import Access, HttpReply, Provider
from service.telemetry import log_dropped_outputs
from service.telemetry.tracing import current_span
from service.web.bodies import BODY_MAX, read_body
from service.web.calls import Answer, Call
from service.web.codings import gunzip, is_gzipped
from service.web.context import Web
from service.web.errors import UnsupportedCoding

log = structlog.get_logger()
EXCERPT_MAX = 16 * 1024
NOT_OURS = "This callback URL is not one of ours."
TAKEN: dict[Outcome, str] = {"duplicate": "duplicate", "late": "late", "hint": "hint"}


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """The callback is stored."""

    status: str = "received"


class _Unsigned(Forbidden):
    """The vendor's own signature does not hold."""


class _Unreadable(Malformed):
    """A body that can't be read; it is stored."""


class _Mismatched(Conflict):
    """The same."""


REFUSALS: dict[type[Problem], str] = {
    Forbidden: "forged",
    _Unsigned: "unsigned",
    _Unreadable: "unreadable",
    _Mismatched: "mismatch",
    TooLarge: "too_large",
    UnsupportedCoding: "unsupported",
    Malformed: "undecodable",
    NotFound: "gone",
}


async def receive_callback(web: Web, call: Call[None, None]) -> Answer:
    started = web.env.monotonic()
    access = _find_access(web, call.scope["path_params"]["provider"])
    provider, task_id = access.provider.id, None
    try:
        task_id = _verify(web, call.scope, provider)
        is_encoded = is_gzipped(call.scope)
        sent = await read_body(call.scope, call.receive, web.slow_bodies, task_id)
        with web.requests:
            sent = gunzip(sent, BODY_MAX) if is_encoded else sent
            change = await _take(web, call.scope, sent, access, task_id)
        if isinstance(change, CallbackAnswer):
            web.running.metrics.callbacks.labels(provider, "answered").inc()
            return Answer(200, change.body)
    except Problem as problem:
        outcome = REFUSALS.get(type(problem), "failed")
        web.running.metrics.callbacks.labels(provider, outcome).inc()
        _tell("callback.refused", provider, task_id, outcome, web.env.monotonic() - started)
        raise
    outcome = TAKEN.get(change.outcome, "accepted")
    web.running.metrics.callbacks.labels(provider, outcome).inc()
    task = change.tasks[0]
    _tell("callback.accepted", provider, task_id, outcome, web.env.monotonic() - started, status=task.status)
    return Answer(*access.provider.capabilities.callback_answer)


def _find_access(web: Web, provider: str) -> Access:
    """Raise NotFound for an unknown provider, Forbidden for one that is not configured or has no callbacks."""
    access = web.providers.get(provider)
    if access is None:
        web.running.metrics.callbacks.labels("unknown", "no_provider").inc()
        raise NotFound("There is no such provider here.")
    if not access.is_configured or not access.provider.capabilities.callbacks:
        web.running.metrics.callbacks.labels(provider, REFUSALS[Forbidden]).inc()
        raise Forbidden(NOT_OURS)
    return access


async def _find_account(web: Web, access: Access, task_id: str) -> Account:
    """The task's own. The only one there is needs no read: `_take` refuses a task of another account."""
    if len(access.accounts) == 1:
        return next(iter(access.accounts.values()))
    task = await web.store.reads.get_task(task_id)
    if task.account not in access.accounts:
        raise Forbidden(NOT_OURS)
    return access.accounts[task.account]


def _verify(web: Web, scope: Scope, provider: str) -> str:
    """The task's id. A token has one spelling: an escaped one is not ours."""
    if b"%" in scope.get("raw_path", b""):
        raise Forbidden(NOT_OURS)
    return web.trust.tokens.verify(provider, scope["path_params"]["token"])


async def _take(web: Web, scope: Scope, sent: bytes, access: Access, task_id: str) -> Change | CallbackAnswer:
    account = await _find_account(web, access, task_id)
    provider, received_at = access.provider, web.env.now()
    raw = HttpReply(status=0, headers=_headers(scope), body=sent, received_at=received_at)
    if answer := provider.answer_challenge(raw):
        return answer
    _check_signature(provider, raw, account, task_id)
    body, observation = await read_apart(len(sent), partial(_interpret, provider, account, raw))
    if isinstance(observation, CallbackAnswer):
        return observation
    if isinstance(observation, Unverified):
        raise _Unsigned("The signature of this callback does not hold.")
    learn = partial(
        advance,
        observation=observation,
        via="callback",
        env=web.env,
        policy=access.policy,
        excerpt=body[:EXCERPT_MAX].decode("utf-8", "replace"),
    )

    def decide(task: Task) -> Change:
        if task.account != account.id:
            raise Forbidden(NOT_OURS)
        return learn(task)

    change = await web.store.writer.change_task(task_id, decide)
    current_span().join(change.tasks[0])
    log_dropped_outputs(change)
    if change.outcome == "unreadable":
        raise _Unreadable("This callback can't be read.")
    if change.outcome == "mismatch":
        raise _Mismatched("This callback is about another task.")
    return change


def _interpret(provider: Provider, account: Account, raw: HttpReply) -> tuple[bytes, Observation | CallbackAnswer]:
    """Return the body without our secrets, and what it says. One that is costly to decode is only kept."""
    if is_costly(raw.body, COMMAS_MAX):
        kept = account.clean(raw.body[:EXCERPT_MAX])
        return kept, provider.parse_callback(msgspec.structs.replace(raw, body=b""), account)
    body = account.clean(raw.body)
    return body, provider.parse_callback(msgspec.structs.replace(raw, body=body), account)


def _check_signature(provider: Provider, raw: HttpReply, account: Account, task_id: str) -> None:
    """Over the raw bytes, before anything else reads them."""
    if reason := provider.verify_callback(raw, account):
        log.warning("callback.unverified", provider=provider.id, task_id=task_id, reason=reason)
        raise _Unsigned("The signature of this callback does not hold.")


def _headers(scope: Scope) -> dict[str, str]:
    return {str(name, "latin-1"): str(value, "latin-1") for name, value in scope["headers"]}


def _tell(event: str, provider: str, task_id: str | None, outcome: str, took_s: float, **more: object) -> None:
    duration_ms = round(took_s * 1000, 1)
    log.info(event, task_id=task_id, provider=provider, outcome=outcome, duration_ms=duration_ms, **more)
