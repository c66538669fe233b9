"""Private folders, atomically written files, and locks: the parts of the data folder."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def make_private_folder(folder: Path) -> Path:
    """Create a folder that only its owner can enter, and also the missing folders above it."""
    for missing in [parent for parent in (*reversed(folder.parents), folder) if not parent.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file completely or not at all; a reader never sees half of it."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class FileLock:
    """A lock on a file, which is created if it is missing. It is held until it is released, or until its process ends in any way."""

    def __init__(self, file: Path, *, wait: bool = True, on_held: Callable[[str], None] | None = None) -> None:
        """Take the lock.

        Args:
            wait: wait until another process releases it.
            on_held: called repeatedly while another process holds the lock, with that process's note; it sleeps, or raises.

        Raises:
            BlockingIOError: the lock is held, and `wait` is False.
        """
        # One descriptor for the whole wait, so that a file that offboarding deletes meanwhile is not created again.
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
        """Write a note into the file, for processes that wait."""
        os.ftruncate(self._held[0], 0)
        os.pwrite(self._held[0], text.encode(), 0)

    def release(self) -> None:
        """Release the lock. A second call does nothing: the descriptor's number may belong to another file by then."""
        with contextlib.suppress(IndexError):
            os.close(self._held.pop())

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def hold_shared(file: Path) -> Iterator[None]:
    """Hold a lock on a file for the block, together with others that hold it so; a `FileLock` on it waits. The file must exist, and is only read."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def widen_pipe(descriptor: int, size: int) -> None:
    """Give a pipe more room, so that both its sides take fewer turns. Where the user may have no more room for pipes, it stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, size)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
