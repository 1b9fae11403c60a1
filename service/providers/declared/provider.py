"""A provider made of a declaration. It does no I/O: it builds requests and reads replies."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from service.core.account import Account
from service.core.observation import (
    Accepted,
    Answer,
    Ask,
    Failed,
    Hint,
    NotFound,
    Observation,
    Pending,
    Succeeded,
    Throttled,
    Unconfirmed,
    Unreadable,
)
from service.core.problems import FieldError
from service.core.task import Task, TaskInput
from service.providers.base import Capabilities, HttpReply, HttpRequest, Model
from service.providers.checks import check_declared
from service.providers.declared.calls import Calls
from service.providers.declared.document import Document, read_callback, read_reply
from service.providers.declared.errors import Judged, judge
from service.providers.declared.expressions import Expression
from service.providers.declared.hosts import Hosts
from service.providers.declared.models import build_capabilities, check_model
from service.providers.declared.outputs import find_links, read_outputs
from service.providers.declared.schema import Cost, Declaration, Poll, State
from service.providers.declared.signatures import verify
from service.providers.declared.states import Found, as_word, read_state
from service.providers.replies import (
    dropped_links,
    judge_foreign_submit,
    judge_submit_status,
    no_output,
    raw_payload,
    read_amount,
    read_task_id,
)


class DeclaredProvider:
    """A declaration as a Provider. `now` is for tokens that expire."""

    def __init__(self, declaration: Declaration, now: Callable[[], datetime]) -> None:
        self.declaration = declaration
        self.id = declaration.id
        self.capabilities: Capabilities = build_capabilities(declaration)
        self._now = now

    def check(self, model: Model, task_input: TaskInput) -> list[FieldError]:
        return [*check_declared(model, task_input, self.capabilities.reserved_options), *check_model(model.name)]

    # --- submit -------------------------------------------------------------------------------------------------------

    def build_submit(self, task: Task, account: Account, callback_url: str | None) -> HttpRequest:
        return Calls(self.declaration, self._now()).submit(task, account, callback_url)

    def parse_submit(self, reply: HttpReply, account: Account) -> Observation:
        """A task, a result, or a refusal. A reply without an id, and a 5xx, may still have created a task."""
        submit, document = self.declaration.submit, read_reply(reply)
        is_accepted = reply.status in submit.accept and (submit.success is None or submit.success.holds(document))
        if not is_accepted:
            return self._refused(reply, document)
        if submit.final is not None and submit.final.holds(document):
            return self._succeed(document, reply, None, submit.cost)
        task_id = read_task_id(submit.id.find(document)) if submit.id else None
        if task_id is None:
            return Unconfirmed(reason=f"HTTP {reply.status}: accepted without a task id")
        links, refused = self._links(submit.remember, document, account)
        cost = _cost(submit.cost, document)
        return Accepted(provider_task_id=task_id, cost=cost, links=links, refused=refused)

    def _refused(self, reply: HttpReply, document: Document) -> Observation:
        if 300 <= reply.status < 400:
            return judge_submit_status(reply) or Unconfirmed(reason=f"HTTP {reply.status}")
        if document.values["body"] is None and reply.status in (403, 408):
            return judge_foreign_submit(reply)  # Cloudflare blocks before the API is reached
        judged = judge(self.declaration, document, reply)
        if judged.error.code == "rate_limited":
            return Throttled(reason=judged.error.message, retry_after_s=judged.wait_s)
        if reply.status >= 500 or reply.status == 408 or (document.values["body"] is None and reply.is_2xx):
            return Unconfirmed(reason=f"HTTP {reply.status}: {judged.error.message}")
        if reply.is_2xx and self.declaration.submit.success is None:
            return Unconfirmed(reason=f"HTTP {reply.status} is not in submit.accept")
        return Failed(error=judged.error, raw=_raw(document, reply))

    # --- poll ---------------------------------------------------------------------------------------------------------

    def build_poll(self, task: Task, account: Account, step: str = "status") -> HttpRequest:
        return Calls(self.declaration, self._now()).poll(task, account, step)

    def parse_poll(self, reply: HttpReply, account: Account, step: str = "status") -> Observation | Ask:
        document = read_reply(reply)
        if step == "result":
            return self._read_result(document, reply)
        poll = self.declaration.poll
        if poll is None:
            return Unreadable(reason="this provider can't be polled")
        found = read_state(poll.rules, None, {}, document) if poll.rules else Found(None)
        is_ruled = found.state is not None and any(rule.when.holds(document) for rule in poll.rules)
        if not is_ruled:
            if reply.status >= 400 or (poll.success is not None and not poll.success.holds(document)):
                return self._failed_call(document, reply)
            found = read_state((), poll.state, poll.states, document)
        links, _ = self._links(poll.remember, document, account)
        return self._observe(found, document, reply, links, None)

    def _failed_call(self, document: Document, reply: HttpReply) -> Observation:
        """The call failed, not the task: it keeps its state and is polled again."""
        judged = judge(self.declaration, document, reply)
        reason = f"HTTP {reply.status}: {judged.error.message}"
        if judged.error.code == "rate_limited":
            return Throttled(reason=reason, retry_after_s=judged.wait_s)
        return Unreadable(reason=reason, retry_after_s=judged.wait_s if reply.status == 503 else None)

    def _read_result(self, document: Document, reply: HttpReply) -> Observation:
        """The reply to `result.fetch`."""
        refused = self.declaration.result.refused
        if refused is not None and refused.holds(document):
            judged = judge(self.declaration, document, reply)
            if judged.error.code == "rate_limited":
                return Throttled(reason=judged.error.message, retry_after_s=judged.wait_s)
            return Failed(error=judged.error, raw=_raw(document, reply))
        if reply.status >= 400:
            return self._failed_call(document, reply)
        return self._succeed(document, reply, None, self.declaration.submit.cost)

    def _observe(
        self, found: Found, document: Document, reply: HttpReply, links: dict[str, str], task_id: str | None
    ) -> Observation | Ask:
        match found.state:
            case None:
                return Unreadable(reason="no state was found in the reply", provider_task_id=task_id)
            case "succeeded" if self.declaration.result.fetch is not None:
                return Ask(step="result", links=links)
            case "succeeded":
                return self._succeed(document, reply, task_id, None)
            case "failed" | "canceled":
                return self._fail(found.state, document, reply, task_id)
            case "not_found":
                return NotFound(reason=f"HTTP {reply.status}: the provider does not know this task")
            case _:
                return Pending(provider_task_id=task_id, links=links, unknown_word=found.unknown)

    def _fail(
        self, state: State, document: Document, reply: HttpReply, task_id: str | None, outer: Document | None = None
    ) -> Failed:
        judged: Judged = judge(self.declaration, document, reply, outer)
        error = judged.error
        if state == "canceled" and error.message == "the provider gave no reason":
            error = msgspec.structs.replace(error, message="the task was canceled at the provider", retryable=False)
        return Failed(error=error, raw=_raw(document, reply), provider_task_id=task_id)

    def _succeed(self, document: Document, reply: HttpReply, task_id: str | None, fallback: Cost | None) -> Observation:
        table = self.declaration.result
        urls: Sequence[Expression | None] = (
            table.urls,
            *(model.result.urls for model in self.declaration.models.entries.values()),
        )
        for expression in urls:
            images = read_outputs(table, expression, document, reply)
            if images:
                return Succeeded(
                    images=images,
                    raw=_raw(document, reply),
                    cost=_cost(table.cost, document) or _cost(fallback, document),
                    provider_task_id=task_id,
                    dropped=dropped_links(find_links(expression, document)),
                )
        partial = as_word(table.item_error.find(document)) if table.item_error else None
        if partial:
            return self._fail("failed", document, reply, task_id)
        return no_output(reply, task_id, dropped_links(find_links(table.urls, document)))

    def _links(
        self, remember: Mapping[str, Expression], document: Document, account: Account
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """Return the links to remember. A URL outside the declared hosts is refused, so nothing is ever sent there."""
        hosts = Hosts(self.declaration.hosts, self.declaration.base_url, account.base_url)
        kept, refused = dict[str, str](), list[str]()
        for name, expression in remember.items():
            text = as_word(expression.find(document))
            if text is None or len(text) > 2_000:
                continue
            problem = hosts.refusal(text) if "://" in text or text.startswith("//") else None
            if problem:
                refused.append(f"{name} {problem}")
            else:
                kept[name] = text
        return kept, tuple(refused)

    # --- callbacks ----------------------------------------------------------------------------------------------------

    def verify_callback(self, request: HttpReply, account: Account) -> str | None:
        """Why the callback can't be trusted; None if it can, or if this account has no secret to verify it with."""
        recipe = self.declaration.callback.verify
        if recipe is None or (recipe.when_secret and recipe.when_secret not in account.secrets):
            return None
        return verify(recipe, request, account.secrets.get(recipe.when_secret or recipe.secret))

    def answer_challenge(self, request: HttpReply) -> Answer | None:
        """The answer to a handshake, which is not a callback; None for a callback."""
        challenge = self.declaration.callback.challenge
        if challenge is None or len(request.body) > challenge.max_bytes:
            return None
        document = read_callback(request)
        if not challenge.when.holds(document):
            return None
        answer = {name: expression.find(document) for name, expression in challenge.answer.items()}
        return Answer(body=msgspec.json.encode(answer))

    def parse_callback(self, request: HttpReply, account: Account) -> Observation | Answer:
        callback, outer = self.declaration.callback, read_callback(request)
        if callback.ignore is not None and callback.ignore.holds(outer):
            return Answer(body=callback.answer.body)
        task_id = read_task_id(callback.id.find(outer)) if callback.id else None
        found = self._callback_state(outer)
        links, _ = self._links(callback.remember, outer, account)
        if found.state in ("succeeded", "failed", "canceled", "not_found") and self._is_hint(outer, found.state):
            return Hint(reason=f"the callback says {found.state}", provider_task_id=task_id, links=links)
        if found.state in ("failed", "canceled"):
            return self._fail(found.state, self._inner(outer), request, task_id, outer)
        if found.state == "succeeded":
            return self._succeed(self._inner(outer), request, task_id, None)
        if found.state is None:
            return Unreadable(reason="no state was found in the callback", provider_task_id=task_id)
        return Pending(provider_task_id=task_id, links=links, unknown_word=found.unknown)

    def _callback_state(self, document: Document) -> Found:
        """By the callback's own rules and words, or those of polls where it declares none."""
        callback, poll = self.declaration.callback, self.declaration.poll or Poll(none=True)
        rules = poll.rules if callback.rules is None else callback.rules
        states = poll.states if callback.states is None else callback.states
        return read_state(rules, callback.state or poll.state, states, document)

    def _inner(self, document: Document) -> Document:
        """Return the document from which the outputs are read."""
        result = self.declaration.callback.result
        return document if result is None else document.with_body(result.find(document))

    def _is_hint(self, document: Document, state: State) -> bool:
        """Whether the result has to be fetched, or must not be trusted as it stands here."""
        callback = self.declaration.callback
        is_missing = callback.result_missing is not None and callback.result_missing.holds(document)
        return callback.thin or callback.trust == "hint" or is_missing or state == "not_found"

    # --- cancel and check ---------------------------------------------------------------------------------------------

    def build_cancel(self, task: Task, account: Account) -> HttpRequest | None:
        return Calls(self.declaration, self._now()).cancel(task, account)

    def parse_cancel(self, reply: HttpReply) -> str:
        """`accepted`, `too_late`, `failed`, or `retry` for an answer that may be another one later."""
        cancel, document = self.declaration.cancel, read_reply(reply)
        if cancel is None:
            return "unsupported"
        if cancel.too_late is not None and cancel.too_late.holds(document):
            return "too_late"
        if reply.status in cancel.accept and (cancel.success is None or cancel.success.holds(document)):
            return "accepted"
        return "retry" if reply.status == 429 or reply.status >= 500 else "failed"

    def build_check(self, account: Account) -> HttpRequest | None:
        return Calls(self.declaration, self._now()).check(account)


def _cost(table: Cost | None, document: Document) -> float | None:
    value: Any = table.at.find(document) if table else None
    try:
        return read_amount(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None


def _raw(document: Document, reply: HttpReply) -> msgspec.Raw:
    return raw_payload(reply) if read_callback(reply).values["body"] is not None else msgspec.Raw(b"null")
