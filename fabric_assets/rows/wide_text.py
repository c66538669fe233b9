"""The first bytes of a file -> whether they are UTF-16 without a byte order mark.

Many letters of UTF-16 are two bytes that are ASCII too (Cyrillic, Arabic), so zero bytes alone do not tell. Line ends do: each has a zero byte, and
in the wrong byte order they are not characters.
"""

import codecs
import unicodedata

_LENGTH = 4096
# Controls, halves of pairs, private and unassigned characters.
_ODD = {"Cc", "Cs", "Co", "Cn"}


def find_wide_encoding(head: bytes) -> str | None:
    """Find the encoding, `utf-16-le` or `utf-16-be`; None if the bytes are anything else."""
    head = head[:_LENGTH]
    if 0 not in head:
        return None
    return next((name for name in ("utf-16-le", "utf-16-be") if _is_text(head, name)), None)


def guess_by_zeros(head: bytes) -> str | None:
    """Guess the encoding of a damaged text by its zero bytes: good for a remedy, not for reading."""
    head = head[:_LENGTH]
    if head.count(0) * 5 <= len(head):
        return None
    return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"


def _is_text(head: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return not {"\n", "\r"}.isdisjoint(text) and all(char in "\t\r\n" or unicodedata.category(char) not in _ODD for char in text)
