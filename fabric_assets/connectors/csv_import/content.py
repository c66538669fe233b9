"""A dropped file -> its unpacked content as UTF-8, block by block, up to the size limit.

Some bytes have no form in UTF-8: those that are not valid in the file's encoding, and halves of surrogate pairs. They stay in the
blocks as bytes that are not valid UTF-8, so that only the rows that contain them are rejected.
"""

import codecs
import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from fabric_assets.connectors.csv.encodings import decode, detect_narrow, find_mark, get_errors
from fabric_assets.connectors.csv.foreign_formats import find_foreign
from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows.wide_text import find_wide_encoding

BLOCK = 4 * 1024 * 1024
_SAVE_AS = "save it as CSV in UTF-8, or declare the stream's encoding"


@contextmanager
def open_regular(path: Path, *, limit: int) -> Iterator[BinaryIO]:
    """Open a file, and refuse anything else that may have its name.

    Raises:
        QuarantinedFile: it is not a regular file, or larger than the limit.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise QuarantinedFile("unreadable", f"it cannot be opened: {error.strerror}") from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise QuarantinedFile("unreadable", "it is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        if facts.st_size > limit:
            raise build_size_error(limit)
        yield file


@contextmanager
def open_content(path: Path, *, packed: bool, limit: int) -> Iterator[Any]:
    """Open a file's content for reading.

    Args:
        packed: whether it is gzip.
        limit: bytes that may be read of it.

    Raises:
        QuarantinedFile: it is not a regular file, is too large, or is not gzip.
    """
    with open_regular(path, limit=limit) as file:
        try:
            yield _Content(gzip.GzipFile(fileobj=file) if packed else file, limit)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise QuarantinedFile("bad_gzip", f"it is not a complete gzip file: {error}") from None


class _Content:
    """A file's content, which cannot be read beyond the limit."""

    def __init__(self, file: Any, limit: int) -> None:
        self._file = file
        self._left = self._limit = limit

    def read(self, size: int = BLOCK) -> bytes:
        parts, wanted = [], size
        while wanted and (part := self._file.read(wanted)):
            parts.append(part)
            wanted -= len(part)
            self._left -= len(part)
            if self._left < 0:
                raise build_size_error(self._limit)
        return b"".join(parts)


def build_size_error(limit: int) -> QuarantinedFile:
    return QuarantinedFile("too_large", f"its content has more than {limit:,} bytes", remedy="split it, or raise the source's limits.bytes")


# --- encodings


def detect_encoding(content: Any) -> str:
    """Find the encoding of a whole content.

    Raises:
        QuarantinedFile: it is not text, or could be in several encodings.
    """
    head = content.read(BLOCK)
    if foreign := find_foreign(head):
        raise QuarantinedFile("not_text", f"it is {foreign.what}, not the text that its name says", remedy="name it for what it is, or save it as CSV")
    if encoding := find_mark(head) or find_wide_encoding(head) or _find_wide(head[:4096]):
        return encoding
    encoding = detect_narrow(chain([head], iter(content.read, b"")))
    if encoding is None:
        raise QuarantinedFile("unknown_encoding", "it is not UTF-8, and does not look like Windows-1252", remedy=_SAVE_AS)
    return encoding


def _find_wide(head: bytes) -> str | None:
    """UTF-16 without a byte order mark: in plain text every other byte is zero."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if not even and odd * 2 > len(head[1::2]):
        return "utf-16-le"
    if not odd and even * 2 > len(head[::2]):
        return "utf-16-be"
    if (even + odd) * 5 > len(head):
        raise QuarantinedFile("not_text", "it is not text: too many of its bytes are zero", remedy="save it as CSV")
    return None


def read_blocks(content: Any, encoding: str, size: int = BLOCK) -> Iterator[bytes]:
    """Read a content as UTF-8, without a byte order mark."""
    if encoding == "utf-8":
        first = content.read(size).removeprefix(codecs.BOM_UTF8)
        while first:
            yield first
            first = content.read(size)
        return
    try:
        for text in decode(iter(partial(content.read, size), b""), encoding):
            yield text.encode("utf-8", get_errors(encoding))
    except UnicodeError:
        raise QuarantinedFile("bad_encoding", f"its bytes are not {encoding.upper()}, which the stream or its byte order mark declares") from None
