"""Templates: texts with `{name}` in them. A value can't leave the place it is put in: it is encoded for that place."""

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from urllib.parse import quote

LENGTH_MAX = 2_000
Values = Mapping[str, str | None]

_PART = re.compile(r"\{\{|\}\}|\{(\+?)([a-z][a-z0-9_]*)\}|[{}]|[^{}]+")
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


class WrongTemplateError(ValueError):
    """The text is no valid template. The message says why."""


class Template:
    """A template. `names` are the values it needs; if one is missing, the result is None."""

    def __init__(self, source: str, known: frozenset[str] | None = None) -> None:
        """Raise WrongTemplateError for a brace without meaning, or a name that is not `known`."""
        if len(source) > LENGTH_MAX:
            raise WrongTemplateError(f"has {len(source)} characters; {LENGTH_MAX} are allowed")
        self.source = source
        self._parts = list(_parse(source))
        self.names = frozenset(name for _, name, _ in self._parts if name)
        self.check(known)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"

    def check(self, known: frozenset[str] | None) -> None:
        for name in sorted(self.names - (self.names if known is None else known)):
            close = get_close_matches(name, known or (), n=1)
            hint = f"did you mean {{{close[0]}}}?" if close else f"known are {', '.join(sorted(known or ()))}"
            raise WrongTemplateError(f"uses {{{name}}}, which has no value here; {hint}")

    @property
    def only_name(self) -> str | None:
        """The name, if the template is nothing but one."""
        return self._parts[0][1] or None if len(self._parts) == 1 else None

    def fill(self, values: Values) -> str | None:
        """As plain text, for members of a JSON body."""
        return self._fill(values, lambda value, _: value)

    def fill_header(self, values: Values) -> str | None:
        """Control characters and all beyond ASCII are percent-encoded, so no value can add a header."""
        return self._fill(values, lambda value, _: quote(value, safe=_PRINTABLE))

    def fill_path(self, values: Values) -> str | None:
        """Each value is one segment of a path; `{+name}` may have several, and none of them `.` or `..`."""
        return self._fill(values, _encode_segments)

    def _fill(self, values: Values, encode: Callable[[str, bool], str | None]) -> str | None:
        texts = []
        for literal, name, keeps_slashes in self._parts:
            value = values.get(name) if name else None
            text = encode(value, keeps_slashes) if value is not None else literal
            if text is None:
                return None
            texts.append(text)
        return "".join(texts)


def _parse(source: str) -> Iterator[tuple[str | None, str, bool]]:
    """Literal text, or a name and whether its value keeps slashes."""
    for match in _PART.finditer(source):
        if match[2]:
            yield None, match[2], match[1] == "+"
        elif match[0] in "{}":
            raise WrongTemplateError(
                f"has a {match[0]} at character {match.start() + 1} that belongs to no {{name}}; "
                f"write {match[0] * 2} for the character itself"
            )
        else:
            yield match[0].replace("{{", "{").replace("}}", "}"), "", False


def _encode_segments(value: str, keeps_slashes: bool) -> str | None:
    segments = value.split("/") if keeps_slashes else [value]
    if not all(segment.strip(".") for segment in segments):
        return None  # a path goes up with "..", and an empty segment begins a host with "//"
    return "/".join(quote(segment, safe="") for segment in segments)
