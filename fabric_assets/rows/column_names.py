"""A source's column name -> its name in the warehouse by the rule alone: dlt's snake_case, other scripts in Latin letters.

Where the rule gives several fields the same name, rows/stream_names.py decides by the stream's table which of them gets it.
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
    """Spell a column as dlt does, each part between double underscores by itself. Letters of other scripts are lost.

    Most names need no change; for those dlt is not imported, which would cost each load a second.
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
    """Return the composed form (NFC) of a name, because two Unicode spellings of a name are one field. Half surrogate pairs are escaped."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", name.encode(errors="backslashreplace").decode())


def drop_hidden(name: str) -> str:
    """Compose a name and remove invisible characters: zero-width characters, byte order marks, soft hyphens, surrounding spaces."""
    return unicodedata.normalize("NFC", "".join(letter for letter in name if unicodedata.category(letter) != "Cf")).strip()


def is_fixed_point(name: str) -> bool:
    """Whether dlt's rule leaves a name as it is."""
    return len(name) <= LONGEST and _FIXED_POINT.fullmatch(name) is not None


def is_of_family(table: str, root: str) -> bool:
    """Whether a table is a root table, or holds lists nested in its rows; no root table's name holds two underscores in a row."""
    return table == root or table.startswith(f"{root}{SEPARATOR}")


def join_names(names: Iterable[str]) -> str:
    """Name a nested field or table: join the names that lead to it, spelt as in the warehouse. A tag replaces the middle of a long name."""
    path = SEPARATOR.join(names)
    if len(path) <= LONGEST:
        return path
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(max_length=LONGEST).shorten_fragments(path)


def number_name(name: str, number: int) -> str:
    """Append a number to a name."""
    ending = f"_{number}"
    return name[: LONGEST - len(ending)].rstrip("_") + ending


def _transliterate(name: str) -> str:
    from anyascii import anyascii

    return re.sub(r"^[^A-Za-z0-9_]+|[^A-Za-z0-9_]+$", "", anyascii(compose(name)))
