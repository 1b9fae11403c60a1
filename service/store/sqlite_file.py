"""The database as a file: whether it is still in its place, and copies of it that are complete or not there."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from service.store import private_files

CHECKED_BYTES = 64 << 20
"""Of a larger file the check at the start would take too long; damage shows when it is read."""
IN_PLACE = "vacuum into ?"

Identity = tuple[int, int]


def identity(path: str) -> Identity | None:
    """Return the identity of the file with this name, or None."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_small(path: str) -> bool:
    return Path(path).stat().st_size <= CHECKED_BYTES


def new_copy(path: str) -> str:
    """Create an empty file next to it, readable by its owner alone, for a copy."""
    partial = Path(f"{path}.partial")
    private_files.create_folder(partial.parent)
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return str(partial)


def put_in_place(partial: str, path: str) -> None:
    """Durable, then under its name in one step."""
    _sync(partial)
    os.replace(partial, path)
    _sync(str(Path(path).parent))


def remove_logs(path: str) -> None:
    """Remove logs of an earlier file of this name: SQLite would apply them to the new one."""
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)


def backup(path: str, target: str) -> int:
    """A copy of one moment, whatever is written meanwhile; its size. Raises sqlite3.Error and OSError."""
    partial = new_copy(target)
    try:
        with closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as source:
            source.execute("pragma busy_timeout = 20000")
            source.execute(IN_PLACE, (partial,))
        with closing(sqlite3.connect(partial)) as copy:
            if copy.execute("pragma quick_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("the copy is damaged, and so is the database")
        put_in_place(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return Path(target).stat().st_size


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
