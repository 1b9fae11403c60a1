"""Sessions: who may sign in, for how long, and what another site's page can make a browser do."""

import base64
import re

import httpx
import pytest
from msgspec.structs import replace

from service.core.keys import SCOPES
from service.dashboard.entering import safe_next
from service.dashboard.routes import PAGES, Page
from service.dashboard.sessions import CODE_LIFE_S, LIFE, OneTimeCode
from service.web.auth import LOOK_S
from service.web.throttle import FAILURES_MAX
from tests.dashboard.conftest import ORIGIN, Browser, Door, make_key
from tests.web.conftest import KEY, Site

FORMS = [page for page in PAGES if page.method == "POST" and not page.is_open]


def concrete(page: Page) -> str:
    kind = {"tasks": "task", "endpoints": "ep", "deliveries": "dlv", "keys": "key"}.get(page.path.split("/")[1], "task")
    return page.path.replace("{id}", f"{kind}_{'0' * 32}")


async def test_the_first_page_is_the_sign_in_for_whoever_is_not_signed_in(door: Door) -> None:
    page = await door.browser().page("/")
    assert "Sign in to Taskhook" in page
    assert "Overview" not in page


async def test_a_key_opens_a_session_and_is_not_in_its_cookie(door: Door) -> None:
    browser = door.browser()
    reply = await browser.send("/sign-in", key=KEY)
    assert reply.status_code == 303
    assert reply.headers["location"] == "/"
    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert f"Max-Age={LIFE.total_seconds():.0f}" in cookie
    told = base64.urlsafe_b64decode(str(browser.session).partition(".")[0] + "==")
    assert KEY.encode() not in told
    assert KEY not in cookie
    assert "Overview" in await browser.page("/")


async def test_behind_https_the_cookie_is_for_encrypted_connections_to_this_host_alone(site: Site) -> None:
    reply = await Door(site, public_url="https://taskhook.test").browser().send("/sign-in", key=KEY)
    assert reply.headers["set-cookie"].startswith("__Host-taskhook_session=")
    assert "; Secure" in reply.headers["set-cookie"]


@pytest.mark.parametrize("key", ["", "wrong", "tk_live_nothing", "schlüssel", "灯塔", "a" * 3_000])
async def test_a_wrong_key_is_told_so_and_shown_nowhere(door: Door, key: str) -> None:
    browser = door.browser()
    reply = await browser.send("/sign-in", key=key)
    assert reply.status_code == 401
    assert 'role="status"' not in reply.text
    assert "set-cookie" not in reply.headers
    assert not key or key not in reply.text or key == "wrong"
    assert browser.session is None


async def test_wrong_keys_are_throttled_together_with_those_of_the_api(door: Door, site: Site) -> None:
    browser = door.browser()
    for _ in range(FAILURES_MAX):
        assert (await browser.client.get("/v1/tasks", headers={"Authorization": "Bearer wrong"})).status_code == 401
    reply = await browser.send("/sign-in", key="wrong")
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) > 0
    assert (await browser.sign_in()).status_code == 303


async def test_a_session_ends_with_its_time(browser: Browser, site: Site) -> None:
    site.env.pass_time(LIFE.total_seconds() - 1)
    assert "Overview" in await browser.page("/")
    site.env.pass_time(1)
    assert "Your session has ended" in await browser.page("/")


async def test_a_revoked_key_ends_its_sessions(door: Door, api: httpx.AsyncClient, site: Site) -> None:
    made = await make_key(api, "tasks:read")
    browser = door.browser()
    await browser.sign_in(made["key"])
    assert "Overview" in await browser.page("/")
    await api.delete(f"/v1/keys/{made['id']}")
    site.env.pass_time(LOOK_S)
    assert (await browser.get("/tasks")).status_code == 303


async def test_a_key_taken_out_of_the_settings_ends_its_sessions(browser: Browser, site: Site) -> None:
    site.context = replace(site.context, trust=replace(site.context.trust, api_keys=("another-key",)))
    restarted = Door(site).browser(taskhook_session=str(browser.session))
    assert "Sign in to Taskhook" in await restarted.page("/")


async def test_another_replica_and_a_rotated_secret_know_the_session(site: Site, browser: Browser) -> None:
    rotated = Door(site, ("a newer secret key", "a secret key")).browser(taskhook_session=str(browser.session))
    assert "Overview" in await rotated.page("/")
    foreign = Door(site, ("a foreign secret key",)).browser(taskhook_session=str(browser.session))
    assert "Sign in to Taskhook" in await foreign.page("/")


@pytest.mark.parametrize("change", [lambda c: c[:-1] + ("A" if c[-1] != "A" else "B"), lambda c: "x" + c, lambda c: ""])
async def test_an_altered_cookie_is_nobodys(door: Door, browser: Browser, change: object) -> None:
    altered = change(str(browser.session))  # type: ignore[operator]
    assert "Sign in to Taskhook" in await door.browser(taskhook_session=altered).page("/")


async def test_signing_out_ends_it(browser: Browser) -> None:
    reply = await browser.send("/sign-out")
    assert reply.status_code == 303
    assert "You are signed out." in await browser.page("/")
    assert browser.session is None


async def test_a_copy_of_the_cookie_ends_with_the_sign_out_on_every_replica(door: Door, site: Site) -> None:
    browser = door.browser()
    await browser.sign_in()
    copied = str(browser.session)
    replica = Door(site).browser(taskhook_session=copied)
    assert "Overview" in await replica.page("/")
    await browser.send("/sign-out")
    assert "Your session has ended" in await replica.page("/")
    assert (await replica.send("/endpoints", url="https://example.com/hook")).status_code == 303
    again = door.browser()
    await again.sign_in()
    assert "Overview" in await again.page("/")


async def test_a_code_signs_in_once(site: Site) -> None:
    door = Door(site, code=OneTimeCode("a code", KEY, site.env.monotonic))
    wrong, first, second = door.browser(), door.browser(), door.browser()
    assert (await wrong.send("/sign-in", code="another code")).status_code == 401
    assert (await first.send("/sign-in", code="a code")).status_code == 303
    assert "Overview" in await first.page("/")
    reply = await second.send("/sign-in", code="a code")
    assert reply.status_code == 401
    assert "This link was used, or is too old." in reply.text


async def test_a_code_is_over_after_an_hour(site: Site) -> None:
    door = Door(site, code=OneTimeCode("a code", KEY, site.env.monotonic))
    site.env.pass_time(CODE_LIFE_S + 1)
    assert (await door.browser().send("/sign-in", code="a code")).status_code == 401


async def test_a_page_that_a_trusted_proxy_got_over_tls_sets_a_cookie_for_tls_alone(door: Door) -> None:
    reply = await door.browser(origin="https://taskhook.test").send("/sign-in", key=KEY)
    assert reply.headers["set-cookie"].startswith("__Host-taskhook_session=")
    assert "; Secure" in reply.headers["set-cookie"]


async def test_whoever_follows_a_link_comes_back_to_it_after_the_sign_in(door: Door) -> None:
    browser = door.browser()
    away = await browser.get("/tasks?q=order%3D1&status=failed")
    assert away.status_code == 303
    found = re.search(r'name="next" value="([^"]*)"', await browser.page(away.headers["location"]))
    assert found is not None
    wanted = found[1].replace("&amp;", "&")
    assert (await browser.sign_in(next=wanted)).headers["location"] == "/tasks?q=order%3D1&status=failed"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\\\evil",
        "/\t/evil.example",
        "javascript:alert(1)",
        "",
        "tasks",
        "/a\r\nX: y",
        "/ a",
        "/\u2028",
        "/" + "a" * 3_000,
    ],
)
async def test_a_sign_in_leads_to_no_other_host(path: str) -> None:
    assert safe_next(path) == "/"


# Forms of other sites


@pytest.mark.parametrize("page", FORMS, ids=lambda page: page.path)
async def test_no_form_is_taken_without_the_sessions_secret(browser: Browser, page: Page) -> None:
    for csrf in ("", "another-secret"):
        reply = await browser.send(concrete(page), csrf=csrf)
        assert reply.status_code == 403
        assert "not of this session" in reply.text


@pytest.mark.parametrize("page", FORMS, ids=lambda page: page.path)
async def test_no_form_of_another_site_is_taken(browser: Browser, page: Page) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://other.taskhook.test"},
        {"Sec-Fetch-Site": "none"},
    ):
        reply = await browser.send(concrete(page), headers)
        assert reply.status_code == 403
        assert "not sent from a page" in reply.text


async def test_a_browser_that_names_no_site_is_judged_by_its_origin(door: Door) -> None:
    client = door.browser().client
    for origin, status in ((ORIGIN, 303), ("http://evil.example", 403), ("null", 403), (None, 403)):
        reply = await client.post("/sign-in", data={"key": KEY}, headers={"Origin": origin} if origin else {})
        assert reply.status_code == status, origin


async def test_behind_a_proxy_that_renames_the_host_the_public_one_counts(site: Site) -> None:
    client = Door(site, public_url="https://images.example").browser().client
    reply = await client.post("/sign-in", data={"key": KEY}, headers={"Origin": "https://images.example"})
    assert reply.status_code == 303


# Rights


@pytest.mark.parametrize("scope", SCOPES)
async def test_every_page_takes_exactly_the_keys_that_have_its_scope(
    door: Door, api: httpx.AsyncClient, scope: str
) -> None:
    browser = door.browser()
    await browser.sign_in((await make_key(api, scope))["key"])
    for page in PAGES:
        if page.right is None:
            continue
        path = concrete(page)
        reply = await (browser.get(path) if page.method == "GET" else browser.send(path))
        assert (reply.status_code != 403) == (scope in (page.right, "admin")), (page.method, path, reply.status_code)
        assert reply.status_code != 500


async def test_what_a_key_may_not_do_is_not_shown(door: Door, site: Site, api: httpx.AsyncClient) -> None:
    task = await site.run(api)
    browser = door.browser()
    await browser.sign_in((await make_key(api, "tasks:read"))["key"])
    page = await browser.page(f"/tasks/{task['id']}")
    for action in ("Poll now", "Cancel…", "Submit again…", "/endpoints", "/playground"):
        assert action not in page
    assert "Delivered" not in await browser.page("/")


async def test_a_key_without_any_page_is_told_what_it_lacks(door: Door, api: httpx.AsyncClient) -> None:
    browser = door.browser()
    await browser.sign_in((await make_key(api, "tasks:write"))["key"])
    assert "can&#39;t look at tasks" in await browser.page("/")
