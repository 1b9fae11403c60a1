"""The state of accounts: what their rows say, which there are, and how much room each has."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from service.core.account import Account, Limits
from service.core.breaker import Breaker, CallKind
from service.core.limits import Window
from service.core.refusal import Refusal
from service.core.times import from_ms
from service.core.unanswered import Hindrance
from service.store import rows
from service.store.bus import tasks_of
from service.store.driver import ReadSession, Session
from service.store.queries import FLYING

# Of one account, by its key.
IN_FLIGHT = f"provider = ? and {FLYING}"
WAITING = "provider = ? and step = 'submit'"
if TYPE_CHECKING:
    from service.store.batch import Batch
    from service.store.writer import Writer

read_used = msgspec.json.Decoder(dict[int, int]).decode
_ACCOUNT_KEYS = """
with recursive found (name) as (
  select (select provider from tasks order by provider limit 1)
  union all
  select (select t.provider from tasks t where t.provider > found.name order by t.provider limit 1) from found
  where found.name is not null
)
select name from found where name is not null
"""
"""One step in an index for each account."""
WAITING_MAX = 1_000
"""Tasks that are counted: accounts in which more wait are alike."""
SHUT = 1_000_000
"""Below the room of every account that sends."""


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of an account: its pause, its recent submits, and its circuit breaker."""

    paused_until: datetime
    window: Window
    breaker: Breaker
    refusal: Refusal | None = None

    def shuts(self, kind: CallKind, now: datetime) -> bool:
        return self.paused_until > now or self.breaker.shuts(kind) or (kind == "submit" and self._is_refused(now))

    def _is_refused(self, now: datetime) -> bool:
        return self.refusal is not None and self.refusal.retry_at > now

    def hindrance(self, now: datetime) -> Hindrance:
        if self.refusal is not None:
            return "key"
        if self.breaker.shuts("submit"):
            return "circuit"
        return "rest" if self.paused_until > now else "limit"

    def opens_at(self, kind: CallKind, now: datetime) -> datetime:
        waits_until = self.breaker.probe_at if self.breaker.shuts(kind) else None
        if kind == "submit" and self.refusal is not None:
            waits_until = max(self.refusal.retry_at, waits_until or now)
        return max(self.paused_until, now, waits_until or now)


async def read_account(session: ReadSession, name: str, limits: Limits) -> AccountState:
    window = Window(limit=limits.submits, window_s=limits.window_s)
    found = await session.fetch("select paused_ms, used, breaker, refused from limits where name = ?", (name,))
    if not found:
        return AccountState(paused_until=from_ms(0), window=window, breaker=Breaker())
    paused_ms, used, state, refused = found[0]
    window = replace(window, used=read_used(used))
    return AccountState(
        paused_until=from_ms(paused_ms),
        window=window,
        breaker=rows.breaker_from_text(state),
        refusal=rows.refusal_from_text(refused),
    )


async def save_refusal(session: Session, name: str, refusal: Refusal | None) -> None:
    await session.execute(rows.UPSERT_REFUSAL, (name, rows.refusal_to_text(refusal)))


async def enable(batch: "Batch", name: str) -> None:
    """Let the account submit again."""
    await batch.session.execute("update limits set refused = null where name = ?", (name,))
    batch.topics.add(tasks_of(name))


async def enable_with_other_keys(writer: "Writer", reads: Mapping[str, Refusal], accounts: Iterable[Account]) -> None:
    """Enable those whose key is not the refused one any more."""
    changed = [one.key for one in accounts if one.key in reads and reads[one.key].key != one.fingerprint]

    async def work(batch: "Batch") -> None:
        for name in changed:
            await enable(batch, name)

    if changed:
        await writer.run(work)


async def read_refusals(session: ReadSession) -> dict[str, Refusal]:
    """The accounts whose key is refused, by their keys."""
    found = await session.fetch("select name, refused from limits where refused is not null")
    return {name: refusal for name, text in found if (refusal := rows.refusal_from_text(text))}


async def account_keys(session: ReadSession) -> list[str]:
    """The accounts that have tasks, also those that are configured no more."""
    return [name for (name,) in await session.fetch(_ACCOUNT_KEYS)]


async def read_rooms(session: ReadSession, accounts: Collection[Account], now: datetime) -> dict[str, int]:
    """Return by key how many more tasks each could send now, less those that wait for it; it may be negative."""
    return {account.key: await _room(session, account, now) for account in accounts}


async def _room(session: ReadSession, account: Account, now: datetime) -> int:
    state, most = await read_account(session, account.key, account.limits), account.limits.max_in_flight
    counts = f"""
    select (select count(*) from (select 1 from tasks where {WAITING} limit ?) as waiting),
      (select count(*) from (select 1 from tasks where {IN_FLIGHT} and step <> 'unconfirmed' limit ?) as flying)
    """
    waiting, flying = (await session.fetch(counts, (account.key, WAITING_MAX, account.key, most)))[0]
    room = min(state.window.room(now), most - int(flying)) - int(waiting)
    return room - SHUT if state.refusal or state.shuts("submit", now) else room
