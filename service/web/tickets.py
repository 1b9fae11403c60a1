"""Tickets for browsers: issue one, authenticate with one, and the view of a task that a ticket may read."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta
from msgspec.structs import replace

from service.core.env import Env
from service.core.problems import Conflict, Unauthorized
from service.core.task import Task
from service.core.tickets import TTL_S_DEFAULT, TTL_S_MAX, Ticket, is_signed, read_ticket, sign_ticket
from service.core.times import rfc3339
from service.core.views import view_task
from service.web.auth import Caller, KeyRing

REFUSED = "This ticket is not valid. It may have expired, or its API key was revoked; ask your server for a new one."
Ttl = Annotated[int, Meta(ge=1, le=TTL_S_MAX, description="Seconds until the ticket expires.")]


class CreateTicket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ticket for one task. It expires after `ttl_s` seconds, 15 minutes by default."""

    example: ClassVar[dict[str, int]] = {"ttl_s": TTL_S_DEFAULT}

    ttl_s: Ttl = TTL_S_DEFAULT


class TicketView(msgspec.Struct, frozen=True, kw_only=True):
    """A token that reads this task alone, as `?ticket=`."""

    ticket: str
    expires_at: str


class Tickets:
    """Issues and checks tickets. A ticket is as valid as the API key that issued it."""

    def __init__(self, secret_keys: Sequence[str], keys: KeyRing, env: Env) -> None:
        self._secret_keys = secret_keys
        self._keys = keys
        self._env = env

    def issue(self, caller: Caller, task: Task, ttl_s: int) -> TicketView:
        """Raises Conflict for an erased task, and for a caller without a key of its own."""
        if task.erased_at:
            raise Conflict("The task is erased; there is nothing left to read.")
        salt = self._keys.fingerprint(caller)
        if salt is None:
            raise Conflict("Only an API key can issue tickets.")
        expires_at = (self._env.now() + timedelta(seconds=ttl_s)).replace(microsecond=0)
        ticket = Ticket(task_id=task.id, key_id=caller.key_id, expires_at=expires_at)
        return TicketView(ticket=sign_ticket(ticket, self._secret_keys, salt), expires_at=rfc3339(expires_at))

    async def authenticate(self, text: str, task_id: str) -> Caller:
        """Return a caller that may read this task only. Raises Unauthorized."""
        ticket = read_ticket(text)
        if ticket is None or ticket.task_id != task_id or not self.is_current(ticket.expires_at):
            raise Unauthorized(REFUSED)
        if not is_signed(text, self._secret_keys, await self._keys.fingerprints(ticket.key_id)):
            raise Unauthorized(REFUSED)
        return Caller(
            name="ticket", scopes=frozenset({"tasks:read"}), key_id=ticket.key_id, ticket_expires_at=ticket.expires_at
        )

    def is_current(self, expires_at: datetime) -> bool:
        return self._env.now() < expires_at

    async def holds(self, caller: Caller) -> bool:
        """Return whether the caller's key, and its ticket if it came with one, is still valid."""
        if caller.ticket_expires_at and not self.is_current(caller.ticket_expires_at):
            return False
        return await self._keys.holds(caller)


def encode_task(task: Task, caller: Caller) -> bytes:
    """Encode the task as this caller may see it: a ticket shows no `metadata`, `raw`, `late_result` or `callback_url`.

    Raises Unauthorized for a ticket of an erased task.
    """
    view = view_task(task)
    if caller.ticket_expires_at is None:
        return msgspec.json.encode(view)
    if task.erased_at:
        raise Unauthorized(REFUSED)
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(
        msgspec.json.encode(replace(view, metadata={}, late_result=UNSET)), type=dict[str, msgspec.Raw]
    )
    del fields["metadata"]
    if view.result is not None:
        fields["result"] = msgspec.Raw(_without(fields["result"], "raw"))
    fields["tracking"] = msgspec.Raw(_without(fields["tracking"], "callback_url"))
    return msgspec.json.encode(fields)


def _without(encoded: msgspec.Raw, name: str) -> bytes:
    found = msgspec.json.decode(encoded, type=dict[str, msgspec.Raw])
    found.pop(name, None)
    return msgspec.json.encode(found)
