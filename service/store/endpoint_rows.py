"""Between rows and endpoints: `doc` as every version reads and writes it, `settings` for what came later.

A replica of an older version writes the whole `doc` again and drops what it does not know, so newer settings stand in a
column of their own. In `doc` the names `providers` and `metadata` keep their first meaning: both are filters.
"""

from typing import Any

import msgspec
from msgspec.structs import asdict

from service.core.delivery import ATTEMPT_S, Endpoint, EndpointFilter
from service.store.driver import Row

COLUMNS = "id, doc, settings"
UPSERT = f"""
insert into endpoints ({COLUMNS}) values (?, ?, ?)
on conflict (id) do update set doc = excluded.doc, settings = excluded.settings
"""


class _Document(Endpoint, frozen=True, kw_only=True):
    providers: tuple[str, ...] = ()


class _Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    models: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    timeout_s: float = ATTEMPT_S
    retry_schedule_s: tuple[float, ...] | None = None


_read_document = msgspec.json.Decoder(_Document).decode
_read_settings = msgspec.json.Decoder(_Settings).decode
_write = msgspec.json.Encoder().encode


def endpoint_to_row(endpoint: Endpoint) -> Row:
    wanted = endpoint.filter
    settings = _Settings(
        models=wanted.models,
        accounts=wanted.accounts,
        metadata=endpoint.metadata,
        timeout_s=endpoint.timeout_s,
        retry_schedule_s=endpoint.retry_schedule_s,
    )
    document = asdict(endpoint) | {"providers": wanted.providers, "metadata": wanted.metadata}
    for name in ("filter", "timeout_s", "retry_schedule_s"):
        del document[name]
    return (endpoint.id, _write(document).decode(), _write(settings).decode())


def endpoint_from_row(row: Row) -> Endpoint:
    document, settings = _read_document(row[1]), _read_settings(row[2])
    fields: dict[str, Any] = asdict(document)
    wanted = EndpointFilter(
        providers=fields.pop("providers"),
        models=settings.models,
        accounts=settings.accounts,
        metadata=document.metadata,
    )
    kept = {"filter": wanted, "metadata": settings.metadata}
    kept |= {"timeout_s": settings.timeout_s, "retry_schedule_s": settings.retry_schedule_s}
    return Endpoint(**fields | kept)
