"""Endpoints and deliveries as pages: errors at their fields, secrets shown once, what others sent as text."""

from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import replace

from service.core import delivering
from service.core.change import Change
from service.core.delivering import Outcome
from service.core.signing import sign
from service.core.views import EndpointView
from service.dashboard.endpoint_form import PATTERNS, entered_of, read_settings
from service.outbound.guard import Guard
from service.store.batch import Batch, Keys
from tests.dashboard.conftest import Browser, Door, make_key
from tests.support.receiver import Receiver, status
from tests.web.conftest import Site, site

__all__ = ["site"]

HOSTILE = "<script>alert(1)</script>\u202egnp"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;\\u202egnp"
URL = "http://127.0.0.1:9100/hook"


async def send(browser: Browser, path: str, fields: dict[str, str]) -> httpx.Response:
    """A form that has a field named `headers`."""
    data = {"csrf": browser.csrf} | fields
    return await browser.client.post(path, data=data, headers={"Sec-Fetch-Site": "same-origin"})


async def create(api: httpx.AsyncClient, **settings: Any) -> dict[str, Any]:
    reply = await api.post("/v1/endpoints", json=settings)
    assert reply.status_code == 201, reply.text
    made: dict[str, Any] = reply.json()
    return made


async def fail(site: Site, delivery_id: str, endpoint_id: str, **changes: object) -> None:
    """An attempt that is not received, and none after it."""
    outcome = Outcome(at=site.env.now(), received=False, status_code=500, duration_ms=7, error="status 500", excerpt="")

    def decide(batch: Batch) -> Change:
        begun = delivering.begin(batch.delivery(delivery_id), site.env, 40)
        changed = replace(outcome, **changes)
        return delivering.after_attempt(begun, batch.endpoint(endpoint_id), changed, begun.lease, site.env, ())

    await site.writer.change(Keys(deliveries=(delivery_id,), endpoints=(endpoint_id,)), decide)


async def failed_delivery(site: Site, api: httpx.AsyncClient, **changes: object) -> tuple[str, str]:
    """The ids of an endpoint and of a delivery to it that has failed."""
    endpoint = await create(api, url=URL, description=HOSTILE)
    await site.succeed(api)
    (delivery,) = (await api.get("/v1/deliveries", params={"endpoint_id": endpoint["id"]})).json()["data"]
    await fail(site, delivery["id"], endpoint["id"], **changes)
    return endpoint["id"], delivery["id"]


async def test_the_list_tells_how_each_endpoint_does(site: Site, api: httpx.AsyncClient, browser: Browser) -> None:
    assert "No endpoint yet" in await browser.page("/endpoints")
    endpoint_id, _ = await failed_delivery(site, api)
    page = await browser.page("/endpoints")
    assert f'href="/endpoints/{endpoint_id}"' in page and "unsteady" in page
    assert "0 of the last 1 deliveries were received." in page
    assert ESCAPED in page and "<script>alert" not in page


async def test_a_list_of_many_endpoints_has_pages(api: httpx.AsyncClient, browser: Browser) -> None:
    for number in range(26):
        await create(api, url=URL, description=f"number {number}")
    page = await browser.page("/endpoints")
    assert page.count('class="row') == 25
    following = page.partition('href="/endpoints?cursor=')[2].partition('"')[0]
    rest = await browser.page(f"/endpoints?cursor={following}")
    assert rest.count('class="row') == 1 and "number 25" in rest


async def test_the_errors_of_the_api_stand_at_their_fields(browser: Browser, api: httpx.AsyncClient) -> None:
    await browser.page("/endpoints/new")
    entered = {
        "url": "ftp://x",
        "max_in_flight": "many",
        "format": "standard",
        "events:task.*": "on",
        "headers": "no colon",
    }
    reply = await send(browser, "/endpoints", entered)
    assert reply.status_code == 422 and 'id="field-headers-error"' in reply.text and "line 1 has no" in reply.text
    reply = await send(browser, "/endpoints", entered | {"headers": "Host: x"})
    assert reply.status_code == 422 and 'id="field-max_in_flight-error"' in reply.text
    reply = await send(browser, "/endpoints", entered | {"headers": "Host: x", "max_in_flight": "5"})
    assert 'id="field-url-error"' in reply.text and 'id="field-headers-error"' in reply.text
    assert 'value="ftp://x"' in reply.text, "what was entered stays"
    assert (await api.get("/v1/endpoints")).json()["data"] == []


async def test_a_secret_is_in_one_answer_and_on_no_page_after_it(browser: Browser, api: httpx.AsyncClient) -> None:
    await browser.page("/endpoints/new")
    entered = {"url": URL, "format": "standard", "max_in_flight": "10", "headers": "X-Token: t0p", "metadata": "a = b"}
    reply = await send(browser, "/endpoints", entered | {"events:task.*": "on", "filter.providers:acedata": "on"})
    assert reply.status_code == 201
    secret = reply.text.partition('data-copy="whsec_')[2].partition('"')[0]
    assert secret
    (endpoint,) = (await api.get("/v1/endpoints")).json()["data"]
    assert (endpoint["events"], endpoint["metadata"]) == (["task.*"], {"a": "b"})
    assert endpoint["filter"]["providers"] == ["acedata"]
    place = f"/endpoints/{endpoint['id']}"
    for path in (place, f"{place}/settings", f"{place}/recover", f"{place}/check", "/endpoints"):
        page = await browser.page(path)
        assert secret not in page and "t0p" not in page, path
    rotated = await browser.send(f"{place}/rotate")
    assert rotated.status_code == 200 and "whsec_" in rotated.text and secret not in rotated.text
    assert rotated.headers["cache-control"] == "no-store"


async def test_a_rotation_too_many_is_told_in_words(browser: Browser, api: httpx.AsyncClient) -> None:
    endpoint = await create(api, url=URL)
    place = f"/endpoints/{endpoint['id']}"
    await browser.page(place)
    for _ in range(5):
        assert (await browser.send(f"{place}/rotate")).status_code == 200
    refused = await browser.send(f"{place}/rotate")
    assert refused.status_code == 409 and "it can be rotated again from" in refused.text


async def test_headers_are_kept_replaced_or_dropped(browser: Browser, site: Site, api: httpx.AsyncClient) -> None:
    endpoint = await create(api, url=URL, headers={"X-Token": "t0p"})
    place = f"/endpoints/{endpoint['id']}/settings"
    page = await browser.page(place)
    assert "X-Token" in page and "t0p" not in page
    kept = {"url": URL, "format": "cloudevents", "max_in_flight": "10", "events:task.*": "on"}

    async def headers() -> dict[str, str]:
        return site.vault.open_headers((await site.reads.get_endpoint(endpoint["id"])).headers)

    assert (await browser.send(place, **kept)).status_code == 303
    assert await headers() == {"X-Token": "t0p"}
    assert (await send(browser, place, kept | {"headers": "X-Other: new"})).status_code == 303
    assert await headers() == {"X-Other": "new"}
    assert (await browser.send(place, **kept, drop_headers="on")).status_code == 303
    assert await headers() == {}


async def test_what_is_set_fills_the_form_and_comes_back_the_same(api: httpx.AsyncClient) -> None:
    settings = {"url": URL, "events": list(PATTERNS), "metadata": {"a": "b=c"}, "rate_per_s": 0.5, "max_in_flight": 7}
    made = msgspec.convert(await create(api, **settings), EndpointView)
    again = read_settings(entered_of(made))
    assert {name: again[name] for name in settings} == settings
    assert "headers" not in again


async def test_disabled_held_enabled_recovered(browser: Browser, site: Site, api: httpx.AsyncClient) -> None:
    endpoint = await create(api, url=URL)
    place = f"/endpoints/{endpoint['id']}"
    await browser.page(place)
    assert (await browser.send(f"{place}/disable")).headers["location"] == place
    await site.succeed(api)
    site.env.pass_time(1)
    page = await browser.page(place)
    assert "Disabled" in page and "1 wait" in page
    page = await browser.page(f"{place}/recover?since=2020-01-01T00:00")
    assert "It would send 1 event" in page and "enable it first" in page
    await browser.send(f"{place}/enable")
    page = await browser.page(f"{place}/recover?since=2020-01-01T00:00&until=2020-01-02T00:00:00")
    assert "Nothing to send" in page
    page = await browser.page(f"{place}/recover?since=2020-01-01T00:00")
    until = page.rpartition('name="until" value="')[2].partition('"')[0]
    reply = await browser.send(f"{place}/recover", since="2020-01-01T00:00:00Z", until=until)
    assert reply.status_code == 303, reply.text
    assert "1 event is queued again." in await browser.page(place)
    (delivery,) = (await api.get("/v1/deliveries", params={"endpoint_id": endpoint["id"]})).json()["data"]
    assert delivery["status"] == "pending"


@pytest.mark.parametrize("since", ["soon", "2020-13-01T00:00", "", "9999-01-01T00:00"])
async def test_a_time_that_is_none_is_told_at_its_field(browser: Browser, api: httpx.AsyncClient, since: str) -> None:
    endpoint = await create(api, url=URL)
    reply = await browser.get(f"/endpoints/{endpoint['id']}/recover?since={since}")
    assert reply.status_code == 422 and 'id="field-since-error"' in reply.text


async def test_a_failed_delivery_is_found_and_sent_again(browser: Browser, site: Site, api: httpx.AsyncClient) -> None:
    endpoint_id, delivery_id = await failed_delivery(site, api, excerpt=HOSTILE, error=HOSTILE, location="javascript:x")
    page = await browser.page(f"/deliveries?status=failed&endpoint_id={endpoint_id}")
    assert f'href="/deliveries/{delivery_id}"' in page and "Send again" in page
    page = await browser.page(f"/deliveries/{delivery_id}")
    assert ESCAPED in page and "<script>alert" not in page and 'href="javascript' not in page
    assert "The schedule is used up" in page and "&#34;task.succeeded&#34;" in page
    reply = await browser.send(f"/deliveries/{delivery_id}/retry")
    assert reply.headers["location"] == f"/deliveries/{delivery_id}"
    assert (await api.get(f"/v1/deliveries/{delivery_id}")).json()["status"] == "pending"
    assert "No delivery matches" in await browser.page("/deliveries?status=failed")
    assert (await browser.get("/deliveries?status=lost")).status_code == 422


async def test_what_is_not_there_is_a_page_that_says_so(browser: Browser, api: httpx.AsyncClient) -> None:
    endpoint = await create(api, url=URL)
    await browser.page(f"/endpoints/{endpoint['id']}")
    assert (await browser.send(f"/endpoints/{endpoint['id']}/delete")).headers["location"] == "/endpoints"
    for path in (f"/endpoints/{endpoint['id']}", "/endpoints/ep_x", "/deliveries/dlv_x", f"/deliveries/dlv_{'0' * 32}"):
        reply = await browser.get(path)
        assert reply.status_code == 404 and "To the overview" in reply.text, path


async def test_a_key_without_the_right_sees_no_subscriber(door: Door, site: Site, api: httpx.AsyncClient) -> None:
    endpoint_id, delivery_id = await failed_delivery(site, api)
    reader = door.browser()
    await reader.sign_in((await make_key(api, "tasks:read"))["key"])
    for path in ("/endpoints", f"/endpoints/{endpoint_id}", "/deliveries", f"/deliveries/{delivery_id}"):
        reply = await reader.get(path)
        assert reply.status_code == 403 and URL not in reply.text, path
    for path in (f"/endpoints/{endpoint_id}/delete", f"/deliveries/{delivery_id}/retry"):
        assert (await reader.send(path)).status_code == 403, path


async def test_a_check_sends_signed_events_under_the_guard_and_not_at_once_again(
    site: Site, browser: Browser, api: httpx.AsyncClient
) -> None:
    async with Receiver() as receiver:
        subscriber = receiver.subscriber("mine", then=status(401, body=HOSTILE.encode()))
        endpoint = await create(api, url=subscriber.url)
        place = f"/endpoints/{endpoint['id']}/check"
        assert "Check now" in await browser.page(place)
        page = (await browser.send(place)).text
        assert "This receiver is not ready." in page and ESCAPED in page and endpoint["secret"] not in page
        (first,) = subscriber.received
        signed = sign([endpoint["secret"]], first.id, first.timestamp, first.request.raw_body)
        assert first.signatures == signed["webhook-signature"].split(" ") and first.type == "task.succeeded"
        assert (await browser.send(place)).status_code == 409
        assert len(subscriber.received) == 1
    assert (await api.get("/v1/deliveries")).json()["data"] == [], "nothing is stored"


async def test_a_check_goes_to_no_address_that_a_delivery_would_not_go_to(site: Site, api: httpx.AsyncClient) -> None:
    async with Receiver() as receiver:
        subscriber = receiver.subscriber("inward")
        endpoint = await create(api, url=subscriber.url)
        site.context = msgspec.structs.replace(
            site.context,
            trust=msgspec.structs.replace(site.context.trust, guard=Guard(allow_private=False, own_urls=[])),
        )
        browser = Door(site).browser()
        await browser.sign_in()
        page = (await browser.send(f"/endpoints/{endpoint['id']}/check")).text
        assert "This receiver is not ready." in page
        assert subscriber.received == []
