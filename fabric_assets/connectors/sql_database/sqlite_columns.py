"""A SQLite column's declared type and its actual values -> the Arrow type that carries all of them.

In SQLite values have types, not columns: an INTEGER column may hold a text. So before a stream's first load one query asks what each column holds. The declared
type is used only if every value fits it, otherwise the nearest type that loses nothing.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows import arrow_types
from fabric_assets.rows.mixed_columns import ARROW_MISFITS, build_column, cast_texts

_PRECISION = re.compile(r"\((\d+)(?:\s*,\s*(\d+))?\)")
_SAFE_INTEGER = 2**53

_STORAGE = {
    "texts": "typeof({c}) = 'text'",
    "integers": "typeof({c}) = 'integer'",
    "reals": "typeof({c}) = 'real'",
    "blobs": "typeof({c}) = 'blob'",
}
_BIG = f"typeof({{c}}) = 'integer' and {{c}} not between -{_SAFE_INTEGER} and {_SAFE_INTEGER}"
# Adding 0 days normalises a date, so that the 31st of February becomes another text, as does a number, half a date or a word.
_NO_CLOCK = "datetime(substr({c}, 1, 19), '+0 days') is not replace(substr({c}, 1, 19), 'T', ' ')"
_MISFITS = {
    arrow_types.BOOL: "typeof({c}) <> 'integer' or {c} not in (0, 1)",
    arrow_types.BIGINT: "typeof({c}) <> 'integer'",
    arrow_types.DOUBLE: f"typeof({{c}}) <> 'real' and (typeof({{c}}) <> 'integer' or {_BIG})",
    arrow_types.TEXT: "typeof({c}) <> 'text'",
    arrow_types.BINARY: "typeof({c}) <> 'blob'",
    arrow_types.DATE: "date({c}, '+0 days') is not {c}",
    arrow_types.TIMESTAMP: (
        f"{_NO_CLOCK} or typeof({{c}}) <> 'text' or length({{c}}) > 26"
        " or substr({c}, 20) glob '*[^0-9.]*' or substr({c}, 20) glob '[^.]*' or substr({c}, 20) = '.'"
    ),
    arrow_types.TIMESTAMP_UTC: (
        f"{_NO_CLOCK} or datetime({{c}}) is null or length({{c}}) > 32 or not ({{c}} glob '*Z' or {{c}} glob '*[+-][0-9][0-9]:[0-9][0-9]')"
    ),
}


def build_scan_sql(columns: Sequence[tuple[str, pa.DataType]]) -> str:
    """The select list that asks whether any value does not fit its column's type, and how long the longest row is.

    Args:
        columns: quoted name and type.
    """
    misfits = " or ".join(f"({build_misfit_sql(quoted, kind)})" for quoted, kind in columns)
    return f"max({misfits}), max({build_length_sql([quoted for quoted, kind in columns if kind in (arrow_types.TEXT, arrow_types.BINARY)])})"


def build_misfit_sql(quoted: str, kind: pa.DataType) -> str:
    """A condition that holds for a column's values that the type cannot carry."""
    return _get_misfit(kind).replace("{c}", quoted)


def build_length_sql(quoted: Sequence[str]) -> str:
    """A row's bytes in these columns; other, small values are ignored."""
    return " + ".join(["0", *(f"coalesce(length(cast({name} as blob)), 0)" for name in quoted)])


def build_facts_sql(columns: Sequence[tuple[str, str]]) -> str:
    """The select list that asks, for each column and each of its facts, whether any row has it; for a table with misfits."""
    return ", ".join(f"max({{c}} is not null and ({fact}))".replace("{c}", quoted) for quoted, declared in columns for fact in _get_facts(declared).values())


def may_hold_alike(declared: str, kind: pa.DataType) -> bool:
    """Whether SQLite can hold two different values with the same spelling: 1 and '1'. A column declared as text converts both to texts."""
    return kind == arrow_types.TEXT and _get_declared_type(declared.upper()) != arrow_types.TEXT


def build_alike_sql(quoted: Sequence[str]) -> tuple[str, str]:
    """The select list and the grouping that find different values with the same spelling: one row, or none."""
    literals = ", ".join(f"min(quote({name})), max(quote({name}))" for name in quoted)
    spelt = ", ".join(f"case typeof({name}) when 'blob' then lower(hex({name})) else cast({name} as text) end" for name in quoted)
    whole = " || ',' || ".join(f"quote({name})" for name in quoted)
    return literals, f" group by {spelt} having count(distinct {whole}) > 1 limit 1"


def get_declared_type(declared: str) -> pa.DataType:
    """The type that a column is to have if every value fits it."""
    return _get_declared_type(declared.upper()) or arrow_types.TEXT


def read_types(row: Sequence[Any], columns: Sequence[tuple[str, str]]) -> dict[str, pa.DataType]:
    """Turn the answer to `build_facts_sql` into a type per column.

    Args:
        columns: name and declared type, in the order asked.
    """
    answers, types = iter(row), {}
    for name, declared in columns:
        facts = {fact: bool(next(answers)) for fact in _get_facts(declared)}
        types[name] = _choose_type(declared, facts)
    return types


def _get_misfit(kind: pa.DataType) -> str:
    """A condition that holds for a value that the type cannot carry; cheap where all fit."""
    if pa.types.is_decimal(kind):
        # A text or blob compares as greater than any number.
        limit = "9" * (kind.precision - kind.scale) + "." + "9" * kind.scale
        return f"{{c}} not between -{limit} and {limit} or round({{c}}, {kind.scale}) <> {{c}}"
    # For types that SQLite's values never have directly (a time of day, JSON), every value counts as a misfit.
    return f"{{c}} is not null and ({_MISFITS.get(kind, 'true')})"


def _get_facts(declared: str) -> dict[str, str]:
    wanted = _get_declared_type(declared.upper())
    facts = {**_STORAGE, "big": _BIG}
    if wanted == arrow_types.TIMESTAMP:
        facts["unzoned"] = _MISFITS[arrow_types.TIMESTAMP_UTC]
    if wanted is not None:
        facts["misfit"] = _get_misfit(wanted)
    return facts


def _choose_type(declared: str, facts: dict[str, bool]) -> pa.DataType:
    """The type that carries every current value; an empty column gets the declared type."""
    wanted = _get_declared_type(declared.upper())
    if not any(facts[name] for name in _STORAGE):
        return wanted or arrow_types.TEXT
    if wanted is not None and not facts["misfit"]:
        return wanted
    if wanted == arrow_types.TIMESTAMP and not facts["unzoned"]:
        return arrow_types.TIMESTAMP_UTC
    if wanted == arrow_types.TEXT and facts["blobs"] and not (facts["texts"] or facts["integers"] or facts["reals"]):
        return arrow_types.BINARY
    if wanted == arrow_types.TEXT or facts["texts"] or (facts["blobs"] and (facts["integers"] or facts["reals"])):
        return arrow_types.TEXT
    if facts["blobs"]:
        return arrow_types.BINARY
    if not facts["reals"] and not _is_decimal(declared):
        return arrow_types.BIGINT
    return arrow_types.TEXT if facts["big"] else arrow_types.DOUBLE


def build_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Build a column from SQLite's values; one that does not fit the type stays beside the others, as text."""

    def build(part: Sequence[Any]) -> pa.Array:
        if kind in (arrow_types.BIGINT, arrow_types.BOOL):
            # Given the type, pyarrow silently turns 2.5 into 2; with an inferred type the cast fails.
            return _cast(pa.array(part).cast(arrow_types.BIGINT), kind)
        if kind == arrow_types.BINARY and any(isinstance(value, str) for value in part):
            raise TypeError("pyarrow would silently turn a text into bytes")
        if pa.types.is_decimal(kind):
            return _cast(pa.array(part, type=arrow_types.DOUBLE), kind)
        return _cast(pa.array(part, type=arrow_types.TEXT), kind) if pa.types.is_temporal(kind) else pa.array(part, type=kind)

    return build_column(values, kind, build, _write)


def carry(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast numbers and texts to the column's type, exactly; one that does not fit stays beside the others, as text."""
    try:
        return _cast(values, kind)
    except ARROW_MISFITS:
        return cast_texts(values.cast(arrow_types.TEXT), kind, lambda texts: _cast(texts.cast(values.type), kind))


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if kind == arrow_types.BOOL:
        bounds = pc.min_max(values).as_py()
        if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] <= 1:
            raise pa.ArrowInvalid("neither true nor false")
    if pa.types.is_decimal(kind):
        # Over the shortest text of the number: 0.1 is 0.10 then, and not 0.1000000000000000055.
        return values.cast(arrow_types.TEXT).cast(kind)
    return values.cast(kind)


def _get_declared_type(word: str) -> pa.DataType | None:
    """The type that a declaration means: first the words that SQLite has no storage class for, then its own rules of affinity."""
    if "BOOL" in word:
        return arrow_types.BOOL
    if "TIMESTAMP" in word or "DATETIME" in word:
        return arrow_types.TIMESTAMP
    if word == "DATE":
        return arrow_types.DATE
    if "INT" in word:
        return arrow_types.BIGINT
    if any(part in word for part in ("CHAR", "CLOB", "TEXT", "JSON", "UUID")):
        return arrow_types.TEXT
    if "BLOB" in word or "BINARY" in word:
        return arrow_types.BINARY
    if any(part in word for part in ("REAL", "FLOA", "DOUB")):
        return arrow_types.DOUBLE
    if ("DEC" in word or "NUMERIC" in word) and (match := _PRECISION.search(word)):
        precision, scale = int(match[1]), int(match[2] or 0)
        return pa.decimal128(precision, scale) if precision <= 15 and scale <= precision else None
    return None


def _is_decimal(declared: str) -> bool:
    return any(part in declared.upper() for part in ("DEC", "NUMERIC"))


def _write(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return (value.hex() if isinstance(value, bytes) else repr(value)).encode()
