"""Failures are pages, in words and with a status, never the API's JSON."""

import html
import re
from itertools import count
from typing import Any

import httpx
import pytest

from service.core.breaker import OPENS_AFTER, AccountCall
from service.core.change import Change
from service.core.problems import Unavailable
from service.store import faults
from service.store.batch import Batch, Keys
from service.web.auth import Caller, KeyRing
from tests.dashboard.conftest import Browser, Door, make_key
from tests.dashboard.test_endpoints import failed_delivery
from tests.web.conftest import Site

PERSON = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
LINK = re.compile(r'<li class="concern[^>]*>.*?<p>(.*?)</p><a class="button button-small" href="([^"]+)"', re.S)


async def away(*_: Any, **__: Any) -> Any:
    raise Unavailable("The database can't be used right now.", cause="disk I/O error in /secret/place")


async def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("t0p secret")


def anew(browser: Browser, site: Site) -> Browser:
    """The same visitor at a process that has counted nothing yet."""
    return Door(site).browser(taskhook_session=str(browser.session))


def is_page(reply: httpx.Response) -> bool:
    return reply.headers["content-type"].startswith("text/html") and "<h1>" in reply.text


@pytest.mark.parametrize(
    ("path", "read"), [("/", "count_waiting"), ("/tasks", "list_tasks"), ("/endpoints", "list_endpoints")]
)
async def test_a_database_that_fails_is_a_page_that_says_to_come_back(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch, path: str, read: str
) -> None:
    monkeypatch.setattr(site.reads, read, away)
    reply = await anew(browser, site).get(path)
    assert reply.status_code == 503 and is_page(reply)
    assert int(reply.headers["retry-after"]) > 0
    assert "The database can&#39;t be used right now." in reply.text and "nothing is lost" in reply.text
    assert f'href="{path}">Load it again' in reply.text
    assert "/secret/place" not in reply.text


async def test_a_mistake_of_ours_is_a_page_that_names_the_request_and_tells_no_more(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.reads, "list_tasks", broken)
    reply = await browser.get("/tasks", **{"X-Request-Id": "look-for-me"})
    assert reply.status_code == 500 and is_page(reply)
    assert "look-for-me" in reply.text and "t0p" not in reply.text and "RuntimeError" not in reply.text


async def test_a_refusal_is_still_a_page_when_nobody_can_be_recalled_any_more(
    door: Door, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = door.browser()
    await browser.sign_in((await make_key(api, "tasks:read"))["key"])
    recall, calls = KeyRing.recall, count(1)

    async def recall_once(self: KeyRing, key_id: str) -> Caller | None:
        return await (recall(self, key_id) if next(calls) == 1 else away())

    monkeypatch.setattr(KeyRing, "recall", recall_once)
    reply = await browser.get("/keys")
    assert reply.status_code == 403 and is_page(reply)
    assert (await browser.get("/keys")).status_code == 503


async def test_an_address_with_nothing_is_a_page_for_people_and_json_for_programs(browser: Browser) -> None:
    reply = await browser.get("/nothing/here", **PERSON)
    assert reply.status_code == 404 and is_page(reply) and "There is nothing at this address." in reply.text
    assert "/nothing" not in (await browser.client.get("/metrics")).text
    for path, headers, status in (
        ("/nothing/here", {}, 404),
        ("/v1/nothing", PERSON, 401),
        ("/callbacks/nobody", PERSON, 404),
    ):
        reply = await browser.get(path, **headers)
        assert reply.status_code == status, path
        assert reply.headers["content-type"] == "application/problem+json", path


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/sign-in", "/"),
        ("/sign-out", "/"),
        ("/tasks/task_x/cancel", "/tasks/task_x"),
        ("/endpoints/ep_x/rotate", "/endpoints/ep_x"),
        ("/playground/preview", "/playground"),
        ("/keys/key_x/revoke", "/keys"),
        ("/faults/task_x/retry", "/faults"),
    ],
)
async def test_the_address_of_a_form_leads_to_its_page(browser: Browser, path: str, page: str) -> None:
    reply = await browser.get(path)
    assert (reply.status_code, reply.headers["location"]) == (303, page)


# What needs attention stands first on the overview


async def concerns(browser: Browser) -> dict[str, str]:
    """By its text, where it leads."""
    found = LINK.findall(await browser.page("/"))
    return {" ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split()): to for text, to in found}


async def test_work_that_no_worker_takes_is_told(browser: Browser, site: Site, api: httpx.AsyncClient) -> None:
    await site.create(api)
    assert await concerns(browser) == {}
    site.env.pass_time(120)
    told = await concerns(anew(browser, site))
    assert told == {"Work is due that nobody takes. Is a worker running? since 2 min ago": "/providers"}


async def test_each_concern_leads_to_where_it_is_mended(browser: Browser, site: Site, api: httpx.AsyncClient) -> None:
    await failed_delivery(site, api)
    failed = AccountCall(account="acedata", kind="submit", answered=False)
    for _ in range(OPENS_AFTER):
        await site.writer.change(Keys(), lambda _: Change(calls=(failed,)))
    task = await site.run(api)

    async def park(batch: Batch) -> None:
        for _ in range(5):
            await faults.note(batch, task["id"], ValueError())

    await site.writer.run(park)
    told = await concerns(anew(browser, site))
    assert {text.partition(" since")[0]: to for text, to in told.items()} == {
        "acedata does not answer, so its tasks wait": "/providers",
        "1 delivery was not received, and no retry is left": "/deliveries?status=failed",
        "1 piece of work is parked after a mistake of this service": "/faults",
    }
    reader = Door(site).browser()
    await reader.sign_in((await make_key(api, "tasks:read"))["key"])
    assert list((await concerns(reader)).values()) == ["/providers"]


async def test_what_a_deleted_endpoint_missed_is_no_alarm_and_is_not_offered_again(
    browser: Browser, site: Site, api: httpx.AsyncClient
) -> None:
    endpoint_id, delivery_id = await failed_delivery(site, api)
    assert list((await concerns(anew(browser, site))).values()) == ["/deliveries?status=failed"]
    await api.delete(f"/v1/endpoints/{endpoint_id}")
    assert await concerns(anew(browser, site)) == {}
    for page in ("/deliveries?status=failed", f"/deliveries/{delivery_id}"):
        shown = await browser.page(page)
        assert "/retry" not in shown and "deleted" in shown
    assert "Its endpoint was deleted, so it can't be sent again" in shown


async def test_what_a_disabled_endpoint_missed_is_offered_as_one_attempt_that_works(
    browser: Browser, site: Site, api: httpx.AsyncClient
) -> None:
    endpoint_id, delivery_id = await failed_delivery(site, api)
    await api.patch(f"/v1/endpoints/{endpoint_id}", json={"enabled": False})
    page = await browser.page(f"/deliveries/{delivery_id}")
    assert "enable it and recover" in page and "Send again" in page
    assert (await browser.send(f"/deliveries/{delivery_id}/retry")).status_code == 303
    assert (await api.get(f"/v1/deliveries/{delivery_id}")).json()["status"] == "pending"
