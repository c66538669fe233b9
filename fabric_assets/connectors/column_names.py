"""A source's column name -> its name in the warehouse: dlt's snake_case."""

import re
from collections.abc import Iterable
from functools import lru_cache

SEPARATOR = "__"

_FIXED_POINT = re.compile(r"_?[a-z][a-z0-9]*(_[a-z0-9]+|__[a-z][a-z0-9]*)*")
_LONGEST = 63
_NAMELESS = "_empty"


@lru_cache(maxsize=65_536)
def normalize_column(name: str) -> str:
    """Spell a column as the warehouse does; the parts between double underscores each on its own, as dlt does.

    Most names are spelt so already, and importing dlt for those alone would cost each load a second.
    """
    if len(name) <= _LONGEST and _FIXED_POINT.fullmatch(name):
        return name
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(max_length=_LONGEST).normalize_path(name) or _NAMELESS


def join_names(names: Iterable[str]) -> str:
    """Name what is nested: the names on the way to it, spelt as in the warehouse; the middle of a long one gives way to a tag."""
    path = SEPARATOR.join(names)
    if len(path) <= _LONGEST:
        return path
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(max_length=_LONGEST).shorten_fragments(path)
