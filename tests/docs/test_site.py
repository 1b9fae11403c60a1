"""The site as a reader gets it: built without a warning, whole without any other host, and looked at in a browser."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import pytest_asyncio
import yaml
from playwright.async_api import BrowserContext

from service.core.event import EVENT_TYPES
from service.core.task import ERROR_CODES
from service.web.routes import OPERATIONS
from tests.docs.samples import PAGES, ROOT
from tests.support.browser import (
    AXE_RUN,
    AXE_SCRIPT,
    IS_DARK,
    SIDEWAYS,
    SIZES,
    VIEWS,
    Visitor,
    chromium,
    options,
)
from tests.support.registry import PROVIDERS

LOOKED_AT = {
    "home": "/",
    "quickstart": "/quickstart/",
    "concepts": "/concepts/",
    "provider": "/providers/fluxapi-ai/",
    "security": "/security/",
}
LOADING = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src", "object": "data"}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class Loaded(HTMLParser):
    """Collects what a page loads on its own; links do not count."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag == "link" and named.get("rel") in ("canonical", "next", "prev"):
            return
        if url := named.get(LOADING.get(tag, "")):
            self.urls.append(url)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it: any warning fails it."""
    site = tmp_path_factory.mktemp("docs") / "site"
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return site


@pytest.fixture(scope="module")
def pages(built: Path) -> dict[str, str]:
    return {path.relative_to(built).as_posix(): path.read_text() for path in built.rglob("*.html")}


def test_every_page_of_the_repository_is_a_page_of_the_site(pages: dict[str, str]) -> None:
    brought = len(PAGES) - len(list((ROOT / "docs").rglob("*.md"))) - 1
    assert len(pages) == len(list((ROOT / "docs").rglob("*.md"))) + brought + 1  # and the 404


def test_make_docs_builds_it_in_the_same_way() -> None:
    assert "mkdocs build --strict --site-dir site" in (ROOT / "Makefile").read_text()
    assert "/site/" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    named = set(re.findall(r"[\w/-]+\.md", text.partition("\nnav:")[2]))
    of_docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert of_docs <= named
    assert yaml.safe_load(text)["strict"] is True


def test_no_page_loads_anything_from_another_host(built: Path, pages: dict[str, str]) -> None:
    loaded = {(page, url) for page, html in pages.items() for url in Loaded(html).urls}
    assert len(loaded) > 100
    assert {(page, url) for page, url in loaded if re.match(r"(\w+:)?//", url)} == set()
    for style in built.rglob("*.css"):
        assert re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", style.read_text()) == [], style


def test_the_reference_has_every_operation_and_the_provider_pages_every_model(pages: dict[str, str]) -> None:
    reference = pages["reference/index.html"]
    for operation in OPERATIONS:
        assert f'id="{operation.endpoint.__name__}"' in reference, operation.path
    for provider in PROVIDERS.values():
        page = pages[f"providers/{provider.id}/index.html"].replace("<wbr>", "")
        for model in provider.capabilities.models:
            assert f"<code>{provider.id}/{model.name}</code>" in page


def test_the_search_knows_every_error_code_event_and_operation(built: Path) -> None:
    index = (built / "search" / "search_index.json").read_text()
    for word in (*ERROR_CODES, *EVENT_TYPES, *(operation.summary.partition(",")[0] for operation in OPERATIONS)):
        assert word in index


@pytest.fixture(scope="module")
def origin(built: Path) -> Iterator[str]:
    """The site, served as any web server would."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def context() -> AsyncIterator[BrowserContext]:
    async with chromium() as browser:
        yield await browser.new_context(**options())


@pytest_asyncio.fixture(loop_scope="module")
async def reader(context: BrowserContext, origin: str) -> AsyncIterator[Visitor]:
    """A reader of the site; console errors and requests to other hosts fail the test."""
    visitor = Visitor(context, await context.new_page(), origin)
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    yield visitor
    await visitor.page.close()
    assert visitor.complaints == []
    assert [url for url in asked if not url.startswith((origin, "data:"))] == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", LOOKED_AT)
async def test_a_page_is_accessible_and_fits_light_on_a_desktop_and_dark_on_a_phone(name: str, reader: Visitor) -> None:
    page = reader.page
    await reader.open(LOOKED_AT[name])
    await page.add_style_tag(content="* { transition: none !important }")
    await page.evaluate(AXE_SCRIPT)
    for size, theme in VIEWS:
        width, height = SIZES[size]
        await page.set_viewport_size({"width": width, "height": height})
        await page.emulate_media(color_scheme=theme)
        await page.wait_for_function(f"(wanted) => ({IS_DARK})() === wanted", arg=theme == "dark")
        await reader.shoot(f"docs-{name}-{size}-{theme}")
        assert await page.evaluate(SIDEWAYS) <= 0, size
        assert await page.evaluate(AXE_RUN) == [], size


@pytest.mark.asyncio(loop_scope="module")
async def test_the_search_finds_a_setting_without_any_other_host(reader: Visitor) -> None:
    await reader.open("/")
    await reader.page.get_by_role("textbox", name="Search").press_sequentially("TASKHOOK_PUBLIC_URL")
    await reader.page.locator('.md-search-result__link[href*="/settings/"]').first.click()
    await reader.page.wait_for_url("**/settings/**")
    await reader.page.locator("mark", has_text="TASKHOOK_PUBLIC_URL").first.wait_for()
