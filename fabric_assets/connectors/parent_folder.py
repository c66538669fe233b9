"""The folder of a file, as a descriptor. Calls with it act on that folder, even if something else gets its name meanwhile.

A path is looked up again by each call. Anyone who drops files could replace a folder by a link between the check of a path and its use.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

# With O_PATH, where it exists, a folder on the path need not be readable.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def open_parent(root: Path, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """Open the folder of a file; yield its descriptor, for the `dir_fd` of calls, and the file's own name.

    Args:
        root: resolved.
        name: the file's path below it.
        make: make folders that are missing below the root.

    Raises:
        OSError: a folder on the path is missing, or is a link.
    """
    path = PurePosixPath(name)
    descriptor = _open_way(root, path.parent, make=make)
    try:
        yield descriptor, path.name
    finally:
        os.close(descriptor)


def write_whole(folder: int, name: str, text: str) -> None:
    """Write a file into an open folder atomically, replacing an existing one."""
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
