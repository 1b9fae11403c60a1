"""The conformance test for receivers: the events it sends, and how it grades each answer."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

import msgspec

from service.core.delivering import Outcome
from service.core.delivery import Format, render_for
from service.core.env import Env
from service.core.event import Event, EventType, render_body
from service.core.task import Output, Result, TaskInput
from service.core.times import after, rfc3339
from service.core.views import TaskView, Tracking

Grade = Literal["pass", "warn", "fail", "skip"]
Signer = Literal["secret", "another", "both", "nobody"]

SLOW_MS = 5_000
OLD_S, FUTURE_S = -600.0, 600.0
LARGE_BYTES = 256 * 1024
RESPONSE_MAX = 200
UNKNOWN_TYPE = "task.archived"
METADATA = {"taskhook": "check-receiver"}
"""Marks events of a check, so that a receiver can distinguish them from those about its own tasks."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement for receivers. `weight` is the grade of a receiver that does not meet it."""

    name: str
    sent: str
    expects: Literal["received", "refused"] = "received"
    weight: Literal["warn", "fail"] = "fail"
    why: str
    fix: str


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """A case with what is sent for it; `shift_s` moves the timestamp away from now, `idle` asks for a pause before."""

    case: Case
    webhook_id: str
    body: bytes
    signed_body: bytes | None = None
    signer: Signer = "secret"
    shift_s: float = 0.0
    idle: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a case; `got` is the answer in a few words, `fix` is empty if nothing is to be done.

    `response` is the beginning of the answer's body, where it was not the right one.
    """

    check: str
    grade: Grade
    sent: str
    got: str
    why: str
    fix: str
    response: str = ""
    status_code: int | None = None
    duration_ms: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All findings, and the worst of their grades."""

    url: str
    grade: Grade
    findings: tuple[Finding, ...]


_STALE = "Refuse a webhook-timestamp more than 300 s away from your clock, before anything else."
_VERIFY = "Verify webhook-signature over the raw body before you parse it, and answer 401 when it does not hold."

GOOD = Case(
    name="good event",
    sent="a task.succeeded event, signed as Taskhook signs",
    why="Everything else rests on this: an event that is not answered with a 2xx is sent again for three days.",
    fix="Answer a valid event with a 2xx.",
)
DUPLICATE = Case(
    name="duplicate",
    sent="the same event again: same webhook-id, fresh timestamp and signature",
    why="Delivery is at least once. A refused duplicate is sent again and again, and counts against the endpoint.",
    fix="Keep each webhook-id, and answer one that you know with a 2xx without working on it again.",
)
WRONG_SIGNATURE = Case(
    name="wrong signature",
    sent="an event signed with another secret",
    expects="refused",
    why="Whoever finds the URL could report results of your tasks.",
    fix=_VERIFY,
)
NO_SIGNATURE = Case(
    name="no signature",
    sent="an event without any of the webhook-* headers",
    expects="refused",
    why="A check that is left out when the header is missing protects nothing.",
    fix=_VERIFY,
)
TAMPERED = Case(
    name="tampered body",
    sent="an event whose body was altered after it was signed",
    expects="refused",
    why="A signature that does not cover the body lets anybody on the way change the result.",
    fix="Verify over the bytes as received, not over JSON that was parsed and written again.",
)
OLD = Case(
    name="old timestamp",
    sent="an event with a valid signature, ten minutes old",
    expects="refused",
    why="A recorded event could be sent to you again at any time.",
    fix=_STALE,
)
FUTURE = Case(
    name="future timestamp",
    sent="an event with a valid signature, ten minutes ahead",
    expects="refused",
    weight="warn",
    why="An event from the future outlives the check of its age.",
    fix=_STALE,
)
TWO_SIGNATURES = Case(
    name="two signatures",
    sent="an event with two signatures, of which the second is yours",
    why="For 24 hours after a secret is rotated both secrets sign. A receiver that reads one alone loses events.",
    fix="Split webhook-signature at spaces, and accept the event when any of the signatures holds.",
)
LATER = Case(
    name="later event",
    sent="task.succeeded of a task whose task.running was not sent yet",
    why="Deliveries overtake each other: an event is retried while the next one arrives.",
    fix="Take the end of a task without having seen its beginning.",
)
EARLIER = Case(
    name="earlier event",
    sent="task.running of the same task, with the lower sequence, after its end",
    why="A late event that is refused is sent again for three days.",
    fix="Answer 2xx, and ignore what has a lower sequence than what you know of that task.",
)
UNKNOWN = Case(
    name="unknown type and fields",
    sent=f"an event of type {UNKNOWN_TYPE} with fields that no version has yet",
    weight="warn",
    why="New types and fields are added without a new version. One that is refused is sent again for three days.",
    fix="Ignore fields that you don't know, and answer an unknown type with a 2xx.",
)
LARGE = Case(
    name="large event",
    sent=f"an event of {LARGE_BYTES // 1024} KiB",
    weight="warn",
    why="An event holds the provider's own answer, which can be large. Many frameworks take 100 KiB unless told.",
    fix="Raise the limit of the body in your framework, and in the proxy before it, to 4 MiB.",
)
IDLE = Case(
    name="after a pause",
    sent="an event after some seconds of silence",
    why="Servers and proxies close idle connections; one that does so without a word breaks the next delivery.",
    fix="Let the server close idle connections cleanly, and later than the proxy before it.",
)

_SLOW = "Answer first and work afterwards: after 15 s Taskhook takes the event for not received."
_REDIRECT = "Register the URL that the redirect leads to: redirects are not followed."
_GONE = "Answer 410 only when you want no more events: it disables the endpoint."
_KEY = "Check that the receiver has this endpoint's secret, with its whsec_, and verifies over the raw body."
_CRASH = "It was refused by a failure, not by a check. " + _VERIFY
_AWAY = "Make the URL reachable from here: is the server running, is the name right, does its certificate hold?"
_BUSY = "It was refused for the number of requests, which says nothing of the check: run it again later."


def build_plan(env: Env, form: Format, source: str) -> list[Probe]:
    """In the order in which they are sent; the good event is the first."""
    sample = _Sample(env, form, source)
    good, good_id = sample.succeeded()
    fresh = sample.succeeded
    later, later_id, earlier, earlier_id = sample.out_of_order()
    return [
        Probe(case=GOOD, webhook_id=good_id, body=good),
        Probe(case=DUPLICATE, webhook_id=good_id, body=good),
        _probe(WRONG_SIGNATURE, fresh(), signer="another"),
        _probe(NO_SIGNATURE, fresh(), signer="nobody"),
        _tampered(*fresh()),
        _probe(OLD, fresh(), shift_s=OLD_S),
        _probe(FUTURE, fresh(), shift_s=FUTURE_S),
        _probe(TWO_SIGNATURES, fresh(), signer="both"),
        Probe(case=LATER, webhook_id=later_id, body=later),
        Probe(case=EARLIER, webhook_id=earlier_id, body=earlier),
        _probe(UNKNOWN, _changed(*fresh(), _add_unknown)),
        _probe(LARGE, _changed(*fresh(), _fill)),
        _probe(IDLE, fresh(), idle=True),
    ]


def _probe(case: Case, event: tuple[bytes, str], **more: Any) -> Probe:
    body, event_id = event
    return Probe(case=case, webhook_id=event_id, body=body, **more)


def _tampered(body: bytes, event_id: str) -> Probe:
    return Probe(case=TAMPERED, webhook_id=event_id, body=body.replace(b"dusk", b"dawn"), signed_body=body)


class _Sample:
    """Events about tasks that never were, each with its own id and the next sequence."""

    def __init__(self, env: Env, form: Format, source: str) -> None:
        self._env = env
        self._form = form
        self._source = source
        self._sequence = 0

    def succeeded(self) -> tuple[bytes, str]:
        self._sequence += 1
        return self._render("task.succeeded", self._env.new_id("task"), self._sequence)

    def out_of_order(self) -> tuple[bytes, str, bytes, str]:
        """The later event and its id, then the earlier one of the same task."""
        task_id = self._env.new_id("task")
        self._sequence += 2
        earlier = self._render("task.running", task_id, self._sequence - 1)
        return *self._render("task.succeeded", task_id, self._sequence), *earlier

    def _render(self, kind: EventType, task_id: str, sequence: int) -> tuple[bytes, str]:
        at = self._env.now()
        data = msgspec.json.encode(_task(task_id, at, ended=kind == "task.succeeded"))
        event = Event(id=self._env.new_id("event"), type=kind, at=at, data=data, task_id=task_id)
        body = render_body(event, sequence)
        return render_for(self._form, body, self._source, task_id), event.id


def _task(task_id: str, at: datetime, *, ended: bool) -> TaskView:
    output = Output(url="https://example.com/lighthouse.jpg", content_type="image/jpeg", width=1024, height=768)
    return TaskView(
        id=task_id,
        status="succeeded" if ended else "running",
        provider="fluxapi-ai",
        model="flux-kontext-pro",
        provider_task_id="check-receiver",
        input=TaskInput(prompt="a lighthouse at dusk"),
        metadata=METADATA,
        result=Result(outputs=(output,)) if ended else None,
        error=None,
        tracking=Tracking(via="callback" if ended else None, polls=0, callbacks=int(ended)),
        created_at=rfc3339(at),
        submitted_at=rfc3339(at),
        finished_at=rfc3339(at) if ended else None,
        deadline_at=rfc3339(after(at, 900)),
    )


def _changed(body: bytes, event_id: str, change: Callable[[dict[str, Any]], None]) -> tuple[bytes, str]:
    event = msgspec.json.decode(body)
    change(event)
    return msgspec.json.encode(event), event_id


def _add_unknown(event: dict[str, Any]) -> None:
    event |= {"type": UNKNOWN_TYPE, "newfield": {"nested": [1, None]}}
    event["data"]["newfield"] = "x"


def _fill(event: dict[str, Any]) -> None:
    event["data"]["result"]["raw"] = {"filler": "x" * LARGE_BYTES}


def judge(case: Case, outcome: Outcome) -> Finding:
    grade, fix = _judge_received(case, outcome) if case.expects == "received" else _judge_refused(case, outcome)
    return Finding(
        check=case.name,
        grade=grade,
        sent=case.sent,
        got=_describe(outcome),
        why=case.why,
        fix=fix,
        response="" if grade == "pass" else outcome.excerpt[:RESPONSE_MAX],
        status_code=outcome.status_code,
        duration_ms=outcome.duration_ms,
    )


def skip(case: Case) -> Finding:
    """Where the good event is refused, a refusal of a bad one says nothing."""
    got = "not sent: the good event must be received first"
    return Finding(check=case.name, grade="skip", sent=case.sent, got=got, why=case.why, fix="")


def summarize(url: str, findings: list[Finding]) -> Report:
    grades = {finding.grade for finding in findings}
    worst: Grade = "fail" if "fail" in grades else "warn" if "warn" in grades else "pass"
    return Report(url=url, grade=worst, findings=tuple(findings))


def judge_transport(url: str, *, is_public: bool) -> Finding:
    """Whether what is sent can be read on the way; on the machine itself, or in its own network, it stays there."""
    plain = url.lower().startswith("http:") and is_public
    return Finding(
        check="transport",
        grade="warn" if plain else "pass",
        sent="nothing: this is read from the URL",
        got="http over the open network" if plain else "https, or a private address",
        why="Prompts and links to results travel in every event.",
        fix="Put a certificate before the receiver, and register its https URL." if plain else "",
    )


def _judge_received(case: Case, outcome: Outcome) -> tuple[Grade, str]:
    if not outcome.received:
        return case.weight, _advice(case, outcome)
    return ("warn", _SLOW) if outcome.duration_ms > SLOW_MS else ("pass", "")


def _advice(case: Case, outcome: Outcome) -> str:
    """The status says more than the case does."""
    match outcome.status_code:
        case None:
            return _SLOW if "timed out after" in (outcome.error or "") else case.fix if case is IDLE else _AWAY
        case 410:
            return _GONE
        case 400 | 401 | 403 if case is GOOD:
            return _KEY
        case status if 300 <= status < 400:
            return _REDIRECT
    return case.fix


def _judge_refused(case: Case, outcome: Outcome) -> tuple[Grade, str]:
    status = outcome.status_code
    if outcome.received or (status is not None and 200 <= status < 300):
        return case.weight, case.fix
    if status in (408, 429):
        return "warn", _BUSY
    if status is not None and 400 <= status < 500:
        return "pass", ""
    return "warn", _CRASH


def _describe(outcome: Outcome) -> str:
    said = outcome.error or str(outcome.status_code)
    return f"{said} in {outcome.duration_ms} ms" if outcome.status_code is not None else f"no answer: {said}"
