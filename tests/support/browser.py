"""A real browser that lets nothing pass: what it complains of, and what axe finds, fails the test."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    WebError,
    async_playwright,
)

MISSING = "no Chromium here: scripts/ensure-chromium installs it"
NAMES = (
    "chromium-headless-shell",
    "chrome-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
"""The first two have no window at all and take half the processor time."""
SHOTS = "TASKHOOK_SHOTS"
"""Names the folder that screenshots go to; without it none is taken."""
Theme = Literal["light", "dark"]
SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
AXE_SCRIPT = Axe().axe_script
AXE_RUN = """async () => {
  const found = await axe.run({resultTypes: ['violations'], preload: false});
  return found.violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(
    one => `${one.id}: ${one.help}: ${one.nodes.map(node => node.html).slice(0, 4).join(' | ')}`);
}"""
VIEWS: tuple[tuple[str, Theme], ...] = (("desktop", "light"), ("phone", "dark"))
"""Each theme and each size is judged once: neither changes what the other shows."""
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
IS_DARK = """() => {
  const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).map(Number);
  return r + g + b < 384;
}"""
AWAY = "net::ERR_ABORTED"
"""What is still loading when the visitor goes on to another page."""


def find_chromium() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Skips where there is none."""
    found = find_chromium()
    if found is None:
        pytest.skip(MISSING)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        await browser.close()


class Visitor:
    """A person at a service, in their own browser context."""

    def __init__(self, context: BrowserContext, page: Page, origin: str) -> None:
        self.context = context
        self.page = page
        self.origin = origin
        self.complaints: list[str] = []
        self.tolerated: set[int] = set()
        """Statuses of refusals that the test asks for."""
        context.on("console", self._hear)
        context.on("weberror", self._catch)
        context.on("requestfailed", self._miss)
        context.on("response", self._judge)

    async def open(self, path: str) -> Response:
        """Goes there and waits until the page and what it loads is there."""
        response = await self.page.goto(self.origin + path)
        assert response is not None
        return response

    async def inspect(self, name: str) -> None:
        """The page as it is now, light on a desktop and dark on a phone: accessible, not too wide, pictured."""
        await self.page.evaluate(AXE_SCRIPT)
        for size, theme in VIEWS:
            await self._resize(size)
            await self._inspect(f"{name}-{size}-{theme}", theme)
        await self._resize("desktop")

    async def _resize(self, size: str) -> None:
        width, height = SIZES[size]
        await self.page.set_viewport_size({"width": width, "height": height})

    async def _inspect(self, name: str, theme: Theme) -> None:
        await self.page.emulate_media(color_scheme=theme)
        assert await self.page.evaluate(IS_DARK) == (theme == "dark"), f"{name} does not follow the theme"
        assert await self.page.evaluate(SIDEWAYS) <= 0, f"{name} is wider than the screen"
        findings: list[str] = await self.page.evaluate(AXE_RUN)
        await self.shoot(name)
        assert not findings, f"{name}:\n" + "\n".join(findings)

    async def shoot(self, name: str) -> None:
        """A picture of the whole page, where a folder for them is named."""
        if folder := os.environ.get(SHOTS):
            await asyncio.to_thread(Path(folder).mkdir, parents=True, exist_ok=True)
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def _hear(self, message: ConsoleMessage) -> None:
        """A status is judged by the response itself."""
        ours = message.location.get("url", "").startswith(self.origin)
        if message.type == "error" and not (ours and "the server responded with a status of" in message.text):
            self.complaints.append(f"console: {message.text}")

    def _catch(self, error: WebError) -> None:
        self.complaints.append(f"page error: {error.error}")

    def _miss(self, request: Request) -> None:
        if request.url.startswith(self.origin) and request.failure != AWAY:
            self.complaints.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _judge(self, response: Response) -> None:
        if response.url.startswith(self.origin) and response.status >= 400 and response.status not in self.tolerated:
            self.complaints.append(f"refused: {response.request.method} {response.url}: {response.status}")


def options(**more: Any) -> dict[str, Any]:
    """Of a context: the desktop, and no movement, so that what is judged is at rest."""
    width, height = SIZES["desktop"]
    return {"viewport": {"width": width, "height": height}, "reduced_motion": "reduce", "locale": "en-GB", **more}
