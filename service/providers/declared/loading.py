"""TOML text in, a checked declaration out, or every fault of it with line and column."""

import re
import tomllib
from typing import NamedTuple

from service.providers.declared.checking import check
from service.providers.declared.converting import Converter, Fault
from service.providers.declared.positions import Positions
from service.providers.declared.schema import Declaration

SIZE_MAX = 512 * 1024
_PLACE = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


class LocatedFault(NamedTuple):
    """A fault with line and column, as an editor shows it."""

    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {f'{self.key}: ' if self.key else ''}{self.message}"


class DeclarationError(ValueError):
    """A file is no valid declaration. Its text is one line about the first fault; `faults` has all of them."""

    def __init__(self, name: str, faults: list[LocatedFault]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{name}:{faults[0]}{more}")
        self.faults = faults


def load(text: str, name: str) -> Declaration:
    """The declaration in a file of that name. Raise DeclarationError."""
    if len(text) > SIZE_MAX:
        raise DeclarationError(name, [LocatedFault(1, 1, "", f"has over {SIZE_MAX >> 10} KiB")])
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DeclarationError(name, [_syntax_fault(text, error)]) from None
    converter = Converter()
    declaration = converter.convert(values, Declaration, ())
    faults = converter.faults or list(check(declaration))
    if faults:
        positions = Positions(text)
        raise DeclarationError(name, sorted(_locate(fault, positions) for fault in faults))
    return declaration  # type: ignore[no-any-return]


def _syntax_fault(text: str, error: Exception) -> LocatedFault:
    match = _PLACE.fullmatch(str(error))
    if match is None or match[2] is None:
        lines = text.splitlines() or [""]
        return LocatedFault(len(lines), len(lines[-1]) + 1, "", f"is no TOML: {match[1] if match else error}")
    return LocatedFault(int(match[2]), int(match[3]), "", f"is no TOML: {match[1]}")


def _locate(fault: Fault, positions: Positions) -> LocatedFault:
    line, column = positions.find(fault.path)
    return LocatedFault(line, column, _spell(fault), fault.message)


def _spell(fault: Fault) -> str:
    """The key as it would be written, such as `poll.rules[0].when`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_quote(part)}" for part in fault.path]
    return "".join(parts).removeprefix(".")


def _quote(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
