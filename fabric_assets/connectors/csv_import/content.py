"""A dropped file -> its content as UTF-8, block by block, unpacked and never more of it than the limit.

What is no UTF-8 in the end (bytes that its encoding lacks, halves of surrogate pairs) stays in the blocks as bytes that no UTF-8
text has, so that only the rows that hold them are rejected.
"""

import codecs
import gzip
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fabric_assets.errors import QuarantinedFile
from fabric_assets.rows.wide_text import find_wide_encoding

BLOCK = 4 * 1024 * 1024
_BOMS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"))
_BOMS_16 = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_FOREIGN = {b"PK\x03\x04": "a zip file or workbook", b"\x1f\x8b": "gzip", b"\xd0\xcf\x11\xe0": "an old or encrypted workbook", b"%PDF": "a PDF"}
_SAVE_AS = "save it as CSV in UTF-8, or declare the stream's encoding"

_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# What Windows-1252 text does not look like: bytes it has not; symbols within words (Polish, Czech, old Macs and DOS); words of
# nothing but accented letters (Cyrillic, Greek); odd letters before symbols (Japanese); symbols beside symbols, accented letters
# or Latin ones that they never stand beside (Chinese, Korean).
_ACCENTED = rb"\xc0-\xd6\xd8-\xf6\xf8-\xff"
_SYMBOL = rb"[\x80\x82\x84-\x89\x8b\x91\x93-\x95\x98\x99\x9b\xa1-\xac\xae-\xb6\xb8-\xbf\xd7\xf7]"
_LONE = rb"[\xa2-\xa6\xa9\xac-\xaf\xb1-\xb3\xb5\xb6\xb8\xb9\xbc-\xbe]"
_IMPLAUSIBLE = re.compile(
    rb"[\x81\x8d\x8f\x90\x9d]"
    rb"|[A-Za-z%(accented)b]%(symbol)b[A-Za-z%(accented)b]"
    rb"|[%(accented)b]{3}"
    rb"|[\x82-\x84\x88-\x8c\x8e\x98\x9a-\x9c\x9e\x9f][\xa1-\xbf]"
    rb"|(%(lone)b)(?!\1)%(lone)b|[\xa4\xa6\xac\xaf\xb8][A-Za-z]|\xa5[a-z@_^~{}\[\]\\]"
    rb"|(?=[\x80-\xff]{0,3}[%(accented)b])(?=[\x80-\xff]{0,3}%(lone)b)[\x80-\xff]{4}" % {b"accented": _ACCENTED, b"symbol": _SYMBOL, b"lone": _LONE}
)
_RARE = re.compile(rb"[\x83\x8a\x8c\x8e\x9a\x9c\x9e\x9f]")
_COMMON = re.compile(rb"[" + _ACCENTED + rb"]")


@contextmanager
def open_regular(path: Path, *, limit: int) -> Iterator[BinaryIO]:
    """Open a file, whatever else may lie under its name.

    Raises:
        QuarantinedFile: it is no regular file, or too large as it stands.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise QuarantinedFile("unreadable", f"it cannot be opened: {error.strerror}") from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise QuarantinedFile("unreadable", "it is no regular file")
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
        QuarantinedFile: it is no regular file, is too large, or no gzip.
    """
    with open_regular(path, limit=limit) as file:
        try:
            yield _Content(gzip.GzipFile(fileobj=file) if packed else file, limit)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise QuarantinedFile("bad_gzip", f"it is no complete gzip file: {error}") from None


class _Content:
    """Gives no more than the limit."""

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
        QuarantinedFile: it is no text, or could be in several encodings.
    """
    head = content.read(BLOCK)
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise QuarantinedFile("not_text", f"it is {name}, not the text that its name says", remedy="name it for what it is, or save it as CSV")
    for bom, name in (*_BOMS, *_BOMS_16):
        if head.startswith(bom):
            if name == "utf-32":
                raise QuarantinedFile("unknown_encoding", "it is UTF-32", remedy=_SAVE_AS)
            return name
    if wide := find_wide_encoding(head) or _find_wide(head[:4096]):
        return wide
    return _detect_narrow(content, head)


def _find_wide(head: bytes) -> str | None:
    """UTF-16 with something odd in it: every other byte of plain text is zero."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if not even and odd * 2 > len(head[1::2]):
        return "utf-16-le"
    if not odd and even * 2 > len(head[::2]):
        return "utf-16-be"
    if (even + odd) * 5 > len(head):
        raise QuarantinedFile("not_text", "it is no text: too many of its bytes are zero", remedy="save it as CSV")
    return None


@dataclass
class _Seen:
    utf8: bool = True
    multibyte: bool = False
    implausible: bool = False
    rare: bool = False
    common: bool = False


def _detect_narrow(content: Any, block: bytes) -> str:
    seen, decoder, kept = _Seen(), codecs.getincrementaldecoder("utf-8")(), b""
    while block or kept:
        if seen.utf8:
            seen.utf8 = (block.isascii() and not decoder.getstate()[0]) or _feed(decoder, block, final=not block)
        piece = kept + block
        if not piece.isascii():
            _look(piece, seen)
        # What straddles two blocks is seen in the second one.
        kept = piece[-4:] if block else b""
        block = content.read(BLOCK) if block else b""
    if seen.utf8:
        return "utf-8"
    if seen.multibyte:
        # Damaged UTF-8, or two encodings in one file: the rows that are none are rejected one by one.
        return "utf-8"
    if seen.implausible or (seen.rare and not seen.common):
        raise QuarantinedFile("unknown_encoding", "it is neither UTF-8 nor, by the look of its words, Windows-1252", remedy=_SAVE_AS)
    return "windows-1252"


def _feed(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _look(piece: bytes, seen: _Seen) -> None:
    seen.multibyte = seen.multibyte or _MULTIBYTE.search(piece) is not None
    seen.implausible = seen.implausible or _IMPLAUSIBLE.search(piece) is not None
    seen.rare = seen.rare or _RARE.search(piece) is not None
    seen.common = seen.common or _COMMON.search(piece) is not None


def read_blocks(content: Any, encoding: str, size: int = BLOCK) -> Iterator[bytes]:
    """Read a content as UTF-8, without a byte order mark."""
    if encoding == "utf-8":
        first = content.read(size).removeprefix(codecs.BOM_UTF8)
        while first:
            yield first
            first = content.read(size)
        return
    errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    first = True
    while True:
        block = content.read(size)
        try:
            text = decoder.decode(block, not block)
        except UnicodeDecodeError:
            raise QuarantinedFile("bad_encoding", f"it is declared or marked as {encoding.upper()}, but its bytes are none") from None
        if first:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text.encode("utf-8", "surrogatepass")
        if not block:
            return
