"""Pages show hostile and ordinary content; lists are searched and paged; buttons act."""

import html
import re
from typing import Any

import httpx
import msgspec
import pytest

from service.core.observation import Failed, Pending
from service.core.task import TaskError
from service.store.reads import ReadLimits, Reads
from tests.dashboard.conftest import Browser, Door
from tests.support.factory import picture
from tests.web.conftest import Site

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "{{ 7 * 7 }}{% raw %}",
    "</pre></details><h1>hello",
    "&lt;b&gt;",
    "photo_\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "line\u2028break\u0085 bell\x07 escape\x1b[31m",
    "👩\u200d🚀 emoji 🇩🇪",
    "\u05d7\u05ea\u05d5\u05dc \u0642\u0637\u0629",
    "x" * 5_000,
]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' https:; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


async def shown(browser: Browser, path: str) -> str:
    """The page's text as a person reads it."""
    page = await browser.page(path)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


async def rows_of(browser: Browser, path: str) -> list[str]:
    return re.findall(r'<tr id="row-(task_[0-9a-f]{32})"', await browser.page(path))


# What leaves


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks?q=a+b", "/tasks/nothing", "/?next=/x"])
async def test_no_page_lets_a_script_in_and_none_is_kept(browser: Browser, path: str) -> None:
    reply = await browser.get(path)
    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?! src=\"/assets/)|<style|\sstyle=|\son[a-z]+=|javascript:", reply.text)


async def test_assets_are_kept_for_ever_under_the_hash_of_their_content(browser: Browser) -> None:
    page = await browser.page("/")
    named = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', page))
    assert {path.rpartition("/")[2] for path in named} == {"app.css", "app.js", "inter.woff2", "icon.svg"}
    for path in named:
        reply = await browser.client.get(path)
        assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
        older = await browser.client.get(f"/assets/0000000000000000/{path.rpartition('/')[2]}")
        assert (older.content, older.headers["cache-control"]) == (reply.content, "no-cache")
    assert (await browser.client.get("/assets/x/../routes.py")).status_code == 404
    styles = await browser.client.get(next(path for path in named if path.endswith(".css")))
    assert styles.headers["content-encoding"] == "gzip"
    assert "url(" in styles.text
    assert "http" not in styles.text


async def test_no_code_of_the_pages_is_made_from_text(browser: Browser) -> None:
    script = (await browser.client.get(re.findall(r'src="([^"]+)"', await browser.page("/"))[0])).text
    assert not re.search(r"\beval\(|new Function|document\.write|insertAdjacentHTML|setTimeout\([\"']", script)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text)[:24])
async def test_what_others_write_is_text_on_every_page(
    browser: Browser, api: httpx.AsyncClient, site: Site, text: str
) -> None:
    storable = text.replace("\x00", "")
    task = await site.run(api, input={"prompt": storable}, metadata={"k": storable[:500]})
    error = TaskError(code="provider_error", message=text, provider_code=text[:50])
    payload = msgspec.Raw(msgspec.json.encode({"said": text}))
    await site.learn(task["id"], Failed(error=error, raw=payload), "callback")
    for path in ("/", "/tasks", f"/tasks/{task['id']}", "/tasks?q=k%3Dnothing"):
        page = await browser.page(path)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "<h1>hello" not in page
        assert "\u202e" not in page.replace('data-copy="', "")
        assert "\x1b" not in page


async def test_text_that_would_turn_round_the_page_is_made_visible(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    task = await site.create(api, input={"prompt": "photo_\u202egnp.exe 👩\u200d🚀"})
    assert "photo_\\u202egnp.exe 👩\u200d🚀" in await shown(browser, f"/tasks/{task['id']}")


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//evil.example/x", "file:///etc/passwd"])
async def test_only_http_links_of_a_result_are_links(
    browser: Browser, api: httpx.AsyncClient, site: Site, url: str
) -> None:
    task = await site.run(api)
    await site.learn(task["id"], picture(url), "poll")
    page = await browser.page(f"/tasks/{task['id']}")
    assert f'href="{url}' not in page
    assert f'src="{url}' not in page
    assert "This link is not an http address." in page


async def test_pictures_are_asked_for_late_and_without_telling_who_asks(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    task = await site.succeed(api)
    for path in ("/tasks", f"/tasks/{task['id']}"):
        for tag in re.findall(r"<img [^>]+>", await browser.page(path)):
            assert 'src="https://cdn.example/x.png"' in tag
            assert 'loading="lazy"' in tag
            assert 'referrerpolicy="no-referrer"' in tag
            assert "alt=" in tag


# Lists


async def test_a_list_goes_on_where_the_page_before_ended(browser: Browser, api: httpx.AsyncClient, site: Site) -> None:
    made = [(await site.create(api))["id"] for _ in range(60)]
    found, path = [], "/tasks"
    while path:
        page = await browser.page(path)
        found += re.findall(r'<tr id="row-(task_[0-9a-f]{32})"', page)
        older = re.search(r'href="([^"]+)" rel="next"', page)
        path = html.unescape(older[1]) if older else ""
    assert found == list(reversed(made))


async def test_one_box_finds_by_words_ids_metadata_and_named_parts(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    fox = await site.run(api, "job-7", input={"prompt": 'A red FOX, "quoted" \\ Ähre 灯塔'}, metadata={"order": "12 a"})
    boat = await site.create(api, model="acedata/flux-dev", input={"prompt": "a boat"}, metadata={"order": "7"})
    for text, wanted in (
        ("fox", [fox]),
        ("FOX red", [fox]),
        ('"red fox"', [fox]),
        ("ähre", [fox]),
        ("灯塔", [fox]),
        ("quoted", [fox]),
        ("fox boat", []),
        ("job-7", [fox]),
        ("order=7", [boat]),
        ('order="12 a"', [fox]),
        ("order=7 fox", []),
        ("status:running", [fox]),
        ("provider:acedata", [boat]),
        ("model:flux-dev boat", [boat]),
        ("model:acedata/flux-dev", [boat]),
        ("model:fluxapi-ai/flux-dev", []),
        ("after:2025-01-01", [boat, fox]),
        ("before:2025-01-01", []),
        (f"id:{fox['id']} a:b", []),
        ("%", []),
        ("_", []),
        ("a_boat", []),
        ("' or 1=1 --", []),
    ):
        assert await rows_of(browser, f"/tasks?{httpx.QueryParams(q=text)}") == [one["id"] for one in wanted], text
    direct = await browser.get(f"/tasks?q={fox['id']}")
    assert direct.headers["location"] == f"/tasks/{fox['id']}"


async def test_what_was_not_understood_is_said(browser: Browser) -> None:
    assert "There is no status done" in await shown(browser, "/tasks?q=status:done")
    assert "must be an RFC 3339 time" in await shown(browser, "/tasks?q=after:yesterday")
    assert "No task is like that" in await shown(browser, "/tasks?q=order%3Dnothing")


async def test_a_search_in_prompts_looks_at_so_many_and_goes_on_from_there_when_asked(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    few = Reads(site.driver, ReadLimits(searched=5))
    browser = Door(site, reads=few).browser(taskhook_session=str(browser.session))
    old = await site.create(api, input={"prompt": "an old needle"})
    for _ in range(7):
        await site.create(api, input={"prompt": "hay"})
    page = await browser.page("/tasks?q=needle")
    assert "Not among the newest" in page
    assert "5 tasks were looked at" in page
    further = re.search(r'href="([^"]+)">Look further back', page)
    assert further is not None
    assert await rows_of(browser, html.unescape(further[1])) == [old["id"]]


# The overview


async def test_the_overview_counts_what_ended(browser: Browser, api: httpx.AsyncClient, site: Site) -> None:
    assert "No task yet" in await shown(browser, "/")
    for _ in range(3):
        await site.succeed(api)
    failed = await site.run(api)
    await site.learn(failed["id"], Failed(error=TaskError(code="content_policy", message="no"), raw=None), "callback")
    await site.create(api)
    site.env.pass_time(61)
    text = await _anew(browser, site)
    assert "Ended 4 in the last hour" in text
    assert "Success 75.0 % 1 failed" in text
    assert "Queued 1 oldest 1 min ago" in text
    assert "content policy" in text


async def test_how_many_tasks_were_open_is_known_for_every_minute(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    site.env.pass_time(30)
    made = [(await site.create(api))["id"] for _ in range(3)]
    site.env.pass_time(180)
    for task_id in made[:2]:
        await api.post(f"/v1/tasks/{task_id}/cancel")
    site.env.pass_time(60)
    page = await Door(site).browser(taskhook_session=str(browser.session)).page("/")
    assert "Tasks that are queued or running in the last hour: at most 3, now 1." in page
    assert re.findall(r": (\d+) open<", page) == ["0"] * 55 + ["3"] * 3 + ["1"] * 2


async def _anew(browser: Browser, site: Site) -> str:
    """From a process that has counted nothing yet."""
    return await shown(Door(site).browser(taskhook_session=str(browser.session)), "/")


async def test_figures_of_minutes_that_are_over_are_read_once(
    browser: Browser, api: httpx.AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    counted = Reads.count_endings

    async def count(self: Any, provider: str, since: Any, until: Any) -> Any:
        asked.append((until - since).total_seconds())
        return await counted(self, provider, since, until)

    monkeypatch.setattr(Reads, "count_endings", count)
    await site.succeed(api)
    await browser.page("/")
    site.env.pass_time(30)
    asked.clear()
    await site.succeed(api)
    assert "Ended 2" in await shown(browser, "/")
    assert max(asked) < 300
    site.env.pass_time(3_700)
    assert "Ended 0" in await shown(browser, "/")
    assert "Ended 2 in 24 hours" in await shown(browser, "/?range=day")


# A task


async def test_a_task_tells_its_story(browser: Browser, api: httpx.AsyncClient, site: Site) -> None:
    task = await site.run(api, "job-1", metadata={"order": "1"})
    for _ in range(3):
        site.env.pass_time(2)
        await site.learn(task["id"], Pending(), "poll")
    site.env.pass_time(2)
    await site.learn(task["id"], picture(), "callback")
    text = await shown(browser, f"/tasks/{task['id']}")
    for line in (
        "The provider finished it and reported that by a callback.",
        "+0 ms Task stored",
        "Submitted: the provider accepted it",
        "+6.0 s Polled: still working 3\u00d7",
        "+8.0 s Called back: done",
        "after 8.0 s",
        "job-1",
    ):
        assert line in text
    assert '"url": "https://cdn.example/x.png"' in text


async def test_poll_cancel_submit_again_and_erase_do_what_the_api_does(
    browser: Browser, api: httpx.AsyncClient, site: Site
) -> None:
    task = await site.run(api, input={"prompt": "a fox", "aspect_ratio": "16:9"}, metadata={"order": "1"}, timeout_s=60)
    path = f"/tasks/{task['id']}"
    page = await browser.page(path)
    assert "Poll now" in page
    assert (await browser.send(f"{path}/poll")).headers["location"] == path
    assert "The provider is asked now." in await browser.page(path)
    assert "Poll asked for by hand" in await shown(browser, path)
    await browser.send(f"{path}/cancel")
    assert (await api.get(f"/v1{path}")).json()["status"] == "canceled"
    once = re.search(r'name="once" value="([^"]+)"', await browser.page(path))
    assert once is not None
    new = {(await browser.send(f"{path}/again", once=once[1])).headers["location"] for _ in range(2)}
    assert len(new) == 1
    again = (await api.get(f"/v1{new.pop()}")).json()
    assert again["id"] != task["id"]
    assert (again["input"], again["metadata"]) == (task["input"], task["metadata"])
    await browser.send(f"{path}/erase")
    assert "a fox" not in await browser.page(path)
    refused = await browser.send(f"{path}/again")
    assert refused.status_code == 409
    assert "The task is erased" in refused.text


async def test_what_cannot_be_done_is_said_on_a_page(browser: Browser, api: httpx.AsyncClient, site: Site) -> None:
    task = await site.succeed(api)
    for action, reason in (("cancel", "a final state never changes"), ("poll", "nothing more to ask for")):
        reply = await browser.send(f"/tasks/{task['id']}/{action}")
        assert reply.status_code == 409
        assert reason in reply.text
    missing = await browser.get(f"/tasks/task_{'0' * 32}")
    assert missing.status_code == 404
    assert "There is no such task." in missing.text


async def test_a_dashboard_that_is_off_leaves_nothing_at_its_addresses(site: Site) -> None:
    async with site.client() as client:
        for path in ("/", "/tasks", "/assets/x/app.css"):
            assert (await client.get(path)).status_code == 404


async def test_scripts_are_told_to_load_a_page_anew_when_the_session_is_over(door: Door) -> None:
    browser = door.browser()
    assert (await browser.get("/tasks", **{"X-Live": "1"})).status_code == 401
    assert (await browser.get("/live")).status_code == 401
