"""Playground, providers, keys and faults in a browser, on a service that is new and empty."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Site, Visit
from tests.support.browser import Visitor

EMPTY = {
    "empty-overview": ("/", "No task yet"),
    "empty-tasks": ("/tasks", "No task yet"),
    "empty-endpoints": ("/endpoints", "No endpoint yet"),
    "empty-deliveries": ("/deliveries", "No deliveries yet"),
    "empty-keys": ("/keys", "No keys yet"),
    "empty-faults": ("/faults", "Nothing has failed"),
    "empty-playground": ("/playground", "Nothing made yet"),
}


@pytest.mark.parametrize("name", EMPTY)
async def test_a_page_with_nothing_on_it_says_what_will_be_there(reader: Visitor, name: str) -> None:
    path, words = EMPTY[name]
    await reader.open(path)
    await expect(reader.page.get_by_role("main")).to_contain_text(words)
    await reader.inspect(name)


async def test_the_playground_shows_what_a_model_takes_and_what_came_of_it(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    await visitor.open("/playground")
    await page.get_by_label("Model").select_option("acedata/flux-dev")
    await expect(page.get_by_label("Pictures")).to_be_visible()
    await expect(page.locator("#code-curl")).to_contain_text("acedata/flux-dev")
    assert await page.get_by_label("Aspect ratio").count() == 0
    await page.get_by_label("Prompt", exact=True).fill("it's a <b>lighthouse</b>")
    await page.get_by_label("Size").fill("1x1")
    await expect(page.locator("[id='field-input.size-error']")).to_contain_text("a multiple of 32")
    visitor.tolerated.add(422)
    await page.get_by_role("button", name="Make the picture").click()
    await expect(page.get_by_label("Size")).to_have_attribute("aria-invalid", "true")
    await page.get_by_label("Size").fill("512x512")
    await expect(page.locator("[id='field-input.size-error']")).to_have_count(0)
    await page.get_by_label("Pictures").fill("2")
    await page.get_by_text("Make it misbehave").click()
    await page.get_by_role("button", name="duplicate-callback").click()
    await expect(page.get_by_role("button", name="duplicate-callback")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator("#code-curl")).to_contain_text("sandbox:duplicate-callback")
    await page.get_by_role("button", name="Make the picture").click()
    await expect(page.locator("#result .badge")).to_have_text("succeeded")
    pictures = page.locator("#result img")
    await expect(pictures).to_have_count(2)
    assert await pictures.first.evaluate("async one => (await one.decode(), one.naturalWidth)") == 512
    task = await site.api.task(page.url.partition("task=")[2])
    assert task["input"]["prompt"] == "it's a <b>lighthouse</b> sandbox:duplicate-callback"
    assert (task["input"]["size"], task["input"]["n"]) == ("512x512", 2)
    await expect(page.get_by_label("Size")).to_have_value("512x512")
    await visitor.inspect("playground")


async def test_providers_tell_how_they_are_and_what_they_charged(visitor: Visitor, site: Site) -> None:
    task = await site.api.submit("flux-context/flux-kontext-pro", "a harbour")
    cost = (await site.api.finished(task["id"]))["result"]["cost"]
    await visitor.open("/providers")
    card = visitor.page.locator("#provider-flux-context")
    await expect(card).to_contain_text("healthy")
    await expect(card.locator(".figure")).to_have_text(f"{cost['amount']:g}")
    await expect(card).to_contain_text("credits in 14 days, for 1 task")
    await card.locator("summary").press("Enter")
    await expect(card.get_by_role("link", name="Try flux-kontext-max")).to_be_visible()
    await visitor.inspect("providers")


async def test_a_key_is_shown_once_may_what_it_may_and_ends(visitor: Visitor, visit: Visit) -> None:
    page = visitor.page
    await visitor.open("/keys")
    visitor.tolerated.add(422)
    await page.get_by_label("Name").fill("a <b>reader</b>")
    await page.get_by_role("button", name="Make key").click()
    await expect(page.locator("#field-scopes-error")).to_be_visible()
    await page.get_by_label("tasks:read").check()
    await page.get_by_role("button", name="Make key").click()
    key = await page.locator("#secret").inner_text()
    assert key.startswith("tk_live_")
    await page.reload()
    await expect(page.get_by_role("cell", name="a <b>reader</b>")).to_be_visible()
    assert key not in await page.content()
    await visitor.inspect("keys")

    reader = await visit(key)
    reader.tolerated |= {401, 403}
    await reader.open("/providers")
    names = await reader.page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts()
    assert names == ["Overview", "Tasks", "Providers"]
    for path in ("/endpoints", "/deliveries", "/keys", "/faults", "/playground"):
        assert (await reader.open(path)).status == 403, path
    await expect(reader.page.get_by_role("main")).to_contain_text("Sign in with a key that has this right")
    await reader.inspect("forbidden")

    await page.get_by_role("button", name="Revoke…").click()
    await page.get_by_role("button", name="Revoke", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("The key is revoked.")
    await reader.open("/providers")
    await expect(reader.page.get_by_label("API key")).to_be_visible()
