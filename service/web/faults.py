"""Quarantined rows: listed for the operator, and retried on request."""

import re

import msgspec
import structlog

from service.core.fault import Fault, Kind
from service.core.problems import NotFound
from service.core.times import rfc3339
from service.core.views import Time, time_or_null
from service.store import faults
from service.store.batch import Batch
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web

log = structlog.get_logger()
_ID = re.compile(r"(?:task|dlv|ep)_[0-9a-f]{32}", re.ASCII)


class FaultView(msgspec.Struct, frozen=True, kw_only=True):
    """A task, delivery or endpoint that a loop failed on by a mistake of this service.

    It is tried again later each time, until it is `parked`: nothing works on it then before its retry.
    """

    id: str
    kind: Kind
    failures: int
    reason: str
    first_at: Time
    last_at: Time
    parked_at: Time | None


class FaultList(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first, 200 at most."""

    data: list[FaultView]


async def list_faults(web: Web, _call: Call[None, None]) -> Answer:
    return json_answer(FaultList(data=[_view(fault) for fault in await web.store.reads.list_faults()]))


async def retry_fault(web: Web, call: Call[None, None]) -> Answer:
    subject_id: str = call.scope["path_params"]["id"]
    if _ID.fullmatch(subject_id) is None:
        raise NotFound("Nothing of this id has failed.")

    async def work(batch: Batch) -> Fault:
        return await faults.retry(batch, subject_id)

    fault = await web.store.writer.run(work)
    log.info("fault.retried", fault_id=subject_id, kind=fault.kind, caller=call.caller.name)
    return json_answer(_view(fault), 202)


def _view(fault: Fault) -> FaultView:
    return FaultView(
        id=fault.id,
        kind=fault.kind,
        failures=fault.failures,
        reason=fault.reason,
        first_at=rfc3339(fault.first_at),
        last_at=rfc3339(fault.last_at),
        parked_at=time_or_null(fault.parked_at),
    )
