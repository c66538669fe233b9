"""`--out` of a command -> where it writes: a file, or standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fabric_assets.errors import ConfigurationError


@contextmanager
def open_output(out: Path | None, *, encoding: str = "utf-8", newline: str | None = None, mode: int = 0o666) -> Iterator[TextIO]:
    """Open the file, or standard output, for the block.

    Args:
        out: None for standard output.
        mode: the permissions of a new file, before the umask.

    Raises:
        ConfigurationError: the file cannot be opened.
    """
    if out is None:
        yield sys.stdout
        return
    try:
        out.touch(mode=mode)
        file = out.open("w", encoding=encoding, newline=newline)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be written: {error.strerror}", remedy="name a file in a folder that exists") from error
    with file:
        yield file
