"""A browser for the session, a real service for each module, a context of its own for each test."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.support.browser import Visitor, chromium, options
from tests.support.receiver import Receiver
from tests.support.service import API_KEY, Service
from tests.support.wait import PATIENCE_S

HERE = Path(__file__).parent
Visit = Callable[..., Awaitable[Visitor]]
PATIENCE_MS = PATIENCE_S * 1000
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all browser tests on one event loop, which their shared browser needs."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


class Site:
    """A service as `taskhook dev` starts it, with its sandbox, and a receiver for its events."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.receiver = Receiver()
        self.signed_in: dict[str, Any] = {}
        """The cookies of each key that somebody signed in with."""
        self._directory = directory
        self._stack = stack

    async def open(self) -> None:
        await self._stack.enter_async_context(self.receiver)
        self.service = Service(self._directory, env={"TASKHOOK_RETRY_SCHEDULE": "0.1,0.1"}, command="dev")
        self._stack.push_async_callback(self.service.close)
        await self.service.start()
        self.api = self.service.api


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        made = Site(tmp_path_factory.mktemp("site"), stack)
        await made.open()
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser, site: Site) -> AsyncIterator[Visit]:
    """Somebody comes, signed in with that key, or with none; all complaints of their browsers fail the test."""
    visitors: list[Visitor] = []

    async def come_here(key: str | None = API_KEY) -> Visitor:
        visitors.append(await come(browser, site, key))
        return visitors[-1]

    yield come_here
    for visitor in visitors:
        await visitor.context.close()
    complaints = [complaint for visitor in visitors for complaint in visitor.complaints]
    assert not complaints, "\n".join(complaints)


async def come(browser: Browser, site: Site, key: str | None) -> Visitor:
    known = site.signed_in.get(key or "")
    context = await browser.new_context(**options(storage_state=known))
    context.set_default_timeout(PATIENCE_MS)
    visitor = Visitor(context, await context.new_page(), site.service.url)
    if key is not None and known is None:
        await sign_in(visitor, key)
        site.signed_in[key] = await context.storage_state()
    return visitor


async def sign_in(visitor: Visitor, key: str) -> None:
    await visitor.open("/")
    await visitor.page.get_by_label("API key").fill(key)
    await visitor.page.get_by_role("button", name="Sign in").click()
    await visitor.page.get_by_role("navigation").first.wait_for()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(visit: Visit) -> Visitor:
    """Somebody who may do everything."""
    return await visit()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def seated(browser: Browser, site: Site) -> AsyncIterator[Visitor]:
    visitor = await come(browser, site, API_KEY)
    yield visitor
    await visitor.context.close()


@pytest.fixture
def reader(seated: Visitor) -> Iterator[Visitor]:
    """Somebody who only looks, page after page in one context: a new one for each costs more than the page."""
    seated.complaints.clear()
    yield seated
    assert not seated.complaints, "\n".join(seated.complaints)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the service said last."""
    report: Any = yield
    site = getattr(item, "funcargs", {}).get("site")
    if report.failed and site is not None and hasattr(site, "service"):
        report.sections.append(("log of the service", site.service.log(tail=30)))
    return report
