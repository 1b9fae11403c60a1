"""A public URL with a path: every link, form, cookie and redirect carries it, whether the proxy strips it or not."""

import re

import httpx
import pytest

from service.dashboard.routes import PAGES
from service.web.prefix import OWN_NAMES
from service.web.routes import OPERATIONS
from tests.dashboard.conftest import Browser, Door
from tests.web.conftest import KEY, Site

PREFIX = "/hooks/media"
LINK = re.compile(r"(?:href|action|src|data-address|data-preview)=\"(/[^\"]*)\"")
WALKED = ("/", "/tasks", "/endpoints", "/endpoints/new", "/deliveries", "/providers", "/playground", "/keys", "/faults")


@pytest.fixture(params=["stripped", "passed on"])
async def browser(request: pytest.FixtureRequest, site: Site) -> Browser:
    """Signed in behind a proxy that strips the path, or passes it on. Its paths are those of the public URL."""
    made = Door(site, public_url=f"https://taskhook.test{PREFIX}").browser(origin="https://taskhook.test")
    if request.param == "passed on":
        made.client.base_url = httpx.URL(f"https://taskhook.test{PREFIX}/")
    reply = await made.send("/sign-in", key=KEY)
    assert (reply.status_code, reply.headers["location"]) == (303, f"{PREFIX}/")
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Secure-taskhook_session=") and f"; Path={PREFIX};" in cookie and "; Secure" in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    made.client.headers["Cookie"] = (
        f"__Secure-taskhook_session={value}"  # a proxy that strips leaves the browser's path
    )
    return made


@pytest.mark.parametrize("path", WALKED)
async def test_every_link_of_a_page_carries_the_path(browser: Browser, path: str) -> None:
    page = await browser.page(path)
    links = LINK.findall(page)
    assert len(links) > 5
    assert [link for link in links if not link.startswith(f"{PREFIX}/")] == []
    assert [link for link in links if link.startswith(PREFIX * 2)] == []
    assert f'data-prefix="{PREFIX}"' in page


async def test_the_styles_and_scripts_of_a_page_are_there(browser: Browser) -> None:
    assets = [link for link in LINK.findall(await browser.page("/")) if "/assets/" in link]
    assert len(assets) >= 3
    for link in assets:
        assert (await browser.client.get(link.removeprefix(PREFIX))).status_code == 200


async def test_a_redirect_after_a_form_carries_the_path(browser: Browser) -> None:
    key, body = {"Authorization": f"Bearer {KEY}"}, {"url": "https://93.184.216.34/hook"}
    made = await browser.client.post("/v1/endpoints", json=body, headers=key)
    endpoint = f"/endpoints/{made.json()['id']}"
    assert made.headers["location"] == f"{PREFIX}/v1{endpoint}"
    await browser.page(endpoint)
    assert (await browser.send(f"{endpoint}/disable")).headers["location"] == PREFIX + endpoint


async def test_whoever_is_not_signed_in_is_sent_to_the_door_and_back_below_the_path(site: Site) -> None:
    stranger = Door(site, public_url=f"https://taskhook.test{PREFIX}").browser()
    assert (await stranger.get("/tasks")).headers["location"] == f"{PREFIX}/?next=%2Ftasks"
    assert LINK.findall(await stranger.page("/"))[-1] == f"{PREFIX}/docs"


async def test_the_api_names_its_places_below_the_path(site: Site) -> None:
    body = {"model": "acedata/flux-dev", "input": {"prompt": "a lighthouse"}}
    async with Door(site, public_url=f"https://taskhook.test{PREFIX}").browser().client as client:
        for base in ("", PREFIX):
            made = await client.post(f"{base}/v1/tasks", json=body, headers={"Authorization": f"Bearer {KEY}"})
            assert made.headers["location"] == f"{PREFIX}/v1/tasks/{made.json()['id']}"
            document = (await client.get(f"{base}/openapi.json")).json()
            assert document["servers"][0]["url"] == PREFIX
            assert 'href="openapi.json"' in (await client.get(f"{base}/docs")).text
        assert (await client.get("/hooks/mediaother/docs")).status_code == 404


def test_no_public_path_can_be_taken_for_a_path_of_our_own() -> None:
    paths = [*(operation.path for operation in OPERATIONS), *(page.path for page in PAGES)]
    assert {path.split("/")[1] for path in paths} - {""} <= OWN_NAMES
