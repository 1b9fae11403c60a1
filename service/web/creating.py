"""Creation of a task: chooses its model, and finds out whether the same request was answered before."""

import hashlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from service.core import lifecycle
from service.core.account import DEFAULT, Account, choose, setting_name
from service.core.change import Change, IdempotencyKey
from service.core.problems import Conflict, FieldError, InvalidRequest, NotFound, Problem, Unavailable, invalid
from service.core.task import Task
from service.providers.base import Access, Model
from service.store.batch import Batch, Keys
from service.web.context import Web

KEY_MAX = 255

_canonical = msgspec.json.Encoder(order="sorted")


class _Answered(Problem):
    """The key was used for this very request before."""

    def __init__(self, task_id: str) -> None:
        super().__init__("This request was answered before.")
        self.task_id = task_id


def check_key(key: str | None) -> str | None:
    """1 to 255 printable ASCII characters, or none at all."""
    if key is not None and not (0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
        msg = f"must be 1 to {KEY_MAX} printable ASCII characters"
        raise InvalidRequest([FieldError(loc=["header", "Idempotency-Key"], msg=msg)])
    return key


def fingerprint(request: Any) -> str:
    """The same for two requests that ask for the same, however they were written."""
    fields = msgspec.structs.asdict(request)
    if fields.get("account") is None:  # as before there were accounts, or a request sent again would be another
        fields.pop("account", None)
    return hashlib.sha256(_canonical.encode(fields)).hexdigest()


async def create(
    web: Web, task: Task, accounts: Mapping[str, Account], key: str | None, request: str
) -> tuple[Task, bool]:
    """The stored task, and whether it is new. Raises Conflict when the key stands for another request.

    Of several accounts it gets the one with the most room.
    """
    choices = accounts if len(accounts) > 1 else {}

    def decide(batch: Batch) -> Change:
        change = lifecycle.create(_placed(web, batch, task, choices), web.env)
        if key is None:
            return change
        known = batch.idempotency_key(key)
        if known is None:
            used = IdempotencyKey(key=key, fingerprint=request, task_id=task.id, created_at=task.created_at)
            return msgspec.structs.replace(change, idempotency=(used,))
        _check_same(known, request)
        raise _Answered(known.task_id)

    try:
        keys = Keys(idempotency=(key,) if key else (), rooms=tuple(choices.values()))
        change = await web.store.writer.change(keys, decide)
    except _Answered as answered:
        return await _get_answered(web, answered.task_id), False
    return change.tasks[0], True


def _placed(web: Web, batch: Batch, task: Task, choices: Mapping[str, Account]) -> Task:
    """Tasks of one transaction see each other."""
    if not choices:
        return task
    rooms = {id: batch.rooms[account.key] for id, account in choices.items()}
    chosen = choose(rooms, web.last_chosen.get(task.provider))
    web.last_chosen[task.provider] = chosen
    batch.rooms[choices[chosen].key] -= 1
    return msgspec.structs.replace(task, account=chosen)


async def find_answered(web: Web, key: str | None, request: str) -> Task | None:
    """The task that this very request made. Raises Conflict when the key stands for another request."""
    known = None if key is None else await web.store.reads.find_idempotency_key(key)
    if known is None:
        return None
    _check_same(known, request)
    return await _get_answered(web, known.task_id)


def _check_same(known: IdempotencyKey, request: str) -> None:
    if known.fingerprint != request:
        raise Conflict("This Idempotency-Key was used with another body.")


async def _get_answered(web: Web, task_id: str) -> Task:
    try:
        return await web.store.reads.get_task(task_id)
    except NotFound:  # the transaction that held both requests was taken back
        raise Unavailable("The task could not be stored.") from None


def resolve_model(providers: Mapping[str, Access], name: str, account: str | None = None) -> tuple[Access, Model]:
    """`provider/model`, or a bare name for the first configured provider that has it. Raises InvalidRequest."""
    found = [(access, model) for access in providers.values() if (model := _find_model(access, name))]
    configured = [(access, model) for access, model in found if access.is_configured]
    for access, model in configured:
        if account is None or account in access.accounts:
            return access, model
    if configured:
        known = "; ".join(f"{one.provider.id} has {', '.join(one.accounts)}" for one, _ in configured)
        raise invalid("account", f"is not known: {known}")
    if found:
        provider = found[0][0].provider.id
        raise invalid("model", f"needs {provider}, which is not configured: set {setting_of(provider)}")
    raise invalid("model", _unknown(providers, name))


def setting_of(provider: str) -> str:
    """Return the setting that configures the provider."""
    return setting_name(provider, DEFAULT, "API_KEY")


def _models(providers: Mapping[str, Access]) -> Iterator[tuple[Access, Model]]:
    for access in providers.values():
        for model in access.provider.capabilities.models:
            yield access, model


def is_model(providers: Mapping[str, Access], name: str) -> bool:
    """Return whether a provider has this model, configured or not; `name` as in a task."""
    return any(_find_model(access, name) for access in providers.values())


def _find_model(access: Access, name: str) -> Model | None:
    able, prefix = access.provider.capabilities, f"{access.provider.id}/"
    found = able.model(name.removeprefix(prefix))
    if found is None and able.open_model is not None and name.startswith(prefix):
        return msgspec.structs.replace(able.open_model, name=name.removeprefix(prefix))
    return found


def _full(access: Access, model: Model) -> str:
    return f"{access.provider.id}/{model.name}"


def _unknown(providers: Mapping[str, Access], name: str) -> str:
    configured = [(access, model) for access, model in _models(providers) if access.is_configured]
    names = [_full(access, model) for access, model in configured]
    near = get_close_matches(name, names + [model.name for _, model in configured], n=3, cutoff=0.5)
    if near:
        return f"is not known; near it are {', '.join(dict.fromkeys(near))}"
    return f"is not known; there are {', '.join(names) or 'none, since no provider is configured'}"
