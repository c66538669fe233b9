"""JSON numbers that a double cannot hold with all digits -> texts, spelt as in the source.

JSON sets no limit to digits, but its readers make doubles of all numbers with a fraction: 12345678901234567890.12 would silently become
12345678901234567000.0. A text loses nothing; it goes into the variant column, as any text in a column of numbers does.
"""

import math
import re
from decimal import Decimal, InvalidOperation

# A double keeps a decimal of at most 15 digits; with the point that is 16 characters.
_SAFE_LENGTH = 16
_LONG = b"0" * (_SAFE_LENGTH + 1)
_MARKS = bytes(ord("0") if byte in b"0123456789." else ord(" ") for byte in range(256))
_FOUND = re.compile(rb"\.*([0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
# Numbers too small for a double: 1e-400 would become zero. A part of a UUID looks similar.
_TINY = re.compile(rb"[0-9][eE]-0*(?:[3-9][0-9]{2}|[1-9][0-9]{3,})(?![0-9a-fA-F-])")
_TOKEN = re.compile(r'"(?>(?:[^"\\]++|\\.)*)"|-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?')


def read_number(text: str) -> float | str:
    """Read a number with a fraction or an exponent as a double, or as text if digits would be lost; for `parse_float`."""
    return text if _loses_digits(text) else float(text)


def quote_long_numbers(line: str) -> str:
    """Quote the numbers in a line of JSON that would lose digits."""
    return _TOKEN.sub(_quote, line) if has_long_number(line.encode()) else line


def has_long_number(content: bytes) -> bool:
    """Whether lines of JSON hold a number that would lose digits. A number inside a text may count too."""
    # Every byte of a file is searched: a regular expression, which tries each digit, would take ten times as long.
    marks = content.translate(_MARKS)
    at = marks.find(_LONG)
    while at >= 0:
        found = _FOUND.match(content, at)
        if _loses_digits(found[1].decode()) and content[at - 1 : at] != b'"':  # type: ignore[index]
            return True
        at = marks.find(_LONG, found.end())  # type: ignore[union-attr]
    return any(_has_tiny(content, mark) for mark in (b"e-", b"E-"))


def _has_tiny(content: bytes, mark: bytes) -> bool:
    at = content.find(mark, 1)
    while at >= 0:
        if _TINY.match(content, at - 1):
            return True
        at = content.find(mark, at + 1)
    return False


def _loses_digits(text: str) -> bool:
    if len(text) <= _SAFE_LENGTH and "e-" not in text and "E-" not in text:
        return False
    value = float(text)
    shortest = repr(value)
    if shortest == text or not ("." in text or "e" in text or "E" in text):
        return False
    try:
        # A number beyond the range of doubles is rejected elsewhere.
        return math.isfinite(value) and Decimal(shortest) != Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has either
        return True


def _quote(match: re.Match[str]) -> str:
    text = match[0]
    return text if text.startswith('"') or not _loses_digits(text) else f'"{text}"'
