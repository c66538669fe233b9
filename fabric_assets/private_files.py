"""Private folders and whole files: what the data folder is made of."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def make_private_folder(folder: Path) -> Path:
    """Make a folder that only its owner can enter; those above it that are missing too."""
    for missing in [parent for parent in (*reversed(folder.parents), folder) if not parent.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a whole file in place, or none: a reader never sees half of it."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
