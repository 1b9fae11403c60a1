"""The environment and .env as names and values: how they are read, and what no value may look like."""

import io
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

PREFIX = "TASKHOOK_"
IN_FILE = "_FILE"
QUOTES = ('""', "''", "``", "“”", "„“", "‘’", "«»")  # noqa: RUF001 (word processors make these)


class SettingsError(Exception):
    """A wrong setting: one line that names it and says what it must be."""


def read_environment(environ: Mapping[str, str], dotenv: Path | None) -> dict[str, str]:
    """Every variable that is not empty; the environment wins over the file. Raise SettingsError."""
    for name in environ:
        bare = name.strip().removeprefix("export").strip()
        if bare != name and bare.startswith(PREFIX):
            raise SettingsError(f"{bare} is set under the name {name!r}; take away what does not belong to the name.")
    from_file = read_dotenv(dotenv)
    if environ.get("PORT"):  # a platform says where to listen: no file may say otherwise
        from_file.pop("TASKHOOK_PORT", None)
    return _merge(from_file, environ)


def _merge(from_file: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The environment wins, also where one of the two has the value and the other names a file with it."""
    given = {name: value for name, value in environ.items() if value}
    other_forms = {name.removesuffix(IN_FILE) if name.endswith(IN_FILE) else name + IN_FILE for name in given}
    return {name: value for name, value in from_file.items() if value and name not in other_forms} | given


def read_dotenv(path: Path | None) -> dict[str, str]:
    """The variables of the file, none if there is no file. Raise SettingsError, also for a line without meaning.

    python-dotenv leaves such lines out, so that a quote too few loses a setting without a word.
    """
    if path is None or not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{path} can't be read; it must be a text file in UTF-8.") from None
    found = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            says = "is not NAME=VALUE, or a quote is missing"
            raise SettingsError(f"{path}, line {binding.original.line}, can't be read: it {says}.")
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def read_secret(name: str, path: str) -> str:
    """The content of the file that the variable names. Raise SettingsError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError):
        raise SettingsError(f"{name} names a file that can't be read as text: {path}.") from None
    if not text.strip():
        raise SettingsError(f"{name} names a file that is empty: {path}.")
    return text


def clean(value: str) -> str:
    """Strip white space and a byte order mark. Raise ValueError for quotes that became part of the value.

    Shells and `.env` take quotes away; `docker run --env-file`, systemd's and Kubernetes' files keep some of them.
    """
    value = value.strip().removeprefix("\ufeff").strip()
    if any("\ud800" <= char <= "\udfff" for char in value):  # as Python reads such a byte
        raise ValueError("has bytes that are not UTF-8.")
    if len(value) > 1 and value[0] + value[-1] in QUOTES:
        raise ValueError("is wrapped in quotes, which would be part of the value; take them away.")
    return value
