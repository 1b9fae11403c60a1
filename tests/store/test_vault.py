"""Secrets at rest: encrypted under the newest key, readable with all of them, and put under a new one in steps."""

import json
import re
from typing import Any

import msgspec
import pytest
import structlog

from service.core.change import Change
from service.core.delivery import OldSecret
from service.core.times import to_ms
from service.store.batch import Batch, Keys
from service.store.rotation import rotate_encryption
from service.store.vault import Unopened, Vault
from tests.store.conftest import Store
from tests.support.factory import SECRET, make_delivery, make_endpoint, make_task

OLD, NEW = "the old secret key", "the new secret key"
URL = "https://example.com:8443/hooks/a?token=canary-of-the-url"
HEADERS = {"Authorization": "canary-of-the-header"}


def test_what_is_sealed_shows_nothing_and_opens_again() -> None:
    vault = Vault([NEW])
    sealed = vault.seal(SECRET, "secret")
    assert SECRET not in sealed
    assert vault.open(sealed, "secret") == SECRET
    assert sealed != vault.seal(SECRET, "secret"), "two equal secrets must not look equal"
    assert NEW not in repr(vault) + sealed


def test_an_older_key_opens_and_the_newest_seals() -> None:
    sealed = Vault([OLD]).seal("text", "header")
    both = Vault([NEW, OLD])
    assert both.open(sealed, "header") == "text"
    assert not both.is_newest(sealed)
    assert both.is_newest(both.seal("text", "header"))
    with pytest.raises(Unopened, match="TASKHOOK_SECRET_KEYS"):
        Vault([NEW]).open(sealed, "header")


@pytest.mark.parametrize("change", ["cut", "bit", "use", "origin", "key", "base64"])
def test_what_was_altered_or_moved_does_not_open(change: str) -> None:
    vault = Vault([NEW])
    if change == "origin":
        moved = vault.seal_url(URL).replace("example.com", "attacker.example")
        with pytest.raises(Unopened):
            vault.open_url(moved)
        return
    sealed = vault.seal("a text of some length", "header")
    last = "A" if sealed[-4] != "A" else "B"
    altered = {
        "cut": sealed[:-8],
        "bit": sealed[:-4] + last + sealed[-3:],
        "use": sealed,
        "key": sealed.replace(".", ".00000000", 1),
        "base64": sealed[:40] + "é" + sealed[41:],
    }[change]
    with pytest.raises(Unopened):
        vault.open(altered, "secret" if change == "use" else "header")


@pytest.mark.parametrize("url", [URL, "http://example.com", "https://[2001:db8::1]:8443/?x#y", "HTTP://EXAMPLE.com/a"])
def test_of_a_url_the_origin_alone_stays_readable(url: str) -> None:
    vault = Vault([NEW])
    sealed = vault.seal_url(url)
    assert sealed.partition("\x02")[0] == re.match(r"[^/]+//[^/?]+", url)[0] + "/"
    assert "canary" not in sealed
    assert vault.open_url(sealed) == url


def test_what_was_written_before_there_was_encryption_is_read_as_it_is() -> None:
    vault = Vault([NEW])
    assert vault.open_url(URL) == URL
    assert vault.open_headers(HEADERS) == HEADERS
    assert vault.open(SECRET, "secret") == SECRET


def test_a_missing_key_is_told_once_and_by_the_name_of_the_setting() -> None:
    sealed = Vault([OLD]).seal("canary", "header")
    vault = Vault([NEW])
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(Unopened):
                vault.open(sealed, "header")
    assert [(line["event"], line["setting"]) for line in lines] == [("vault.unopened", "TASKHOOK_SECRET_KEYS")]
    assert "canary" not in str(lines)


async def fill(store: Store, vault: Vault | None) -> None:
    """Store a row of each kind, encrypted, or as it was written before encryption."""
    sealed_url = vault.seal_url(URL) if vault else URL
    endpoint = make_endpoint(
        store.env,
        secret=vault.seal(SECRET, "secret") if vault else SECRET,
        old_secret=vault.seal("old", "secret") if vault else "old",
        older_secrets=tuple(
            OldSecret(secret=vault.seal(text, "secret") if vault else text, until=store.env.now())
            for text in ("older", "oldest")
        ),
        headers=vault.seal_headers(HEADERS) if vault else HEADERS,
    )
    task = make_task(store.env, webhook_url=sealed_url, metadata={"webhook_url": "no secret"})
    plain = make_task(store.env, metadata={"webhook_url": "none"})
    change = Change(tasks=(task, plain), endpoints=(endpoint,))
    await store.writer.change(Keys(), lambda _: change)

    async def add_delivery(batch: Batch) -> None:
        delivery = make_delivery(store.env, url=sealed_url, task_id=task.id)
        sql = "insert into events (seq, id, type, created_ms, body) values (?, ?, 'task.succeeded', ?, '{}')"
        seq = to_ms(store.env.now()) + (1 if vault else 2)
        await batch.session.execute(sql, (seq, delivery.event_id, to_ms(store.env.now())))
        batch.put_delivery(delivery)

    await store.writer.run(add_delivery)


async def contents(store: Store) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    async with store.driver.reading() as session:
        endpoints = [json.loads(doc) for (doc,) in await session.fetch("select doc from endpoints order by id")]
        tasks = [json.loads(doc) for (doc,) in await session.fetch("select doc from tasks order by id")]
        urls = [url for (url,) in await session.fetch("select url from deliveries order by id")]
    return endpoints, tasks, urls


@pytest.mark.parametrize("before", [OLD, None], ids=["under the old key", "never encrypted"])
async def test_rotation_puts_every_row_under_the_newest_key(store: Store, before: str | None) -> None:
    await fill(store, Vault([before]) if before else None)
    assert (await rotate_encryption(store.writer, Vault([NEW, OLD]))).renewed == 3
    new = Vault([NEW])
    (endpoint,), tasks, (url,) = await contents(store)
    assert new.open(endpoint["secret"], "secret") == SECRET
    assert new.open(endpoint["old_secret"], "secret") == "old"
    older = msgspec.convert(endpoint["older_secrets"], tuple[OldSecret, ...])
    assert all(new.is_newest(one.secret) for one in older)
    assert [(new.open(one.secret, "secret"), one.until) for one in older] == [
        ("older", store.env.now()),
        ("oldest", store.env.now()),
    ]
    assert new.open_headers(endpoint["headers"]) == HEADERS
    assert new.open_url(url) == URL
    assert [new.open_url(task["webhook_url"]) for task in tasks if "webhook_url" in task] == [URL]
    assert "canary" not in json.dumps([endpoint, tasks, url])


async def test_rotation_again_changes_nothing(store: Store) -> None:
    await fill(store, Vault([OLD]))
    await rotate_encryption(store.writer, Vault([NEW, OLD]))
    before = await contents(store)
    assert (await rotate_encryption(store.writer, Vault([NEW, OLD]))).renewed == 0
    assert await contents(store) == before


async def add_endpoints(store: Store, vault: Vault, count: int) -> None:
    made = tuple(make_endpoint(store.env, secret=vault.seal(SECRET, "secret")) for _ in range(count))
    await store.writer.change(Keys(), lambda _: Change(endpoints=made))


async def test_a_rotation_that_was_broken_off_is_finished_by_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_endpoints(store, Vault([OLD]), 5)
    run, calls = store.writer.run, iter(range(100))

    async def run_twice(work: Any) -> Any:
        if next(calls) == 2:
            raise ConnectionError
        return await run(work)

    monkeypatch.setattr(store.writer, "run", run_twice)
    with pytest.raises(ConnectionError):
        await rotate_encryption(store.writer, Vault([NEW, OLD]), step_max=2)
    done = await rotate_encryption(store.writer, Vault([NEW, OLD]))
    assert (done.seen, done.renewed) == (5, 1)


async def test_a_row_that_no_key_opens_stays_as_it_is_and_stops_no_other(store: Store) -> None:
    await add_endpoints(store, Vault(["a key that is gone"]), 1)
    lost = (await contents(store))[0]
    await add_endpoints(store, Vault([OLD]), 2)
    done = await rotate_encryption(store.writer, Vault([NEW, OLD]))
    assert (done.seen, done.renewed, done.unopened) == (3, 2, 1)
    assert (await contents(store))[0][:1] == lost
