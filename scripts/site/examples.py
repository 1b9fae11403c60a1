"""The page of examples: their README, and below it each file that it links, whole."""

import re

LANGUAGES = {"py": "python", "mjs": "javascript", "php": "php", "ru": "ruby", "csv": "text"}
FILE = re.compile(r"\]\(((?!\.\./)[^)#:]+\.(?:py|mjs|php|ru|go|sh))\)")


def show_files(readme: str) -> str:
    paths = list(dict.fromkeys(FILE.findall(readme)))
    return "\n\n".join([readme.rstrip(), "# The files", *(_show(path) for path in paths)]) + "\n"


def _show(path: str) -> str:
    suffix = path.rpartition(".")[2]
    return f'## {path}\n\n```{LANGUAGES.get(suffix, suffix)}\n--8<-- "examples/{path}"\n```'
