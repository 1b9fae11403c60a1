"""API keys in the database: kept as hashes, counted up for those who watch, never more than can be watched."""

import pytest

from service.core.keys import ApiKey, digest_of, hint_of, render_key
from service.core.problems import Conflict, NotFound
from service.store.keys import KeyStore
from tests.store.conftest import Store


def make_key(store: Store, number: int = 1) -> tuple[str, ApiKey]:
    text = render_key(number << 150)
    key = ApiKey(
        id=store.env.new_id("key"),
        name="the shop",
        scopes=("tasks:read",),
        hint=hint_of(text),
        digest=digest_of(text),
        created_at=store.env.now(),
    )
    return text, key


@pytest.fixture
def kept(store: Store) -> KeyStore:
    return KeyStore(store.driver, store.writer)


async def test_a_key_comes_back_as_it_was_without_its_text(store: Store, kept: KeyStore) -> None:
    text, key = make_key(store)
    await kept.add(key)
    assert await kept.list_after("", 10) == [key]
    async with store.driver.reading() as session:
        assert text not in str(await session.fetch("select * from api_keys"))


async def test_the_counter_moves_with_every_key_that_is_made_or_revoked(store: Store, kept: KeyStore) -> None:
    _, key = make_key(store)
    version, found = await kept.read_live(-1) or (-1, [])
    assert found == []
    await kept.add(key)
    version, found = await kept.read_live(version) or (-1, [])
    assert found == [key]
    assert await kept.read_live(version) is None
    await kept.revoke(key.id, store.env.pass_time(1))
    _, found = await kept.read_live(version) or (-1, [key])
    assert found == []


async def test_a_revoked_key_stays_revoked_since_then(store: Store, kept: KeyStore) -> None:
    _, key = make_key(store)
    await kept.add(key)
    at = store.env.pass_time(1)
    await kept.revoke(key.id, at)
    await kept.revoke(key.id, store.env.pass_time(1))
    assert [one.revoked_at for one in await kept.list_after("", 10)] == [at]
    with pytest.raises(NotFound):
        await kept.revoke("key_none", at)


async def test_the_latest_use_is_kept_whoever_tells_it(store: Store, kept: KeyStore) -> None:
    _, key = make_key(store)
    await kept.add(key)
    early, late = store.env.pass_time(60), store.env.pass_time(60)
    version, _ = await kept.read_live(-1) or (-1, [])
    await kept.note_uses({key.id: late})
    await kept.note_uses({key.id: early})
    assert [one.used_at for one in await kept.list_after("", 10)] == [late]
    assert await kept.read_live(version) is None, "a use is no reason to read all keys again"


async def test_there_are_never_more_keys_than_fit(store: Store) -> None:
    kept = KeyStore(store.driver, store.writer, keys_max=2)
    made = [make_key(store, number)[1] for number in (1, 2, 3)]
    await kept.add(made[0])
    await kept.add(made[1])
    with pytest.raises(Conflict):
        await kept.add(made[2])
    await kept.revoke(made[0].id, store.env.now())
    await kept.add(made[2])
