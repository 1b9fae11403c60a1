"""Links of the repository as links of the site: to a page, to the heading under which a file is shown, or to a copy."""

import os
import posixpath
import re
from pathlib import Path

from markdown.extensions.toc import slugify

ROOT = Path(__file__).resolve().parents[2]
BROUGHT = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "clients/python/README.md": "python-client.md",
    "examples/README.md": "examples.md",
}
"""Documents from outside of docs/ that are pages of the site."""
PAGES = {**BROUGHT, "README.md": "index.md"}
COPIES = {"LICENSE": "license.txt"}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
MADE = re.compile(
    r"^<!-- made: (?P<what>[a-z]+)(?P<words>(?: \S+)*) -->\n(?P<text>.*?)^<!-- /made -->$", re.MULTILINE | re.DOTALL
)
"""A generated part of a page, between its two marks."""
SHOWN = re.compile(r"^<!-- made: file (?P<file>\S+) -->$|^#{2,3} (?P<heading>.+)$", re.MULTILINE)


def source_of(page: str) -> str:
    """Where in the repository the text of a page is."""
    return next((source for source, brought in BROUGHT.items() if brought == page), f"docs/{page}")


def rewrite_links(markdown: str, page: str, shown: dict[str, str]) -> str:
    """`shown` has, for a file, the page and anchor that shows it."""
    folder, here = posixpath.dirname(source_of(page)), posixpath.dirname(page)

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        place = _page_of(target) or COPIES.get(target) or shown.get(target)
        if place is None or not (ROOT / target).exists():
            return link[0]  # the strict build says that it leads nowhere
        return os.path.relpath(place, here or ".") + (link[2] or "")

    return LINK.sub(rewrite, markdown)


def _page_of(target: str) -> str | None:
    return PAGES.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)


def find_shown(page: str, markdown: str) -> dict[str, str]:
    """The files that a page shows whole, each with the page and the anchor of the heading above it."""
    found: dict[str, str] = {}
    anchor = ""
    for match in SHOWN.finditer(markdown):
        if match["heading"]:
            anchor = slugify(re.sub(r"[`*]", "", match["heading"]), "-")
        else:
            found.setdefault(match["file"], f"{page}#{anchor}")
    return found
