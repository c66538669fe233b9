"""Private folders, whole files and locks: what the data folder is made of."""

import fcntl
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


class FileLock:
    """A lock on a file, which is made where it is missing; held until it is released or its process ends, however it ends."""

    def __init__(self, file: Path, *, wait: bool = True) -> None:
        """Args:
            wait: for whoever holds it now.

        Raises:
            BlockingIOError: it is held, and waiting was not wanted.
        """
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
