"""A SQLite column's declared type and the values that it really holds -> the Arrow type that carries all of them.

SQLite types values, not columns: an INTEGER column may hold a text. So before a stream's first load one query asks what each
column holds, and the declared type is taken only if every value fits it; else the nearest type that loses nothing.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.connectors import arrow_types

_DIGITS = "[0-9]"
_DATE = "-".join([_DIGITS * 4, _DIGITS * 2, _DIGITS * 2])
_TIME = ":".join([_DIGITS * 2] * 3)
_PRECISION = re.compile(r"\((\d+)(?:\s*,\s*(\d+))?\)")
_SAFE_INTEGER = 2**53

_STORAGE = {
    "texts": "typeof({c}) = 'text'",
    "integers": "typeof({c}) = 'integer'",
    "reals": "typeof({c}) = 'real'",
    "blobs": "typeof({c}) = 'blob'",
}
_BIG = f"typeof({{c}}) = 'integer' and {{c}} not between -{_SAFE_INTEGER} and {_SAFE_INTEGER}"
# Adding no days turns the 31st of February into what it is: another day.
_NO_DAY = "date(substr({c}, 1, 10), '+0 days') is not substr({c}, 1, 10)"
_NO_CLOCK = f"typeof({{c}}) <> 'text' or substr({{c}}, 1, 19) not glob '{_DATE}[T ]{_TIME}' or datetime({{c}}) is null or {_NO_DAY}"
_MISFITS = {
    arrow_types.BOOL: "typeof({c}) <> 'integer' or {c} not in (0, 1)",
    arrow_types.DATE: f"typeof({{c}}) <> 'text' or {{c}} not glob '{_DATE}' or {_NO_DAY}",
    arrow_types.TIMESTAMP: (
        f"{_NO_CLOCK} or length({{c}}) > 26 or substr({{c}}, 20) glob '*[^0-9.]*' or substr({{c}}, 20) glob '[^.]*' or substr({{c}}, 20) = '.'"
    ),
    arrow_types.TIMESTAMP_UTC: f"{_NO_CLOCK} or length({{c}}) > 32 or not ({{c}} glob '*Z' or {{c}} glob '*[+-][0-9][0-9]:[0-9][0-9]')",
}


def build_misfit_sql(columns: Sequence[tuple[str, str]]) -> str:
    """A condition that holds for any row with a value that its column's declaration does not fit: one cheap scan says that all fit.

    Args:
        columns: quoted name and declared type.
    """
    return " or ".join(f"({_get_misfit(declared)})".replace("{c}", quoted) for quoted, declared in columns)


def build_facts_sql(columns: Sequence[tuple[str, str]]) -> str:
    """The select list that asks, for each column and each of its facts, whether any row has it; for a table with misfits."""
    return ", ".join(f"max({{c}} is not null and ({fact}))".replace("{c}", quoted) for quoted, declared in columns for fact in _get_facts(declared).values())


def get_declared_type(declared: str) -> pa.DataType:
    """The type where no value is a misfit."""
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


def _get_misfit(declared: str) -> str:
    wanted = _get_declared_type(declared.upper())
    if wanted is None:
        return "{c} is not null"
    if pa.types.is_decimal(wanted):
        return f"typeof({{c}}) in ('text', 'blob') or round({{c}}, {wanted.scale}) <> {{c}} or abs({{c}}) >= 1e{wanted.precision - wanted.scale}"
    if wanted in _MISFITS:
        return f"{{c}} is not null and ({_MISFITS[wanted]})"
    return {
        arrow_types.BIGINT: "typeof({c}) not in ('integer', 'null')",
        arrow_types.TEXT: "typeof({c}) not in ('text', 'null')",
        arrow_types.BINARY: "typeof({c}) not in ('blob', 'null')",
        arrow_types.DOUBLE: f"typeof({{c}}) not in ('real', 'null') and (typeof({{c}}) <> 'integer' or {_BIG})",
    }[wanted]


def _get_facts(declared: str) -> dict[str, str]:
    wanted = _get_declared_type(declared.upper())
    facts = {**_STORAGE, "big": _BIG}
    if wanted == arrow_types.TIMESTAMP:
        facts["unzoned"] = _MISFITS[arrow_types.TIMESTAMP_UTC]
    if wanted is not None:
        facts["misfit"] = _get_misfit(declared)
    return facts


def _choose_type(declared: str, facts: dict[str, bool]) -> pa.DataType:
    """The type that carries every value that is there now; an empty column gets the declared one."""
    wanted = _get_declared_type(declared.upper())
    if not any(facts[name] for name in _STORAGE):
        return wanted or arrow_types.TEXT
    if wanted is not None and not facts["misfit"]:
        return wanted
    if wanted == arrow_types.TIMESTAMP and not facts["unzoned"]:
        return arrow_types.TIMESTAMP_UTC
    if wanted == arrow_types.TEXT or facts["texts"] or (facts["blobs"] and (facts["integers"] or facts["reals"])):
        return arrow_types.TEXT
    if facts["blobs"]:
        return arrow_types.BINARY
    if not facts["reals"] and not _is_decimal(declared):
        return arrow_types.BIGINT
    return arrow_types.TEXT if facts["big"] else arrow_types.DOUBLE


def build_array(values: Sequence[Any], kind: pa.DataType, *, place: str, column: str) -> pa.Array:
    """Build a column from SQLite's values.

    Raises:
        DataError: a value does not fit the type that the stream's column has.
    """
    try:
        if kind == arrow_types.TEXT:
            return _build_text(values)
        if kind == arrow_types.BOOL:
            return _build_flags(values)
        if pa.types.is_decimal(kind):
            # Over the shortest text of the number: 0.1 is 0.10 then, and not 0.1000000000000000055.
            return pa.array(values, type=pa.float64()).cast(pa.string()).cast(kind)
        if pa.types.is_temporal(kind):
            return arrow_types.cast_exactly(pa.array(values, type=pa.string()), kind, place=place, name=column)
        return arrow_types.build_array(values, kind, place=place, column=column)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise arrow_types.build_misfit_error(place, column, kind, str(error)) from None


def _build_text(values: Sequence[Any]) -> pa.Array:
    try:
        return pa.array(values, type=arrow_types.TEXT)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([value if value is None or isinstance(value, str) else _write(value) for value in values], type=arrow_types.TEXT)


def _build_flags(values: Sequence[Any]) -> pa.Array:
    flags = pa.array(values).cast(arrow_types.BIGINT)
    bounds = pc.min_max(flags).as_py()
    if bounds["min"] is not None and not 0 <= bounds["min"] <= bounds["max"] <= 1:
        raise pa.ArrowInvalid(f"{bounds['max']} is neither 0 nor 1")
    return flags.cast(arrow_types.BOOL)


def _get_declared_type(word: str) -> pa.DataType | None:
    """SQLite's own rules of affinity, after the words that it has no storage class for."""
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


def _write(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else repr(value)
