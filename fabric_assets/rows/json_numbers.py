"""Numbers of JSON that no double holds with all of their digits -> texts, spelt as the source spells them.

JSON sets no limit to digits, but its readers make doubles of what is no whole number: 12345678901234567890.12 would become
12345678901234567000.0 without a word. A text loses nothing, and stands beside the numbers of its column as any other text does.
"""

import math
import re
from decimal import Decimal, InvalidOperation

# A decimal of at most 15 digits comes back from its double; these and the point are 16 characters.
_SAFE_LENGTH = 16
_LONG = b"0" * (_SAFE_LENGTH + 1)
_MARKS = bytes(ord("0") if byte in b"0123456789." else ord(" ") for byte in range(256))
_FOUND = re.compile(rb"\.*([0-9]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
# So small that no double holds it with all of its digits, or at all: 1e-400 would be zero. A part of a UUID looks alike.
_TINY = re.compile(rb"[0-9][eE]-0*(?:[3-9][0-9]{2}|[1-9][0-9]{3,})(?![0-9a-fA-F-])")
_TOKEN = re.compile(r'"(?>(?:[^"\\]++|\\.)*)"|-?[0-9]++(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?')


def read_number(text: str) -> float | str:
    """A number with a fraction or an exponent: a double, or the text where digits would be lost; for `parse_float`."""
    return text if _loses_digits(text) else float(text)


def quote_long_numbers(line: str) -> str:
    """Make texts of the numbers in a line of JSON that would lose digits."""
    return _TOKEN.sub(_quote, line) if has_long_number(line.encode()) else line


def has_long_number(content: bytes) -> bool:
    """Whether lines of JSON hold a number that would lose digits; in a text, one may count as well."""
    # The whole of each file is looked at: a regular expression, which tries each digit, would take ten times as long.
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
        # What is beyond all doubles is no number for any reader, and rejected as such.
        return math.isfinite(value) and Decimal(shortest) != Decimal(text)
    except InvalidOperation:  # an exponent that no decimal has either
        return True


def _quote(match: re.Match[str]) -> str:
    text = match[0]
    return text if text.startswith('"') or not _loses_digits(text) else f'"{text}"'
