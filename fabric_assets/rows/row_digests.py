"""Rows -> short digests. Equal rows have equal digests, whether read from a source or the warehouse, in any type of the values."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa

from fabric_assets.rows.arrow_types import JSON
from fabric_assets.rows.mixed_columns import list_values
from fabric_assets.rows.nested_types import SOURCE_JSON

_VARIANT = "__v_text"
_EXACT = Context(prec=100)


def digest_rows(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    """Yield a digest per row.

    Args:
        columns: of the table. A value that did not fit its column's type in the warehouse is read from the variant column.
    """
    values = [_list_values(table[name]) for name in columns]
    known = frozenset(table.column_names)
    for index, name in enumerate(columns):
        if f"{name}{_VARIANT}" in known:
            values[index] = [other if value is None else value for value, other in zip(values[index], table[f"{name}{_VARIANT}"].to_pylist(), strict=True)]
    for row in zip(*values, strict=True):
        text = json.dumps([_write(value) for value in row], ensure_ascii=False)
        yield hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def _list_values(column: Any) -> list[Any]:
    """List a column's values; JSON in one spelling, because writers differ in blanks and the order of keys."""
    values = list_values(column)
    return [_sort_keys(value) for value in values] if column.type in (JSON, SOURCE_JSON) else values


def _sort_keys(text: str | None) -> str | None:
    try:
        return None if text is None else json.dumps(json.loads(text, parse_float=str), sort_keys=True)
    except (ValueError, RecursionError):
        return text


def _write(value: Any) -> str | None:
    if isinstance(value, list):
        return json.dumps([_write(item) for item in value], ensure_ascii=False)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | float | Decimal):
        return _write_number(value)
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(UTC)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def _write_number(value: float | Decimal) -> str:
    """Write a number in one spelling: 1, 1.0 and 1.00 are equal."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return format(exact.normalize(_EXACT), "f") if exact.is_finite() else str(exact)
