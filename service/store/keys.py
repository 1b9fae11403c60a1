"""API keys: kept, listed, revoked. Every change that matters to a check moves the counter that replicas watch."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from service.core.keys import ApiKey, Scope
from service.core.problems import Conflict, NotFound
from service.core.times import to_ms
from service.store.batch import Batch
from service.store.driver import Driver, Row
from service.store.rows import ms_or_null, time_or_null
from service.store.writer import Writer

KEYS_MAX = 1_000
"""Live ones: every web process holds them all in memory."""
_COLUMNS = "id, hint, digest, used_ms, revoked_ms, doc"
_MOVE = "update counters set value = value + 1 where name = 'keys'"


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime


class KeyStore:
    """The table of keys: reads on connections of its own, changes through the writer."""

    def __init__(self, driver: Driver, writer: Writer, keys_max: int = KEYS_MAX) -> None:
        self._keys_max = keys_max
        self._driver = driver
        self._writer = writer

    async def add(self, key: ApiKey) -> None:
        """Raises Conflict when there are too many."""
        document = _Document(name=key.name, scopes=key.scopes, created_at=key.created_at)
        row = (key.id, key.hint, key.digest, ms_or_null(key.used_at), ms_or_null(key.revoked_at), _write(document))

        async def work(batch: Batch) -> None:
            await batch.session.execute(_MOVE)  # first, so that two at once are counted one after the other
            live = (await batch.session.fetch("select count(*) from api_keys where revoked_ms is null"))[0][0]
            if live >= self._keys_max:
                raise Conflict(f"There are {self._keys_max} keys; revoke one first.")
            await batch.session.execute(f"insert into api_keys ({_COLUMNS}) values (?, ?, ?, ?, ?, ?)", row)

        await self._writer.run(work)

    async def revoke(self, key_id: str, now: datetime) -> None:
        """For good; again it changes nothing. Raises NotFound."""

        async def work(batch: Batch) -> None:
            await batch.session.execute(_MOVE)
            sql = "update api_keys set revoked_ms = coalesce(revoked_ms, ?) where id = ?"
            if not await batch.session.execute(sql, (to_ms(now), key_id)):
                raise NotFound("There is no such key.")

        await self._writer.run(work)

    async def note_uses(self, uses: Mapping[str, datetime]) -> None:
        """When each key was used last; another replica may know of a later use."""
        rows = [(to_ms(at), key_id, to_ms(at)) for key_id, at in sorted(uses.items())]

        async def work(batch: Batch) -> None:
            sql = "update api_keys set used_ms = ? where id = ? and (used_ms is null or used_ms < ?)"
            await batch.session.execute_many(sql, rows)

        await self._writer.run(work)

    async def list_after(self, key_id: str, limit: int) -> list[ApiKey]:
        """Oldest first, the revoked ones too."""
        sql = f"select {_COLUMNS} from api_keys where id > ? order by id limit ?"
        async with self._driver.reading() as session:
            return [_key(row) for row in await session.fetch(sql, (key_id, limit))]

    async def read_live(self, version: int) -> tuple[int, list[ApiKey]] | None:
        """The counter and all keys that hold; None when the counter is still at that version."""
        async with self._driver.reading() as session:
            found = (await session.fetch("select value from counters where name = 'keys'"))[0][0]
            if found == version:
                return None
            sql = f"select {_COLUMNS} from api_keys where revoked_ms is null"
            return int(found), [_key(row) for row in await session.fetch(sql)]


def _key(row: Row) -> ApiKey:
    key_id, hint, digest, used_ms, revoked_ms, doc = row
    document = msgspec.json.decode(doc, type=_Document)
    return ApiKey(
        id=key_id,
        name=document.name,
        scopes=document.scopes,
        hint=hint,
        digest=digest,
        created_at=document.created_at,
        used_at=time_or_null(used_ms),
        revoked_at=time_or_null(revoked_ms),
    )


def _write(document: _Document) -> str:
    return msgspec.json.encode(document).decode()
