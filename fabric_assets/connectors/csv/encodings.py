"""The bytes of a text file -> their encoding, and the text.

Bytes that are not valid in the encoding become surrogates in the text (PEP 383), as do halves of surrogate pairs. Only the rows that contain them are bad.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

# A byte above 127 that is not valid in an encoding, as surrogatepass writes it.
_WRITTEN = re.compile(rb"\xed([\xb2\xb3])([\x80-\xbf])")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
# Byte sequences that do not occur in Windows-1252 text:
# - bytes that the encoding does not define;
# - symbols within words (Polish, Czech, old Macs and DOS);
# - words of accented letters alone (Cyrillic, Greek);
# - odd letters before symbols (Japanese);
# - symbols beside symbols or letters that they never occur beside (Chinese, Korean).
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


def find_mark(head: bytes) -> str | None:
    """The encoding that the byte order mark of a content names; None without a mark."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def decode(blocks: Iterable[bytes], encoding: str) -> Iterator[str]:
    """Decode a content, without its byte order mark.

    Raises:
        UnicodeError: its bytes are not in the encoding at all, or end within a character.
    """
    errors = "surrogatepass" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    decoder, is_first = codecs.getincrementaldecoder(encoding)(errors), True
    for block in chain(blocks, [b""]):
        if text := decoder.decode(block, not block):
            yield text.removeprefix("\ufeff") if is_first else text
            is_first = False


def get_errors(encoding: str) -> str:
    """The error handler that writes bad characters of a decoded text as bytes that are not valid UTF-8.

    For UTF-8 these are the original bytes. The bytes of another encoding could be valid UTF-8 by accident, so they are not used.
    """
    return "surrogateescape" if encoding in ("utf-8", "utf-8-sig") else "surrogatepass"


def show_bytes(text: str) -> str:
    """A bad line with each bad byte shown as it was in the file: \\xff."""
    written = _WRITTEN.sub(lambda found: b"\\x%02x" % ((found[1][0] & 3) << 6 | found[2][0] & 63), text.encode("utf-8", "surrogateescape"))
    return written.decode("utf-8", "backslashreplace")


# --- detection by bytes


@dataclass
class _Seen:
    utf8: bool = True
    multibyte: bool = False
    implausible: bool = False
    rare: bool = False
    common: bool = False


def detect_narrow(blocks: Iterator[bytes]) -> str | None:
    """Distinguish UTF-8 from Windows-1252 by all bytes of a content; None if it looks like neither."""
    seen, decoder, kept = _Seen(), codecs.getincrementaldecoder("utf-8")(), b""
    block = next(blocks, b"")
    while block or kept:
        if seen.utf8:
            seen.utf8 = (block.isascii() and not decoder.getstate()[0]) or _feed(decoder, block, final=not block)
        piece = kept + block
        if not piece.isascii():
            _look(piece, seen)
        # A sequence across two blocks is found with the second one.
        kept = piece[-4:] if block else b""
        block = next(blocks, b"") if block else b""
    if seen.utf8:
        return "utf-8"
    if seen.multibyte:
        # Damaged UTF-8, or two encodings in one file: the rows that are not UTF-8 are rejected one by one.
        return "utf-8"
    if seen.implausible or (seen.rare and not seen.common):
        return None
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
