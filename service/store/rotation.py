"""Puts every secret in the store under the newest key, in small steps that can be broken off and begun again."""

from collections.abc import Awaitable, Callable

import msgspec
from msgspec.structs import replace

from service.core.delivery import OldSecret
from service.store.batch import Batch
from service.store.vault import Unopened, Vault
from service.store.writer import Writer

STEP = 500
"""Rows looked at: whether one holds a secret shows only then."""
Document = dict[str, msgspec.Raw]


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """Rows looked at, those written again, and those that no key opens, which stay as they are."""

    seen: int = 0
    renewed: int = 0
    unopened: int = 0

    def plus(self, other: "Rotated") -> "Rotated":
        return Rotated(
            seen=self.seen + other.seen, renewed=self.renewed + other.renewed, unopened=self.unopened + other.unopened
        )


class _Table(msgspec.Struct, frozen=True):
    """Where secrets are: the column, which rows can hold one, and how its value is sealed anew."""

    name: str
    column: str
    condition: str
    renew: Callable[[Vault, str], str]


async def rotate_encryption(writer: Writer, vault: Vault, step_max: int = STEP) -> Rotated:
    """Rows under the newest key are only read, so a second run costs little and does nothing."""
    total = Rotated()
    for table in _TABLES:
        after: str | None = ""
        while after is not None:
            after, step = await writer.run(_step(table, vault, after, step_max))
            total = total.plus(step)
    return total


def _step(
    table: _Table, vault: Vault, after: str, limit: int
) -> Callable[[Batch], Awaitable[tuple[str | None, Rotated]]]:
    async def work(batch: Batch) -> tuple[str | None, Rotated]:
        step = f"select max(id) from (select id from {table.name} where id > ? order by id limit ?) as step"
        until = (await batch.session.fetch(step, (after, limit)))[0][0]
        if until is None:
            return None, Rotated()
        sql = f"""
        select id, {table.column} from {table.name} where id > ? and id <= ? and {table.condition} order by id
        {batch.driver.for_update}
        """
        rows = await batch.session.fetch(sql, (after, until))
        renewed, unopened = [], 0
        for row_id, text in rows:
            try:
                fresh = table.renew(vault, text)
            except Unopened:
                unopened += 1
            else:
                renewed += [(fresh, row_id)] if fresh != text else []
        if renewed:
            sql = f"update {table.name} set {table.column} = ? where id = ?"
            await batch.session.execute_many(sql, renewed)
        return until, Rotated(seen=len(rows), renewed=len(renewed), unopened=unopened)

    return work


def _renew_task(vault: Vault, doc: str) -> str:
    found = _read(doc)
    url = msgspec.json.decode(found.get("webhook_url", b"null"), type=str | None)
    return doc if url is None or vault.is_newest(url) else _write(found, {"webhook_url": _renew_url(vault, url)})


def _renew_url(vault: Vault, url: str) -> str:
    return url if vault.is_newest(url) else vault.seal_url(vault.open_url(url))


def _renew_endpoint(vault: Vault, doc: str) -> str:
    found = _read(doc)
    fresh: dict[str, object] = {}
    for name in ("secret", "old_secret"):
        text = msgspec.json.decode(found.get(name, b"null"), type=str | None)
        if text and not vault.is_newest(text):
            fresh[name] = _renew_secret(vault, text)
    older = msgspec.json.decode(found.get("older_secrets", b"[]"), type=tuple[OldSecret, ...])
    if any(not vault.is_newest(one.secret) for one in older):
        fresh["older_secrets"] = [replace(one, secret=_renew_secret(vault, one.secret)) for one in older]
    headers = msgspec.json.decode(found.get("headers", b"{}"), type=dict[str, str])
    if any(not vault.is_newest(value) for value in headers.values()):
        fresh["headers"] = vault.seal_headers(vault.open_headers(headers))
    return _write(found, fresh) if fresh else doc


def _renew_secret(vault: Vault, text: str) -> str:
    return vault.seal(vault.open(text, "secret"), "secret")


def _read(doc: str) -> Document:
    return msgspec.json.decode(doc, type=Document)


def _write(found: Document, fresh: dict[str, object]) -> str:
    return msgspec.json.encode({**found, **fresh}).decode()


_TABLES = (
    _Table("endpoints", "doc", "doc <> ''", _renew_endpoint),
    _Table("tasks", "doc", """doc like '%"webhook_url":"%'""", _renew_task),
    _Table("deliveries", "url", "url is not null", _renew_url),
)
