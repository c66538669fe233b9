"""The folder that a file lies in, as a descriptor: what is done by its means is done in that folder, whatever takes the place of its name meanwhile.

A path is looked up anew by each call. Anyone who drops files could lay a link in a folder's place between the check of a path and its use.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

# Where there is a flag for it, a folder on the way need not be readable.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_parent(root: Path, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder of a file; gives its descriptor, for the `dir_fd` of calls, and the file's own name.

    Args:
        root: resolved.
        name: the file's path below it.
        make: make folders that are missing below the root.

    Raises:
        OSError: a folder on the way is missing, or is a link.
    """
    path = PurePosixPath(name)
    descriptor = _open_way(root, path.parent, make=make)
    try:
        yield descriptor, path.name
    finally:
        os.close(descriptor)


def write_whole(folder: int, name: str, text: str) -> None:
    """Write a file into a folder that is open, whole or not at all, over what lies there."""
    waiting = f".{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(waiting, flags, 0o600, dir_fd=folder), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(waiting, name, src_dir_fd=folder, dst_dir_fd=folder)


def _open_way(root: Path, below: PurePosixPath, *, make: bool) -> int:
    descriptor = os.open(root.anchor, _FOLDER)
    try:
        for is_ours, part in [*((False, part) for part in root.parts[1:]), *((make, part) for part in below.parts)]:
            if is_ours:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise OSError(errno.ELOOP, f"{below} is a link, which may lead into another tenant's folder: remove it") from None
    return descriptor
