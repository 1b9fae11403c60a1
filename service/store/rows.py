"""Between rows and values: columns for what is searched, one JSON document for the rest."""

from datetime import datetime
from operator import attrgetter
from typing import Any, Literal

import msgspec
from msgspec.structs import asdict

from service.core.account import split_key
from service.core.breaker import Breaker
from service.core.change import Entry, IdempotencyKey
from service.core.delivery import Attempt, Delivery, Resume
from service.core.refusal import Refusal
from service.core.task import Cost, Output, ProviderCancel, Result, Task, TaskError, TaskInput, Via
from service.core.times import from_ms, to_ms
from service.core.trace import TraceContext
from service.store.driver import Row


class _StoredResult(msgspec.Struct, omit_defaults=True):
    """A result as every version stores and reads it: outputs under `images`, and the amount of the cost alone."""

    images: tuple[Output, ...]
    cost: float | None = None
    raw: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))
    cost_unit: str = "credits"


class _TaskDocument(msgspec.Struct, omit_defaults=True):
    """The fields of a task that no statement looks for."""

    input: TaskInput
    created_at: datetime
    metadata: dict[str, str] = {}
    webhook_url: str | None = None
    on_unconfirmed: Literal["wait", "resubmit"] = "wait"
    submitted_at: datetime | None = None
    erased_at: datetime | None = None
    result: _StoredResult | None = None
    error: TaskError | None = None
    late_result: _StoredResult | None = None
    cost: float | None = None
    via: Via | None = None
    polls: int = 0
    callbacks: int = 0
    submits: int = 0
    entries: int = 0
    wait_s: float | None = None
    setback: TaskError | None = None
    lost: bool = False
    polls_without_output: int = 0
    provider_cancel: ProviderCancel | None = None
    links: dict[str, str] = {}
    trace: TraceContext | None = None
    account_named: bool = False
    kept: int = 0


class _Traced(msgspec.Struct, kw_only=True):
    """Of the same document, what an attempt to deliver needs."""

    trace: TraceContext | None = None


_in_document = attrgetter(*_TaskDocument.__struct_fields__)
_read_document = msgspec.json.Decoder(_TaskDocument).decode
_read_traced = msgspec.json.Decoder(_Traced).decode
_read_refusal = msgspec.json.Decoder(Refusal).decode
_read_breaker = msgspec.json.Decoder(Breaker).decode
_write = msgspec.json.Encoder().encode

# `provider` holds the key of the task's account, so that what is due is found by account.
TASK_COLUMNS = "id, provider, model, status, step, provider_task_id, lease, due_ms, deadline_ms, finished_ms, doc"
UPSERT_TASK = f"""
insert into tasks ({TASK_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (id) do update set status = excluded.status, step = excluded.step,
  provider_task_id = excluded.provider_task_id, lease = excluded.lease, due_ms = excluded.due_ms,
  finished_ms = excluded.finished_ms, doc = excluded.doc
"""


def task_to_row(task: Task) -> Row:
    return (
        task.id,
        task.account_key,
        task.model,
        task.status,
        task.step,
        task.provider_task_id,
        task.lease,
        ms_or_null(task.due_at),
        to_ms(task.deadline_at),
        ms_or_null(task.finished_at),
        _write(_to_document(task)).decode(),
    )


def task_from_row(row: Row) -> Task:
    task_id, account_key, model, status, step, provider_task_id, lease, due_ms, deadline_ms, finished_ms, doc = row
    document = _read_document(doc)
    provider, account = split_key(account_key)
    return Task(
        id=task_id,
        provider=provider,
        account=account,
        model=model,
        status=status,
        step=step,
        provider_task_id=provider_task_id,
        lease=lease,
        due_at=time_or_null(due_ms),
        deadline_at=from_ms(deadline_ms),
        finished_at=time_or_null(finished_ms),
        **asdict(document)
        | {"result": _from_stored(document.result), "late_result": _from_stored(document.late_result)},
    )


def _to_document(task: Task) -> _TaskDocument:
    document = _TaskDocument(*_in_document(task))
    document.result, document.late_result = _to_stored(task.result), _to_stored(task.late_result)
    return document


def _to_stored(result: Result | None) -> _StoredResult | None:
    if result is None:
        return None
    amount, unit = (result.cost.amount, result.cost.unit) if result.cost else (None, "credits")
    return _StoredResult(images=result.outputs, cost=amount, raw=result.raw, cost_unit=unit)


def _from_stored(stored: _StoredResult | None) -> Result | None:
    if stored is None:
        return None
    cost = None if stored.cost is None else Cost(amount=stored.cost, unit=stored.cost_unit)
    return Result(outputs=stored.images, cost=cost, raw=stored.raw)


def trace_from_document(document: str) -> TraceContext | None:
    return _read_traced(document).trace


DELIVERY_COLUMNS = (
    "id, event_id, event_type, task_id, endpoint_id, url, lane, status, due_ms, created_ms, finished_ms, lease, "
    "attempts, failures, resume_status, resume_due_ms"
)
UPSERT_DELIVERY = f"""
insert into deliveries ({DELIVERY_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (id) do update set status = excluded.status, due_ms = excluded.due_ms, finished_ms = excluded.finished_ms,
  lease = excluded.lease, attempts = excluded.attempts, failures = excluded.failures,
  resume_status = excluded.resume_status, resume_due_ms = excluded.resume_due_ms
"""


def delivery_to_row(delivery: Delivery) -> Row:
    resume = delivery.resume
    return (
        delivery.id,
        delivery.event_id,
        delivery.event_type,
        delivery.task_id,
        delivery.endpoint_id,
        delivery.url,
        delivery.lane,
        delivery.status,
        ms_or_null(delivery.due_at),
        to_ms(delivery.created_at),
        ms_or_null(delivery.finished_at),
        delivery.lease,
        delivery.attempts,
        delivery.failures,
        resume.status if resume else None,
        ms_or_null(resume.due_at) if resume else None,
    )


def delivery_from_row(row: Row) -> Delivery:
    return Delivery(
        id=row[0],
        event_id=row[1],
        event_type=row[2],
        task_id=row[3],
        endpoint_id=row[4],
        url=row[5],
        lane=row[6],
        status=row[7],
        due_at=time_or_null(row[8]),
        created_at=from_ms(row[9]),
        finished_at=time_or_null(row[10]),
        lease=row[11],
        attempts=row[12],
        failures=row[13],
        resume=Resume(status=row[14], due_at=time_or_null(row[15])) if row[14] else None,
    )


ATTEMPT_COLUMNS = "delivery_id, number, at_ms, status_code, duration_ms, error, location, excerpt"
INSERT_ATTEMPT = f"insert into attempts ({ATTEMPT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)"


def attempt_to_row(attempt: Attempt) -> Row:
    return (
        attempt.delivery_id,
        attempt.number,
        to_ms(attempt.at),
        attempt.status_code,
        attempt.duration_ms,
        attempt.error,
        attempt.location,
        attempt.excerpt,
    )


def attempt_from_row(row: Row) -> Attempt:
    delivery_id, number, at_ms, status_code, duration_ms, error, location, excerpt = row
    return Attempt(
        delivery_id=delivery_id,
        number=number,
        at=from_ms(at_ms),
        status_code=status_code,
        duration_ms=duration_ms,
        error=error,
        location=location,
        excerpt=excerpt,
    )


INSERT_LABEL = "insert into labels (key, value, task_id) values (?, ?, ?)"
INSERT_EVENT = "insert into events (seq, id, type, task_id, audience_id, created_ms, body) values (?, ?, ?, ?, ?, ?, ?)"
INSERT_ENTRY = "insert into timeline (task_id, number, at_ms, type, detail) values (?, ?, ?, ?, ?)"


def entry_to_row(entry: Entry) -> Row:
    return (entry.task_id, entry.number, to_ms(entry.at), entry.type, _write(entry.detail).decode())


def entry_from_row(row: Row) -> Entry:
    task_id, number, at_ms, kind, detail = row
    found: dict[str, Any] = msgspec.json.decode(detail)
    return Entry(task_id=task_id, number=number, at=from_ms(at_ms), type=kind, detail=found)


IDEMPOTENCY_KEY_COLUMNS = "key, fingerprint, task_id, created_ms"
INSERT_IDEMPOTENCY_KEY = f"insert into idempotency_keys ({IDEMPOTENCY_KEY_COLUMNS}) values (?, ?, ?, ?)"


def idempotency_key_to_row(key: IdempotencyKey) -> Row:
    return (key.key, key.fingerprint, key.task_id, to_ms(key.created_at))


def idempotency_key_from_row(row: Row) -> IdempotencyKey:
    key, fingerprint, task_id, created_ms = row
    return IdempotencyKey(key=key, fingerprint=fingerprint, task_id=task_id, created_at=from_ms(created_ms))


MOVE_TASK = "update tasks set provider = ? where id = ?"
UPSERT_REFUSAL = """
insert into limits (name, paused_ms, used, refused) values (?, 0, '{}', ?)
on conflict (name) do update set refused = excluded.refused
"""


def refusal_to_text(refusal: Refusal | None) -> str | None:
    return None if refusal is None else _write(refusal).decode()


def refusal_from_text(text: str | None) -> Refusal | None:
    return None if text is None else _read_refusal(text)


UPSERT_BREAKER = """
insert into limits (name, paused_ms, used, breaker) values (?, 0, '{}', ?)
on conflict (name) do update set breaker = excluded.breaker
"""


def breaker_to_text(breaker: Breaker) -> str:
    return _write(breaker).decode()


def breaker_from_text(text: str) -> Breaker:
    return _read_breaker(text)


def ms_or_null(at: datetime | None) -> int | None:
    return None if at is None else to_ms(at)


def time_or_null(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)
