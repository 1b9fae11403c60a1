"""Errors of a declared provider: the first rule that fits says the code; the provider's own words are kept."""

from typing import Any, NamedTuple

from msgspec.structs import replace

from service.core.task import ErrorCode, TaskError
from service.providers.base import HttpReply
from service.providers.declared.document import Document
from service.providers.declared.expressions import Expression
from service.providers.declared.schema import Declaration, ErrorRule
from service.providers.foreign import error_code, error_text
from service.providers.replies import PAUSE_MAX_S, is_moderation, read_code, retry_after_s, task_error


class Judged(NamedTuple):
    """An error, and how long the account should pause for it."""

    error: TaskError
    wait_s: float | None


def judge(it: Declaration, document: Document, reply: HttpReply, outer: Document | None = None) -> Judged:
    """The error in a reply. `outer` is the whole callback where `document` is the result inside it."""
    documents = [document] if outer is None else [document, outer]
    fitting = ((rule, found) for found in documents for rule in it.errors if _fits(rule, found))
    rule, where = next(fitting, (None, document))
    message = _first(it.failure.message, documents) or next(filter(None, map(_text, documents)), None)
    code = _first(it.failure.provider_code, documents) or next(filter(None, map(_code, documents)), None)
    if message is None and reply.status >= 400:
        message = f"HTTP {reply.status} without a readable error"
    error = task_error(_code_of(rule, documents, reply, message), message, read_code(code))
    if rule and rule.retryable is not None:
        error = replace(error, retryable=rule.retryable)
    return Judged(error, retry_after_s(reply) or (_wait_s(rule, where) if rule else None))


def _code_of(rule: ErrorRule | None, documents: list[Document], reply: HttpReply, message: str | None) -> ErrorCode:
    """The rule's own code, except that words about moderation count for more than a rule about the HTTP status."""
    if rule is None and reply.status == 429:
        return "rate_limited"
    code: ErrorCode = rule.code if rule else "provider_error"
    is_vague = rule is None or (rule.when is None and code in ("invalid_request", "provider_error"))
    bodies = [document.values["body"] for document in documents]
    return "content_policy" if is_vague and reply.status < 500 and is_moderation(message, *bodies) else code


def _fits(rule: ErrorRule, document: Document) -> bool:
    status_fits = not rule.http or document.values["http"] in rule.http
    return status_fits and (rule.when is None or rule.when.holds(document))


def _wait_s(rule: ErrorRule, document: Document) -> float | None:
    value: Any = rule.wait_s.find(document) if isinstance(rule.wait_s, Expression) else rule.wait_s
    try:
        seconds = float(value)
    except (ValueError, TypeError):
        return None
    return min(seconds, PAUSE_MAX_S) if seconds > 0 else None


def _first(expression: Expression | None, documents: list[Document]) -> Any:
    """`to_string(null)` is the text `null`, so that counts as nothing."""
    values = [expression.find(document) for document in documents] if expression else []
    return next((_readable(value) for value in values if _readable(value)), None)


def _readable(value: Any) -> Any:
    if isinstance(value, list | dict):
        return error_text(value)
    return None if value in ("null", "", None) else str(value)


def _text(document: Document) -> str | None:
    return error_text(document.values["body"])


def _code(document: Document) -> str | None:
    body = document.values["body"]
    inner = body.get("error") if isinstance(body, dict) else None
    return error_code(inner) or error_code(body)
