"""Signing in, the overview, the list of tasks and a task's page, in a real browser."""

import re

from playwright.async_api import expect

from tests.browser.conftest import Site, Visit
from tests.support.browser import Visitor
from tests.support.receiver import status
from tests.support.service import API_KEY

EVIL = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \u202egnp.exe "
    "\u05d7\u05ea\u05d5\u05dc 灯塔 " + "x" * 400
)


async def test_the_sign_in_tells_a_wrong_key_and_leads_back_to_where_one_wanted_to_go(visit: Visit) -> None:
    nobody = await visit(None)
    nobody.tolerated.add(401)
    page = nobody.page
    await nobody.open("/tasks?status=failed")
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This key is not known here.")).to_be_visible()
    await nobody.inspect("sign-in")
    await page.get_by_label("API key").fill(API_KEY)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url("**/tasks?status=failed")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_text("You are signed out.")).to_be_visible()


async def test_the_link_that_dev_prints_signs_in_once_and_leaves_no_code_in_the_address(
    visit: Visit, site: Site
) -> None:
    found = re.search(r"#code=(\S+)", site.service.log_path.read_text())
    assert found
    first, second = await visit(None), await visit(None)
    sent: list[str] = []
    first.context.on("request", lambda request: sent.append(request.url + str(request.headers.get("referer"))))
    await first.open(f"/#code={found[1]}")
    await expect(first.page.get_by_role("heading", name="Overview")).to_be_visible()
    assert found[1] not in first.page.url
    assert not [url for url in sent if found[1] in url.partition("#")[0]]
    second.tolerated.add(401)
    await second.open(f"/#code={found[1]}")
    await expect(second.page.get_by_text("This link was used, or is too old.")).to_be_visible()


async def test_a_task_moves_through_its_states_before_ones_eyes(visitor: Visitor, site: Site) -> None:
    task = await site.api.submit("fluxapi-ai/flux-kontext-pro", "a lighthouse at dusk", metadata={"order": "1"})
    page = visitor.page
    await visitor.open(f"/tasks/{task['id']}")
    await page.locator("#payload-input summary").click()
    await expect(page.locator("#why").get_by_text("succeeded").first).to_be_visible()
    await expect(page.locator(".picture img")).to_have_js_property("naturalWidth", await _width(page))
    await expect(page.locator("#payload-input")).to_have_attribute("open", "")
    await expect(page.get_by_text("Called back: done", exact=True)).to_be_visible()
    await expect(page.locator(".picture-gone")).to_be_hidden()
    await visitor.inspect("task-succeeded")
    await visitor.open("/")
    await expect(page.get_by_role("heading", name="Tasks ended")).to_be_visible()
    await visitor.inspect("overview")


async def _width(page: object) -> int:
    picture = page.locator(".picture img")  # type: ignore[attr-defined]
    await picture.wait_for()
    width: int = await picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert width > 0
    return width


async def test_a_hostile_prompt_is_text_and_a_dead_picture_is_told(visitor: Visitor, site: Site) -> None:
    task = await site.api.submit("flux-context/flux-kontext-pro", EVIL, metadata={"<b>k</b>": EVIL[:60]})
    await site.api.finished(task["id"])
    await visitor.page.route("**/sandbox/**", lambda route: route.fulfill(status=404))
    visitor.tolerated.add(404)
    for path in ("/", "/tasks", f"/tasks/{task['id']}"):
        await visitor.open(path)
        assert "owned" not in await visitor.page.title()
    await expect(visitor.page.get_by_text("The link is dead or can't be shown here.")).to_be_visible()
    await visitor.inspect("task-hostile")


async def test_the_list_is_searched_by_keyboard_and_follows_new_tasks(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    await visitor.open("/tasks")
    await page.keyboard.press("/")
    await expect(page.get_by_role("textbox", name="Search tasks")).to_be_focused()
    await page.keyboard.type("order=4711")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="No task is like that")).to_be_visible()
    task = await site.api.submit("flux-context/flux-kontext-pro", "a red fox", metadata={"order": "4711"})
    await expect(page.get_by_role("link", name="a red fox")).to_be_visible()
    await expect(page.locator(f"#row-{task['id']}").get_by_text("succeeded")).to_be_visible()
    await visitor.inspect("tasks")
    await page.get_by_role("textbox", name="Search tasks").blur()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/tasks/{task['id']}")
    await page.keyboard.press("g")
    await page.keyboard.press("o")
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()


async def test_cancel_and_submit_again_ask_first(visitor: Visitor, site: Site) -> None:
    page = visitor.page
    task = await site.api.submit("flux-context/flux-kontext-pro", "a paper boat sandbox:stuck")
    await site.api.accepted(task["id"])
    await visitor.open(f"/tasks/{task['id']}")
    await page.get_by_role("button", name="Poll now").click()
    await expect(page.get_by_text("The provider is asked now.")).to_be_visible()
    await page.get_by_role("button", name="Cancel…").click()
    await expect(page.get_by_role("dialog")).to_contain_text("may still make and charge it")
    await visitor.inspect("task-cancel")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_be_hidden()
    await page.get_by_role("button", name="Cancel…").click()
    await page.get_by_role("button", name="Cancel the task").click()
    await expect(page.get_by_text("The task is canceled.")).to_be_visible()
    await page.get_by_role("button", name="Submit again…").click()
    await expect(page.get_by_role("dialog")).to_contain_text("it costs nothing")
    await page.get_by_role("button", name="Submit", exact=True).dblclick()
    await expect(page.get_by_text("A new task with the same input is on its way.")).to_be_visible()
    assert task["id"] not in page.url
    again = re.search(r"task_[0-9a-f]{32}", page.url)
    assert again is not None
    assert (await site.api.task(again[0]))["input"]["prompt"] == "a paper boat sandbox:stuck"


async def test_an_open_page_says_when_the_service_is_away_and_goes_on_when_it_is_back(
    visitor: Visitor, site: Site
) -> None:
    visitor.tolerated.add(503)
    await visitor.open("/tasks")
    await expect(visitor.page.locator("[data-live-state=on]")).to_have_text("Live")
    await visitor.page.route("**/tasks", lambda route: route.fulfill(status=503))
    await site.api.submit("flux-context/flux-kontext-pro", "a message in a bottle")
    await expect(visitor.page.locator("[data-live-state=late]")).to_have_text("Reconnecting")
    await visitor.page.unroute("**/tasks")
    await expect(visitor.page.locator("[data-live-state=on]")).to_have_text("Live")
    await expect(visitor.page.get_by_role("link", name="a message in a bottle")).to_be_visible()


async def test_a_delivery_is_sent_again_from_its_tasks_page(visitor: Visitor, site: Site) -> None:
    page, subscriber = visitor.page, site.receiver.subscriber("again", then=status(500))
    await site.api.endpoint(subscriber.url, description="the till", filter={"metadata": {"till": "4"}})
    task = await site.api.submit("flux-context/flux-kontext-pro", "a paper kite", metadata={"till": "4"})
    await visitor.open(f"/tasks/{task['id']}")
    row = page.locator("#deliveries tbody tr").filter(has_text="the till")
    await expect(row.locator(".badge")).to_have_text("failed")
    await expect(row).to_contain_text("last: 500")
    await expect(page.locator("#timeline circle.dot-bad")).to_have_count(3)
    subscriber.then = status(204)
    await row.get_by_role("button", name="Send again").click()
    await expect(row.locator(".badge")).to_have_text("succeeded")
    await expect(page.locator("#timeline")).to_contain_text("attempt 4: answered 204 to the till")


async def test_the_theme_that_was_chosen_stays(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.open("/")
    await page.get_by_role("button", name="Theme: system").click()
    await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    reply = await visitor.open("/tasks")
    assert 'data-theme="dark"' in await reply.text()
    await page.get_by_role("button", name="Theme: dark").click()
    await page.get_by_role("button", name="Theme: light").click()
    assert "data-theme" not in (await (await visitor.open("/")).text()).partition("<head>")[0]
