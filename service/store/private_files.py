"""Files and folders for their owner alone. Those that are there already keep their mode."""

import os
from pathlib import Path


def create(path: Path) -> None:
    """Create an empty file, with its folders, where it is missing. Raise OSError, also if it can't be written."""
    create_folder(path.parent)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def create_folder(folder: Path) -> None:
    """Create it and those above it: `mkdir` with `parents` gives these the mode of the umask."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
