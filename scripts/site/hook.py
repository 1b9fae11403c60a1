"""What MkDocs is given besides docs/: pages from elsewhere in the repository, and what is rendered from the code."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from scripts.site.links import BROUGHT, COPIES, ROOT, find_shown, rewrite_links
from scripts.site.made import fill, show_examples

LONG_CODE = re.compile(r"(?<=<code>)[^<\n]{20,}(?=</code>)")
BREAKS = re.compile(r"::|[/_.](?=\w)")
SCROLLED = '<div class="scrolled" tabindex="0">'
SEARCH = 'data-md-component="search" role="dialog"'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in BROUGHT.items():
        text = (ROOT / source).read_text()
        if page == "examples.md":
            text = show_examples(text)
        files.append(File.generated(config, page, content=text))
    for source, copy in COPIES.items():
        files.append(File.generated(config, copy, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    shown = {name: place for file in reversed(list(files.documentation_pages())) for name, place in _shown_by(file)}
    return rewrite_links(fill(markdown), page.file.src_uri, shown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Long names may break where their parts meet; what is still wider than a phone is moved by keys, too."""
    broken = LONG_CODE.sub(lambda code: BREAKS.sub(r"\g<0><wbr>", code[0]), html)
    return broken.replace("<table>", f"{SCROLLED}<table>").replace("</table>", "</table></div>")


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return _name_search(output)


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    return _name_search(output_content)


def on_post_build(config: MkDocsConfig) -> None:
    """Maps of scripts and styles are for their authors, and the larger half of the site."""
    for path in Path(config.site_dir).rglob("*.map"):
        path.unlink()


def _name_search(html: str) -> str:
    """The theme's search dialog has no name for those who don't see it."""
    return html.replace(SEARCH, f'{SEARCH} aria-label="Search"')


def _shown_by(file: File) -> list[tuple[str, str]]:
    return list(find_shown(file.src_uri, file.content_string).items())
