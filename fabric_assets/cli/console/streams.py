"""The process's standard streams, which may be closed, full, or in an encoding that lacks most letters."""

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

_CLOSED = frozenset({errno.EPIPE})
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def prepare_streams() -> None:
    """Open closed standard streams, and escape letters that cannot be encoded.

    A file that is opened later would otherwise get the number of a closed stream, and what is printed there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def describe_unwritable(error: OSError) -> str | None:
    """Describe an error of writing the result; None for any other error, also for one of a named file."""
    if error.filename is not None or error.errno not in _UNWRITABLE:
        return None
    return f"standard output cannot be written: {os.strerror(error.errno or 0)}"


def is_closed(error: OSError) -> bool:
    """Whether the reader of a pipe has closed it, as `head` does once it has read enough."""
    return error.filename is None and error.errno in _CLOSED


def discard_output() -> None:
    """Drop all further output: what is still in memory would fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def finish_output(code: int) -> int:
    """Write the output that is still in memory.

    Returns:
        the exit code: 1 if the output cannot be written, although the work was done.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        if is_closed(error):
            return code
        with suppress(OSError):
            print(f"error: {describe_unwritable(error) or error}", file=sys.stderr)
        return code or 1
    return code
