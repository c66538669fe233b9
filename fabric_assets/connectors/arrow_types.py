"""Any Arrow batch -> the few Arrow types that every destination carries without losing a value.

A stream keeps the type that its column got in its first load: dlt hands Arrow data to the destination as it is, and a
destination coerces what does not fit (1.5 becomes 2 in a bigint column). So a batch is cast to the kept type here, exactly,
or refused with the column's name.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import DataError

MAX_PRECISION = 38

BOOL, BIGINT, DOUBLE, TEXT, BINARY = pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.binary()
DATE, TIME, TIMESTAMP, TIMESTAMP_UTC = pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.timestamp("us", tz="UTC")

_NAMED = {str(kind): kind for kind in (BOOL, BIGINT, DOUBLE, TEXT, BINARY, DATE, TIME, TIMESTAMP, TIMESTAMP_UTC)}

# Postgres timestamps reach from 4713 BC to 294276 AD; what lies beyond is its infinity, which no column here can hold.
_EARLIEST, _LATEST = -220_000_000_000_000_000, 9_224_318_016_000_000_000
_EARLIEST_DAY, _LATEST_DAY = -2_600_000, 106_751_991


def get_type(name: str) -> pa.DataType:
    """Turn `str(type)` of one of our types back into the type."""
    if name in _NAMED:
        return _NAMED[name]
    precision, scale = name.removeprefix("decimal128(").removesuffix(")").split(",")
    return pa.decimal128(int(precision), int(scale))


def get_carried_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that carries `kind`'s values; None where they are to be written as JSON text."""
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return TEXT
    if pa.types.is_dictionary(kind):
        return get_carried_type(kind.value_type)
    if pa.types.is_boolean(kind):
        return BOOL
    if pa.types.is_uint64(kind):
        return pa.decimal128(20, 0)
    if pa.types.is_integer(kind):
        return BIGINT
    if pa.types.is_floating(kind):
        return DOUBLE
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= MAX_PRECISION and 0 <= kind.scale <= kind.precision else TEXT
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return BINARY
    if pa.types.is_date(kind):
        return DATE
    if pa.types.is_time(kind):
        return TIME
    if pa.types.is_timestamp(kind):
        return TIMESTAMP_UTC if kind.tz else TIMESTAMP
    return None


def build_array(values: Any, kind: pa.DataType, *, place: str, column: str) -> pa.Array:
    """Build a column from Python values, or refuse with its name.

    Raises:
        DataError: a value does not fit the type exactly.
    """
    try:
        if kind == BIGINT:
            # With a type given pyarrow makes 2 of 2.5 without a word; inferred and then cast it refuses.
            return pa.array(values).cast(kind)
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError) as error:
        raise build_misfit_error(place, column, kind, str(error)) from None


def build_misfit_error(place: str, column: str, kind: pa.DataType, reason: str) -> DataError:
    text = reason.splitlines()[0][:200] if reason else "it does not fit"
    return DataError(
        f"{place}: column {column} holds a value that its type {kind} cannot carry: {text}",
        remedy="correct the value at the source, leave the column out, or load the stream anew with --full-refresh so that its type is chosen again",
    )


def conform(batch: pa.RecordBatch | pa.Table, types: Mapping[str, pa.DataType], *, place: str) -> pa.Table:
    """Cast a batch to the carried types and to those that the stream's columns already have.

    Args:
        types: column -> the type kept from earlier batches and loads.

    Raises:
        DataError: a value would be changed by the cast.
    """
    columns = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        kind = types.get(field.name) or get_carried_type(field.type) or TEXT
        columns[field.name] = cast_exactly(column, kind, place=place, name=field.name)
    return pa.table(columns) if columns else pa.table(batch)


def cast_exactly(column: Any, kind: pa.DataType, *, place: str, name: str) -> Any:
    """Cast a column without changing a value.

    Raises:
        DataError: a value would be changed.
    """
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    if get_carried_type(column.type) is None:
        column = pa.array([to_json(value) for value in column.to_pylist()], type=TEXT)
    try:
        if kind == TEXT and not _is_text(column.type):
            result = _to_text(column)
        elif pa.types.is_floating(column.type) and pa.types.is_integer(kind):
            raise pa.ArrowInvalid("a number with a fraction part")
        elif pa.types.is_floating(column.type) and pa.types.is_decimal(kind):
            result = column.cast(pa.string()).cast(kind)
        elif _is_text(column.type) and kind in (BOOL, DOUBLE, BIGINT):
            raise pa.ArrowInvalid("a text")
        elif pa.types.is_timestamp(column.type) and pa.types.is_timestamp(kind) and bool(column.type.tz) != bool(kind.tz):
            raise pa.ArrowInvalid("timestamps with and without a time zone")
        else:
            result = column if column.type == kind else column.cast(kind, safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise build_misfit_error(place, name, kind, str(error)) from None
    _refuse_infinity(result, place=place, name=name)
    return result


def to_json(value: Any) -> str | None:
    """Write a nested value as JSON, its numbers, dates and bytes kept exact."""
    return None if value is None else json.dumps(_plain(value), ensure_ascii=False, default=_encode)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _encode(value: Any) -> Any:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind) or pa.types.is_dictionary(kind)


def _to_text(column: Any) -> pa.Array:
    if pa.types.is_binary(column.type):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], type=TEXT)
    if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        return column.cast(TEXT)
    return pa.array([None if value is None else _as_text(value) for value in column.to_pylist()], type=TEXT)


def _as_text(value: Any) -> str:
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)


def _refuse_infinity(column: Any, *, place: str, name: str) -> None:
    if pa.types.is_timestamp(column.type):
        raw, earliest, latest = column.cast(pa.int64()), _EARLIEST, _LATEST
    elif pa.types.is_date32(column.type):
        raw, earliest, latest = column.cast(pa.int32()), _EARLIEST_DAY, _LATEST_DAY
    else:
        return
    bounds = pc.min_max(raw).as_py()
    if bounds["min"] is not None and (bounds["min"] < earliest or bounds["max"] > latest):
        raise build_misfit_error(place, name, column.type, "an infinite date")
