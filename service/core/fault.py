"""A row that makes a loop fail: counted, due again later each time, and after a few failures parked until a retry."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from service.core.env import Env
from service.core.ids import PREFIXES
from service.core.times import after

Kind = Literal["task", "delivery", "endpoint"]

PARK_AFTER = 5
AGAIN_FIRST_S = 0.5
FORGET_S = 3600.0
"""A row that did well for so long starts counting afresh."""
REASON_MAX = 300
_KINDS: dict[str, Kind] = {PREFIXES["task"]: "task", PREFIXES["delivery"]: "delivery", PREFIXES["endpoint"]: "endpoint"}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A row with its consecutive failures; a parked one is retried only on request."""

    id: str
    failures: int
    first_at: datetime
    last_at: datetime
    parked_at: datetime | None
    reason: str

    @property
    def kind(self) -> Kind:
        return _KINDS[self.id.partition("_")[0]]

    @property
    def due_at(self) -> datetime | None:
        """When it is tried again; None when it is parked."""
        return None if self.parked_at else after(self.last_at, AGAIN_FIRST_S * 2.0 ** (self.failures - 1))


def fail_again(known: Fault | None, subject_id: str, error: Exception, env: Env) -> Fault:
    """Count a failure. An endpoint is parked at its first, because an unreadable one can't receive anything."""
    now = env.now()
    if known is not None and (known.parked_at or now - known.last_at > timedelta(seconds=FORGET_S)):
        known = None
    failures = known.failures + 1 if known else 1
    first_at = known.first_at if known else now
    fault = Fault(
        id=subject_id, failures=failures, first_at=first_at, last_at=now, parked_at=None, reason=_reason(error)
    )
    parks = failures >= PARK_AFTER or fault.kind == "endpoint"
    return msgspec.structs.replace(fault, parked_at=now if parks else None)


def _reason(error: Exception) -> str:
    """The kind of mistake. Only a decoder's message is sure to repeat nothing of what is stored."""
    name = type(error).__name__
    return f"{name}: {error}"[:REASON_MAX] if isinstance(error, msgspec.MsgspecError) else name
