"""Private folders, whole files and locks: what the data folder is made of."""

import contextlib
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

    def __init__(self, file: Path, *, wait: bool = True, on_held: Callable[[str], None] | None = None) -> None:
        """Args:
            wait: until the process that holds it now releases it.
            on_held: called again and again while another process holds it, with what that process has noted; it sleeps, or raises.

        Raises:
            BlockingIOError: it is held, and waiting was not wanted.
        """
        # One descriptor for the whole wait: a file that is deleted meanwhile, as offboarding does, is not made again.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while on_held is not None and not _try(descriptor):
                on_held(os.pread(descriptor, 20, 0).decode())
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        self._held = [descriptor]

    def note(self, text: str) -> None:
        """Write into the file who holds it."""
        os.ftruncate(self._held[0], 0)
        os.pwrite(self._held[0], text.encode(), 0)

    def release(self) -> None:
        """Release the lock; a second call does nothing, since its descriptor's number may be another file's by then."""
        with contextlib.suppress(IndexError):
            os.close(self._held.pop())

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
