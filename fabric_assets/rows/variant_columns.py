"""Variant columns, for values that do not fit a column's type: `price__v_text` beside `price`."""

import re
from collections.abc import Container, Iterable
from typing import Any

import pyarrow as pa

from fabric_assets.rows.arrow_types import get_word
from fabric_assets.rows.column_names import SEPARATOR, join_names

_VARIANT = re.compile(rf"(.+){SEPARATOR}v_[a-z]+")


def is_named_as_variant(name: str) -> bool:
    return _VARIANT.fullmatch(name) is not None


def is_variant(name: str, columns: Container[str]) -> bool:
    """Whether a column is the variant column of another one of these columns."""
    found = _VARIANT.fullmatch(name)
    return found is not None and found[1] in columns


def name_variant(name: str, kind: pa.DataType) -> str:
    """Name the variant column of a column for values of a type."""
    return join_names((name, f"v_{get_word(kind).partition('(')[0]}"))


def find_variants(former: str, name: str, columns: Iterable[Any]) -> dict[str, str]:
    """Find the variant columns of a column that is renamed; returns their old and new names."""
    prefix = f"{former}{SEPARATOR}v_"
    return {each: join_names((name, each[len(former) + len(SEPARATOR) :])) for each in columns if each.startswith(prefix) and is_variant(each, (former,))}
