"""Material of the provider tests: accounts, tasks, replies, and the fixtures in `fixtures/`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from service.core.account import Account
from service.core.observation import Observation
from service.core.task import Task, TaskInput
from service.providers.base import HttpReply, Model
from tests.support.registry import PROVIDERS

FIXTURES = Path(__file__).parent / "fixtures"
NOW = datetime(2026, 1, 29, 7, 12, 40, tzinfo=UTC)
KEY = "sk-flux-0123456789abcdef0123456789abcdef"
HMAC_KEY = "test-webhook-hmac-key"


def account(provider: str, *, signed: bool = False) -> Account:
    base_url = PROVIDERS[provider].capabilities.base_url
    signing = {"webhook_secret": HMAC_KEY} if signed else {}
    return Account(provider=provider, base_url=base_url, secrets={"key": KEY, **signing})


def task(provider: str, model: str, **given: Any) -> Task:
    return Task(
        id="task_1",
        provider=provider,
        model=model,
        input=TaskInput(**{"prompt": "a lighthouse at dusk", **given}),
        metadata={},
        webhook_url=None,
        on_unconfirmed="wait",
        created_at=NOW,
        deadline_at=NOW + timedelta(minutes=15),
    )


def model(provider: str, name: str) -> Model:
    found = PROVIDERS[provider].capabilities.model(name)
    assert found is not None
    return found


def reply(status: int = 200, body: Any = b"", headers: dict[str, str] | None = None) -> HttpReply:
    """A string or bytes stand as they are; all else is sent as JSON."""
    if isinstance(body, str):
        body = body.encode()
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return HttpReply(status=status, headers=headers or {}, body=raw, received_at=NOW)


def read(provider: str, call: str, reply: HttpReply, *, signed: bool = False) -> Observation:
    adapter = PROVIDERS[provider]
    if call == "submit":
        return adapter.parse_submit(reply, account(provider))
    if call == "poll":
        return adapter.parse_poll(reply, account(provider))
    return adapter.parse_callback(reply, account(provider, signed=signed))


class Fixture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reply. `expected` names the observation by its tag, and the relevant fields.

    `source` begins with who says so: D the provider's own document, K docs.kie.ai, A other pages of Ace Data Cloud,
    R recorded by someone, O OpenAI, I inferred.
    """

    name: str
    source: str
    call: str
    expected: dict[str, Any]
    body: Any
    status: int = 200
    headers: dict[str, str] = {}
    signed: bool = False

    @property
    def reply(self) -> HttpReply:
        return reply(self.status, self.body, self.headers)


def fixtures() -> list[tuple[str, Fixture]]:
    return [
        (path.stem, fixture)
        for path in sorted(FIXTURES.glob("*.json"))
        for fixture in msgspec.json.decode(path.read_bytes(), type=list[Fixture])
    ]
