"""What MkDocs is given besides docs/: pages from elsewhere in the repository, and what is rendered from the code."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.site.examples import show_files
from scripts.site.links import BROUGHT, COPIES, ROOT, find_shown, rewrite_links
from scripts.site.providers import render_part
from scripts.site.reference import render_operations

MADE = re.compile(r"^<!-- made: (?P<what>[a-z]+)(?P<words>(?: \S+)*) -->$", re.MULTILINE)
SAMPLE = r"^```{language}\n.*?^```$"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in BROUGHT.items():
        text = (ROOT / source).read_text()
        if page == "examples.md":
            text = show_files(text)
        files.append(File.generated(config, page, content=text))
    for source, copy in COPIES.items():
        files.append(File.generated(config, copy, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    shown = {name: place for file in reversed(list(files.documentation_pages())) for name, place in _shown_by(file)}
    return rewrite_links(fill(markdown), page.file.src_uri, shown)


def on_post_build(config: MkDocsConfig) -> None:
    """Maps of scripts and styles are for their authors, and the larger half of the site."""
    for path in Path(config.site_dir).rglob("*.map"):
        path.unlink()


def fill(markdown: str) -> str:
    """The text with everything made that its marks ask for."""
    return MADE.sub(lambda mark: _make(mark["what"], mark["words"].split()), markdown)


def _make(what: str, words: list[str]) -> str:
    if what == "operations":
        return render_operations()
    if what == "provider":
        return render_part(words[0], words[1])
    if what == "sample":
        return find_sample((ROOT / words[0]).read_text(), words[1])
    raise ValueError(f"nothing is called {what!r}")


def find_sample(text: str, language: str) -> str:
    """The first sample in that language, with its fence."""
    found = re.search(SAMPLE.format(language=language), text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no sample in {language}")
    return found[0]


def _shown_by(file: File) -> list[tuple[str, str]]:
    return list(find_shown(file.src_uri, file.content_string).items())
