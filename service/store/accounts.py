"""The state of accounts: what their rows say, which there are, and how much room each has."""

from collections.abc import Collection
from datetime import datetime

import msgspec
from msgspec.structs import replace

from service.core.account import Account, Limits
from service.core.breaker import Breaker, CallKind
from service.core.limits import Window
from service.core.times import from_ms
from service.core.unanswered import Hindrance
from service.store import rows
from service.store.driver import ReadSession
from service.store.queries import FLYING

# Of one account, by its key.
IN_FLIGHT = f"provider = ? and {FLYING}"
WAITING = "provider = ? and step = 'submit'"
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
    """What the account's row says: until when the provider wants rest, what was sent lately, and whether it answers."""

    paused_until: datetime
    window: Window
    breaker: Breaker

    def shuts(self, kind: CallKind, now: datetime) -> bool:
        return self.paused_until > now or self.breaker.shuts(kind)

    def hindrance(self, now: datetime) -> Hindrance:
        if self.breaker.shuts("submit"):
            return "circuit"
        return "rest" if self.paused_until > now else "limit"

    def opens_at(self, kind: CallKind, now: datetime) -> datetime:
        waits_until = self.breaker.probe_at if self.breaker.shuts(kind) else None
        return max(self.paused_until, now, waits_until or now)


async def read_account(session: ReadSession, name: str, limits: Limits) -> AccountState:
    window = Window(limit=limits.submits, window_s=limits.window_s)
    found = await session.fetch("select paused_ms, used, breaker from limits where name = ?", (name,))
    if not found:
        return AccountState(paused_until=from_ms(0), window=window, breaker=Breaker())
    paused_ms, used, state = found[0]
    window = replace(window, used=read_used(used))
    return AccountState(paused_until=from_ms(paused_ms), window=window, breaker=rows.breaker_from_text(state))


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
    return room - SHUT if state.shuts("submit", now) else room
