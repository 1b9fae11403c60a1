"""Providers: whether each can be used and answers, how much of its limits is taken, and what it charged."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import msgspec

from service.core.account import account_key
from service.dashboard.charts import Chart, draw_days
from service.dashboard.visit import Visit
from service.store.figures import Charges, Load
from service.web.calls import Answer
from service.web.operations import AccountView, ProviderList, ProviderView

DAYS = 14


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """Charges of an account, if the provider reports them."""

    chart: Chart
    credits: float
    tasks: int


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    account: AccountView
    late_since: datetime | None
    spend: Spend | None


class State(msgspec.Struct, frozen=True, kw_only=True):
    provider: ProviderView
    accounts: tuple[AccountState, ...]


async def show(visit: Visit) -> Answer:
    found = (await visit.ask("GET /v1/providers", ProviderList)).data
    since = _midnight(visit.now) - timedelta(days=DAYS - 1)
    limits = {account_key(one.id, account.id): account.limits for one in found for account in one.accounts}
    loads = await visit.web.store.reads.account_loads(limits, visit.now)
    charges = await visit.site.spending.since(since)
    states = [State(provider=one, accounts=_states(one, loads, charges, visit.now)) for one in found]
    complete_since = charges.complete_since if charges.complete_since > since else None
    return visit.render(
        "providers.html", states=states, days=DAYS, complete_since=complete_since, standing_of=standing_of_account
    )


def _states(
    provider: ProviderView, loads: Mapping[str, Load], charges: Charges, now: datetime
) -> tuple[AccountState, ...]:
    keyed = [(account_key(provider.id, account.id), account) for account in provider.accounts]
    return tuple(
        AccountState(account=account, late_since=loads[key].late_since, spend=_spend(charges, key, now))
        for key, account in keyed
    )


def standing_of(provider: ProviderView) -> tuple[str, str]:
    """Return a word and the tone of its badge: those of the first account that is not healthy."""
    found = [standing_of_account(account) for account in provider.accounts] or [("not configured", "off")]
    return next((standing for standing in found if standing[1] != "ok"), found[0])


def standing_of_account(account: AccountView) -> tuple[str, str]:
    if account.state == "disabled":
        return "key refused", "bad"
    if account.circuit.state != "closed":
        return ("not answering", "bad") if account.circuit.state == "open" else ("trying again", "wait")
    return ("resting", "wait") if account.paused_until else ("healthy", "ok")


def _spend(charges: Charges, account: str, now: datetime) -> Spend | None:
    by_day = charges.credits.get(account)
    if by_day is None:
        return None
    chart = draw_days(by_day, now.astimezone(UTC).date(), DAYS)
    return Spend(chart=chart, credits=sum(by_day.values()), tasks=charges.tasks[account])


def _midnight(now: datetime) -> datetime:
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
