"""Declarations in files, read once at start: those built in, and those of the operator."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from service.providers.declared.loading import DeclarationError, LocatedFault, load
from service.providers.declared.provider import DeclaredProvider

BUILT_IN = Path(__file__).parent / "files"


def read_file(path: Path, now: Callable[[], datetime]) -> DeclaredProvider:
    """Raise DeclarationError, whose text names the file, the line and the key."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(str(path), [LocatedFault(1, 1, "", f"can't be read: {error}")]) from None
    return DeclaredProvider(load(text, str(path)), now)


def read_directory(directory: Path, now: Callable[[], datetime]) -> list[DeclaredProvider]:
    """Every `*.toml` in it, by name."""
    return [read_file(path, now) for path in sorted(directory.glob("*.toml"))]
