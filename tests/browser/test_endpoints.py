"""Endpoints and deliveries in a browser: found, understood, repaired, by somebody who was told nothing."""

import pytest
import pytest_asyncio
from playwright.async_api import Locator, expect

from tests.browser.conftest import Site
from tests.browser.furnish import Furnished, furnish
from tests.support.browser import Visitor
from tests.support.receiver import status

PAGES = {
    "endpoints": "/endpoints",
    "endpoint": "/endpoints/{0.failing}",
    "endpoint-disabled": "/endpoints/{0.disabled}",
    "endpoint-settings": "/endpoints/{0.failing}/settings",
    "endpoint-recover": "/endpoints/{0.failing}/recover?since=2020-01-01T00:00",
    "deliveries": "/deliveries?task_id={0.task}",
    "delivery": "/deliveries/{0.failed_delivery}",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def made(site: Site) -> Furnished:
    return await furnish(site)


@pytest.mark.parametrize("name", PAGES)
async def test_every_page_reads_well_in_both_themes_and_on_a_phone(reader: Visitor, made: Furnished, name: str) -> None:
    await reader.open(PAGES[name].format(made))
    await reader.inspect(name)


async def test_a_failed_delivery_is_found_from_the_overview_and_repeated(
    visitor: Visitor, site: Site, made: Furnished
) -> None:
    page, subscriber = visitor.page, site.receiver.subscribers["/orders/pictures"]
    await visitor.open("/")
    await page.get_by_role("link", name="Look and send again").click()
    await expect(page.get_by_label("Status")).to_have_value("failed")
    row = page.locator("#deliveries tbody tr").first
    await expect(row.locator(".badge")).to_have_text("failed")
    await row.locator("a.row").click()
    await expect(page.get_by_role("heading", name="Attempts")).to_be_visible()
    await expect(page.locator("#attempts")).to_contain_text("<h1>Internal error</h1>")
    assert await page.locator("#attempts pre img, #attempts h1").count() == 0, "what a receiver answers stays text"
    before = len(subscriber.received)
    subscriber.then = status(204)
    await page.get_by_role("button", name="Send again").click()
    await expect(page.locator("#attempts .badge")).to_have_text("succeeded")
    await expect(page.locator("#attempts")).to_contain_text("at attempt 4")
    assert len(subscriber.received) == before + 1
    assert subscriber.received[-1].type.startswith("task.")


async def test_an_endpoint_is_made_tried_and_removed(visitor: Visitor, site: Site) -> None:
    page, subscriber = visitor.page, site.receiver.subscriber("fresh")
    await visitor.open("/endpoints")
    await page.get_by_role("link", name="New endpoint").click()
    await page.get_by_label("URL", exact=True).fill("ftp://example.com")
    await page.get_by_label("task.*").uncheck()
    visitor.tolerated.add(422)
    await page.get_by_role("button", name="Make endpoint").click()
    await expect(page.locator("#field-events-error")).to_be_visible()
    await page.get_by_label("task.*").check()
    await page.get_by_role("button", name="Make endpoint").click()
    await expect(page.locator("#field-url-error")).to_contain_text("must start with http")
    assert await page.get_by_label("URL", exact=True).get_attribute("aria-invalid") == "true"
    await page.get_by_label("URL", exact=True).fill(subscriber.url)
    await page.get_by_label("Description").fill("fresh")
    await page.get_by_label("Headers of your own").fill("X-Token: hidden-from-all")
    await page.get_by_role("button", name="Make endpoint").click()
    secret = await page.locator("#secret").inner_text()
    assert secret.startswith("whsec_")
    await visitor.inspect("endpoint-made")
    await page.reload()
    await expect(page.get_by_role("heading", name="fresh")).to_be_visible()
    assert secret not in await page.content() and "hidden-from-all" not in await page.content()
    await page.get_by_role("button", name="Send a test event").click()
    await expect(page.locator("#attempts .badge")).to_have_text("succeeded")
    assert subscriber.received[0].verify(secret)["type"] == "taskhook.ping"
    assert subscriber.received[0].request.headers["x-token"] == "hidden-from-all"
    await page.locator("#facts").get_by_role("link", name="fresh").click()
    await page.get_by_role("button", name="Delete…").press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_role("button", name="Delete", exact=True).press("Enter")
    await expect(page.get_by_role("status")).to_have_text("The endpoint is deleted.")
    assert await page.get_by_role("link", name="fresh").count() == 0


async def test_settings_are_changed_and_a_secret_is_rotated(visitor: Visitor, site: Site) -> None:
    page, subscriber = visitor.page, site.receiver.subscriber("changed")
    endpoint = await site.api.endpoint(subscriber.url, headers={"X-Token": "kept"}, rate_per_s=5)
    await visitor.open(f"/endpoints/{endpoint['id']}")
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Description").fill("renamed")
    await page.get_by_label("At once").fill("3")
    await page.get_by_label("Per second").fill("")
    await page.get_by_label("Metadata", exact=True).fill("shop=berlin")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("heading", name="renamed")).to_be_visible()
    changed = await site.api.get_endpoint(endpoint["id"])
    assert (changed["max_in_flight"], changed["rate_per_s"]) == (3, None)
    assert changed["metadata"] == {"shop": "berlin"} and list(changed["headers"]) == ["X-Token"]
    await page.get_by_role("button", name="Rotate…").click()
    await page.get_by_role("button", name="Rotate", exact=True).click()
    secret = await page.locator("#secret").inner_text()
    assert secret.startswith("whsec_") and secret != endpoint["secret"]


async def test_what_was_held_is_counted_first_and_then_recovered(visitor: Visitor, site: Site, made: Furnished) -> None:
    page, held = visitor.page, (await site.api.get_endpoint(made.disabled))["held"]
    site.receiver.subscribers["/orders/pictures"].then = status(204)
    await visitor.open(f"/endpoints/{made.disabled}")
    await expect(page.locator("#endpoint-notice")).to_contain_text(f"{held} wait")
    await page.get_by_role("button", name="Enable").click()
    await page.get_by_role("link", name="Recover them").click()
    await page.get_by_role("button", name="Count the events").click()
    await expect(page.get_by_role("status")).to_contain_text(f"It would send {held} events")
    await page.get_by_role("button", name=f"Send {held} events").click()
    await expect(page.get_by_role("status").first).to_contain_text(f"{held} events are queued again.")
    await expect(page.locator("#endpoint-health")).to_contain_text(f"{held} of the last {held}")


async def test_a_receiver_is_checked_and_graded(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    subscriber = site.receiver.subscriber("strict", then=status(401, body=b"<script>alert(1)</script>"))
    endpoint = await site.api.endpoint(subscriber.url)

    def finding(name: str) -> Locator:
        return page.locator(".finding").filter(has=page.get_by_role("heading", name=name, exact=True))

    await visitor.open(f"/endpoints/{endpoint['id']}")
    await page.get_by_role("link", name="Check this receiver").click()
    await page.get_by_role("button", name="Check now").click()
    await expect(page.get_by_role("status")).to_contain_text("This receiver is not ready.")
    good = finding("good event")
    await expect(good.locator(".badge")).to_have_text("fail")
    await expect(good).to_contain_text("<script>alert(1)</script>")
    await expect(finding("tampered body").locator(".badge")).to_have_text("skip")
    assert len(subscriber.received) == 1
    await expect(page.get_by_role("button", name="Check again")).to_be_visible()
    await visitor.inspect("endpoint-check")
