"""Generated parts of pages, between `<!-- made: ... -->` and `<!-- /made -->`: files, samples, or text from the code.

`python -m scripts.site.made` writes them into the pages, so that they can be read without building the site.
"""

import re

from scripts.site.links import MADE, ROOT
from scripts.site.providers import render_observations, render_part
from scripts.site.reference import render_operations, render_problems

LANGUAGES = {"py": "python", "mjs": "javascript", "ru": "ruby"}
LINKED = re.compile(r"\]\(((?!\.\./)[^)#:]+\.(?:py|mjs|php|ru|go|sh))\)")
SAMPLE = r"^```{language}\n.*?^```$"


def fill(markdown: str) -> str:
    """Return the text with every generated part made anew."""
    return MADE.sub(_refill, markdown)


def _refill(part: re.Match[str]) -> str:
    text = _make(part["what"], part["words"].split())
    return f"<!-- made: {part['what']}{part['words']} -->\n\n{text.strip()}\n\n<!-- /made -->"


def main() -> None:
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = page.read_text()
        page.write_text(fill(text))


def show_examples(readme: str) -> str:
    """The README of the examples, and below it each file that it links, whole."""
    paths = list(dict.fromkeys(LINKED.findall(readme)))
    shown = (f"### {path}\n\n<!-- made: file examples/{path} -->\n<!-- /made -->" for path in paths)
    return "\n\n".join([readme.rstrip(), "## The files", *shown]) + "\n"


def _make(what: str, words: list[str]) -> str:
    match what, words:
        case "operations", []:
            return render_operations()
        case "problems", []:
            return render_problems()
        case "observations", []:
            return render_observations()
        case "provider", [provider, part]:
            return render_part(provider, part)
        case "sample", [document, language]:
            return find_sample((ROOT / document).read_text(), language)
        case "file", [path]:
            return show_file(path)
        case _:
            raise ValueError(f"nothing is called {what!r} with {words}")


def find_sample(text: str, language: str) -> str:
    """The first sample in that language, with its fence."""
    found = re.search(SAMPLE.format(language=language), text, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no sample in {language}")
    return found[0]


def show_file(path: str) -> str:
    suffix = path.rpartition(".")[2]
    return f'```{LANGUAGES.get(suffix, suffix)} title="{path}"\n{(ROOT / path).read_text().rstrip()}\n```'


if __name__ == "__main__":
    main()
