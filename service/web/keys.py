"""API keys over the API: created, listed and revoked with the scope `admin`."""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType

from service.core.keys import ApiKey, Scope, digest_of, hint_of
from service.core.times import rfc3339
from service.core.views import Time, time_or_null
from service.web.calls import Answer, Call, json_answer
from service.web.context import Web
from service.web.queries import Cursor, Limit, encode_cursor, read_id_cursor

log = structlog.get_logger()

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
Scopes = Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=4)]


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new key. `admin` may do everything, since it can make a key that may."""

    example: ClassVar[dict[str, Any]] = {"name": "the shop's backend", "scopes": ["tasks:write", "tasks:read"]}

    name: Name
    scopes: Scopes


class ListKeys(msgspec.Struct, frozen=True, kw_only=True):
    limit: Limit = 50
    cursor: Cursor | None = None


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is there at its creation alone, `hint` is its beginning, `last_used_at` true to a minute."""

    id: str
    object: Literal["key"] = "key"
    name: str
    scopes: tuple[Scope, ...]
    hint: str
    created_at: Time
    last_used_at: Time | None
    revoked_at: Time | None
    key: str | UnsetType = UNSET


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys, oldest first, the revoked ones too. Those of the settings are not among them."""

    data: list[KeyView]
    next_cursor: str | None


async def create_key(web: Web, call: Call[None, CreateKey]) -> Answer:
    text = web.trust.new_key()
    key = ApiKey(
        id=web.env.new_id("key"),
        name=call.body.name,
        scopes=tuple(sorted(set(call.body.scopes))),
        hint=hint_of(text),
        digest=digest_of(text),
        created_at=web.env.now(),
    )
    await web.store.keys.add(key)
    log.info("key.created", key_id=key.id, scopes=key.scopes, caller=call.caller.name)
    return json_answer(_view(key, text), 201)


async def list_keys(web: Web, call: Call[ListKeys, None]) -> Answer:
    limit, after = call.query.limit, read_id_cursor(call.query.cursor, "key") or ""
    found = await web.store.keys.list_after(after, limit + 1)
    last = found[limit - 1].id if len(found) > limit else None
    return json_answer(KeyList(data=[_view(key) for key in found[:limit]], next_cursor=encode_cursor(last)))


async def revoke_key(web: Web, call: Call[None, None]) -> Answer:
    key_id = call.path_id("key")
    await web.store.keys.revoke(key_id, web.env.now())
    log.info("key.revoked", key_id=key_id, caller=call.caller.name)
    return Answer(204)


def _view(key: ApiKey, text: str | UnsetType = UNSET) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        scopes=key.scopes,
        hint=key.hint,
        created_at=rfc3339(key.created_at),
        last_used_at=time_or_null(key.used_at),
        revoked_at=time_or_null(key.revoked_at),
        key=text,
    )
