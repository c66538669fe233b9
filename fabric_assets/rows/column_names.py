"""A source's column name -> its name in the warehouse by the rule alone: dlt's snake_case, other scripts in Latin letters.

Which of several fields gets a name, where the rule makes them one, is decided with the stream's table at hand (rows/stream_names.py).
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

SEPARATOR = "__"

FIXED_POINT = r"_?[a-z][a-z0-9]*(_[a-z0-9]+|__[a-z][a-z0-9]*)*"
LONGEST = 63

_FIXED_POINT = re.compile(FIXED_POINT)
_NAMELESS = "_empty"
_MOST_PASSES = 5


@lru_cache(maxsize=65_536)
def normalize_column(name: str) -> str:
    """Spell a column as dlt does, the parts between double underscores each on its own. Letters of other scripts are lost.

    Most names are spelt so already, and importing dlt for those alone would cost each load a second.
    """
    if is_fixed_point(name):
        return name
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(max_length=LONGEST).normalize_path(name) or _NAMELESS


@lru_cache(maxsize=65_536)
def spell_column(name: str) -> str:
    """Spell a column as dlt does, but other scripts in Latin letters; always a fixed point of dlt's rule."""
    if is_fixed_point(name):
        return name
    if not name.isascii():
        name = _transliterate(name) or name
    for _ in range(_MOST_PASSES):
        spelt = normalize_column(name)
        if spelt == name:
            break
        name = spelt
    return name


def compose(name: str) -> str:
    """The composed form (NFC) of a name: two Unicode spellings of one name are one field. Halves of surrogate pairs are escaped."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", name.encode(errors="backslashreplace").decode())


def drop_hidden(name: str) -> str:
    """A name, composed, without what nobody sees: zero-width characters, byte order marks, soft hyphens, spaces around it."""
    return unicodedata.normalize("NFC", "".join(letter for letter in name if unicodedata.category(letter) != "Cf")).strip()


def is_fixed_point(name: str) -> bool:
    """Whether dlt's rule leaves a name as it is."""
    return len(name) <= LONGEST and _FIXED_POINT.fullmatch(name) is not None


def join_names(names: Iterable[str]) -> str:
    """Name what is nested: the names on the way to it, spelt as in the warehouse; the middle of a long one gives way to a tag."""
    path = SEPARATOR.join(names)
    if len(path) <= LONGEST:
        return path
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(max_length=LONGEST).shorten_fragments(path)


def number_name(name: str, number: int) -> str:
    """The name with a number at its end."""
    ending = f"_{number}"
    return name[: LONGEST - len(ending)].rstrip("_") + ending


def _transliterate(name: str) -> str:
    from anyascii import anyascii

    return re.sub(r"^[^A-Za-z0-9_]+|[^A-Za-z0-9_]+$", "", anyascii(compose(name)))
