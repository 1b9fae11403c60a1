"""Line and column of every key of a TOML document, for error messages.

`tomllib` reads the values and keeps no places; no well-kept library does both.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator

Path = tuple[str | int, ...]
"""Keys and list indexes from the root: `("poll", "rules", 0, "when")`."""

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'', re.DOTALL)
_OTHER = re.compile(r"[^,\]}#\n]+")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")


class Positions:
    """Positions of the keys of one document, which must be valid TOML."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._keys: dict[Path, int] = {}
        for path, offset in _Scanner(text).scan():
            self._keys.setdefault(path, offset)

    def find(self, path: Path) -> tuple[int, int]:
        """Line and column, both from 1, of the key at this path, or of the nearest key above it."""
        if path[:2] not in self._keys and path[1:2] == (0,):  # one table may stand for a list of one
            path = (path[0], *path[2:])
        while path and path not in self._keys:
            path = path[:-1]
        offset = self._keys.get(path, 0)
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


class _Scanner:
    """Walks a valid document once. What TOML forbids is not checked here again."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._table_counts: dict[Path, int] = {}

    def scan(self) -> Iterator[tuple[Path, int]]:
        table: Path = ()
        while self._skip_space() < len(self._text):
            start = self._at
            if not self._text.startswith("[", start):
                yield from self._pair(table)
                continue
            is_list = self._text.startswith("[[", start)
            self._at += 2 if is_list else 1
            keys = [key for key, _ in self._key()]
            self._at += 2 if is_list else 1
            table = self._resolve(keys, is_list)
            yield table, start

    def _resolve(self, keys: list[str], is_list: bool) -> Path:
        """The path of a header. A key that names a list of tables means its newest one."""
        path: Path = ()
        for number, key in enumerate(keys):
            path = (*path, key)
            if is_list and number == len(keys) - 1:
                self._table_counts[path] = self._table_counts.get(path, 0) + 1
            if path in self._table_counts:
                path = (*path, self._table_counts[path] - 1)
        return path

    def _pair(self, table: Path) -> Iterator[tuple[Path, int]]:
        """`key = value`, and all keys inside the value."""
        path = table
        for key, offset in self._key():
            path = (*path, key)
            yield path, offset
        self._take(_EQUALS)
        yield from self._value(path)

    def _key(self) -> Iterator[tuple[str, int]]:
        """The parts of a dotted key, each with its offset."""
        self._skip_space()
        while True:
            offset = self._at
            part = self._take(_KEY_PART)
            yield _plain(part), offset
            if not _DOT.match(self._text, self._at):
                break
            self._take(_DOT)
        self._skip_space()

    def _value(self, path: Path) -> Iterator[tuple[Path, int]]:
        opening = self._text[self._at]
        if opening == "[":
            yield from self._list(path)
        elif opening == "{":
            yield from self._inline_table(path)
        else:
            self._take(_STRING if opening in "\"'" else _OTHER)

    def _list(self, path: Path) -> Iterator[tuple[Path, int]]:
        self._at += 1
        number = 0
        while self._text[self._skip_space()] != "]":
            yield (*path, number), self._at
            yield from self._value((*path, number))
            number += 1
            self._skip_comma()
        self._at += 1

    def _inline_table(self, path: Path) -> Iterator[tuple[Path, int]]:
        self._at += 1
        while self._text[self._skip_space()] != "}":
            yield from self._pair(path)
            self._skip_comma()
        self._at += 1

    def _skip_comma(self) -> None:
        if self._text[self._skip_space()] == ",":
            self._at += 1

    def _skip_space(self) -> int:
        self._take(_SPACE)
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"no valid TOML at character {self._at}")
        self._at = match.end()
        return match[0]


def _plain(part: str) -> str:
    """A key without its quotes."""
    if part[0] not in "\"'":
        return part
    return str(tomllib.loads(f"key = {part}")["key"])
