"""A column's values -> the same values in another type if they fit it exactly; the others become NULL and are marked.

A value fits exactly if nothing is lost: 3.0 fits a bigint and 3.5 does not, '12' fits and '007' does not.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from collections.abc import Callable
from datetime import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows import arrow_types
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.rows.mixed_columns import convert_in_halves
from fabric_assets.rows.nested_types import is_list, map_lists, parse_json, read_lists, simplify_list, spell_spans, write_json
from fabric_assets.rows.value_forms import CURRENT

Column = Any  # pa.Array | pa.ChunkedArray
_Cast = Callable[[Column], Column]

_DAY = r"\d{4}-\d{2}-\d{2}"
_CLOCK = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
_ZONE = r"(Z|[+-]\d{2}(:?\d{2})?)"
_WHOLE = r"(0|-?[1-9][0-9]{0,18})"
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"

# No double beyond this is a bigint; -2^63 itself is left out for symmetry.
_BIGINT_END = float(2**63)
# A double keeps every decimal of this many digits.
_DOUBLE_DIGITS = 15


def plain(column: Column, *, value_forms: int = CURRENT) -> Column:
    """Unwrap an array's values: extension types, dictionaries, views and wide offsets, also within lists."""
    if isinstance(column.type, pa.BaseExtensionType):
        if column.type.extension_name == "arrow.uuid" and value_forms >= 2:
            return _spell_uuids(column)
        column = column.cast(column.type.storage_type)
    kind = column.type
    if kind in (BIGINT, DOUBLE):
        return column
    if pa.types.is_duration(kind) and value_forms >= 2:
        return arrow_types.spell_times(column)
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type), value_forms=value_forms)
    if pa.types.is_nested(kind) and value_forms >= 2:
        if is_list(kind):
            return simplify_list(column if pa.types.is_time(kind.value_type) else spell_spans(column), plain)
        return spell_spans(column)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(TEXT)
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(BINARY)
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return column.cast(BIGINT)
    return column.cast(DOUBLE) if pa.types.is_floating(kind) else column


def fit(column: Column, kind: pa.DataType, *, naive_is_utc: bool = False) -> tuple[Column, Column | None]:
    """Cast a plain column to a type.

    Args:
        naive_is_utc: a text without a time zone is a time in UTC.

    Returns:
        The column in the type, NULL where a value does not fit. And a mask of the values that do not fit; None if all fit.
    """
    if column.type == kind:
        return column, None
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind), None
    cast = _find_cast(column.type, kind, naive_is_utc)
    values = convert_in_halves(column, kind, cast) if cast else pa.nulls(len(column), kind)
    if values.null_count == column.null_count:
        return values, None
    return values, pc.and_(column.is_valid(), pc.invert(values.is_valid()))


def _find_cast(source: pa.DataType, kind: pa.DataType, naive_is_utc: bool) -> _Cast | None:
    """Find the function that casts; for a value that does not fit it raises or returns NULL. None if no value can fit."""
    if kind == TEXT:
        return arrow_types.to_text
    if kind == JSON:
        return parse_json if source == TEXT else write_json
    if pa.types.is_list(kind):
        return _find_list_cast(source, kind)
    if source == TEXT:
        return _find_text_cast(kind, naive_is_utc)
    if pa.types.is_decimal(kind):
        if source == DOUBLE:
            return lambda column: _from_double_to_decimal(column, kind)
        return _find_decimal_cast(kind) if pa.types.is_decimal(source) or pa.types.is_integer(source) else None
    for sources, target, cast in _CASTS:
        if target == kind and sources(source):
            return cast
    return None


def _spell_uuids(column: Column) -> Column:
    hexes = (None if value is None else value.hex() for value in column.cast(pa.binary(16)).to_pylist())
    return pa.array([None if text is None else f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" for text in hexes], TEXT)


def _find_list_cast(source: pa.DataType, kind: Any) -> _Cast | None:
    """Find the function that casts lists: a list fits if all its values fit."""
    if source == TEXT:
        return lambda column: _fit_values(read_lists(column), kind)
    return (lambda column: _fit_values(column, kind)) if pa.types.is_list(source) else None


def _fit_values(column: Column, kind: Any) -> Column:
    def convert(values: Column) -> Column:
        fitted, misfits = fit(values, kind.value_type)
        if misfits is not None:
            raise pa.ArrowInvalid("a value of a list does not fit")
        return fitted

    return map_lists(column, convert)


def _safely(kind: pa.DataType) -> _Cast:
    return lambda column: column.cast(kind, safe=True)


def _there_and_back(kind: pa.DataType) -> _Cast:
    def cast(column: Column) -> Column:
        there = column.cast(kind, safe=False)
        same = pc.equal(there.cast(column.type, safe=False), column)
        if DOUBLE in (kind, column.type):
            same = pc.and_(same, pc.less(pc.abs(column if column.type == DOUBLE else there), _BIGINT_END))
        return _keep(there, same)

    return cast


def _from_decimal_to_double(column: Column) -> Column:
    # Cast via text: Arrow's own cast turns 0.10 into 0.09999999999999999.
    there = column.cast(TEXT).cast(DOUBLE)
    return _keep(there, pc.equal(convert_in_halves(there.cast(TEXT), column.type, _safely(column.type)), column))


def _from_double_to_decimal(column: Column, kind: pa.DataType) -> Column:
    there = _find_decimal_cast(kind)(column)
    # Arrow silently makes another number of one whose exponent is too large.
    return _keep(there, pc.equal(there.cast(TEXT).cast(DOUBLE), column))


def _from_decimal_to_bigint(column: Column) -> Column:
    return _keep(column, pc.match_substring_regex(column.cast(TEXT), r"^-?[0-9]{1,19}(\.0*)?$")).cast(BIGINT)


def _find_decimal_cast(kind: Any) -> _Cast:
    before = f"(0|[1-9][0-9]{{0,{kind.precision - kind.scale - 1}}})" if kind.precision > kind.scale else "0"
    after = rf"(\.[0-9]{{1,{kind.scale}}}0*)?" if kind.scale else r"(\.0*)?"
    # The cast itself checks numbers with an exponent, as doubles and small decimals are spelt.
    pattern = f"^-?({before}{after}|[0-9.]+[eE][+-]?[0-9]+)$"
    return lambda column: _matching(column.cast(TEXT), pattern, kind)


def _find_text_cast(kind: pa.DataType, naive_is_utc: bool) -> _Cast | None:
    if kind == TIMESTAMP_UTC and naive_is_utc:
        return lambda column: _matching(_append_zone(column), _TEXTS[kind], kind)
    if kind == TIME:
        return lambda column: pa.array([_read_time(value) for value in column.to_pylist()], TIME)
    if kind == BOOL:
        return lambda column: _keep(column, pc.is_in(column, pa.array(["true", "false"]))).cast(BOOL)
    if kind == DOUBLE:
        return _from_text_to_double
    if pa.types.is_decimal(kind):
        cast = _find_decimal_cast(kind)
        return lambda column: cast(_keep(column, pc.match_substring_regex(column, f"^{_NUMBER}$")))
    pattern = _TEXTS.get(kind)
    return (lambda column: _matching(column, pattern, kind)) if pattern else None


def _from_text_to_double(column: Column) -> Column:
    digits = pc.utf8_ltrim(pc.replace_substring_regex(column, r"[^0-9]", ""), "0")
    return _keep(_matching(column, f"^{_NUMBER}$", DOUBLE), pc.less_equal(pc.utf8_length(digits), _DOUBLE_DIGITS))


def _matching(column: Column, pattern: str, kind: pa.DataType) -> Column:
    return _keep(column, pc.match_substring_regex(column, pattern)).cast(kind)


def _append_zone(column: Column) -> Column:
    return pc.if_else(pc.match_substring_regex(column, _TEXTS[TIMESTAMP]), pc.binary_join_element_wise(column, "Z", ""), column)


def _keep(column: Column, condition: Column) -> Column:
    return pc.if_else(condition, column, pa.scalar(None, column.type))


def _read_time(value: str | None) -> time | None:
    try:
        return time.fromisoformat(value) if value is not None and re.fullmatch(_CLOCK, value, re.ASCII) else None
    except ValueError:
        return None


_TEXTS = {
    BIGINT: f"^{_WHOLE}$",
    DATE: f"^{_DAY}$",
    TIMESTAMP: f"^{_DAY}[T ]{_CLOCK}$",
    TIMESTAMP_UTC: f"^{_DAY}[T ]{_CLOCK}{_ZONE}$",
}


def _is_naive_timestamp(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is None


def _is_zoned_timestamp(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


_CASTS: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType, _Cast], ...] = (
    (pa.types.is_uint64, BIGINT, lambda column: _keep(column, pc.less_equal(column, pa.scalar(2**63 - 1, column.type))).cast(BIGINT)),
    (pa.types.is_decimal, BIGINT, _from_decimal_to_bigint),
    (pa.types.is_floating, BIGINT, _there_and_back(BIGINT)),
    (pa.types.is_integer, DOUBLE, _there_and_back(DOUBLE)),
    (pa.types.is_decimal, DOUBLE, _from_decimal_to_double),
    (pa.types.is_date, DATE, _safely(DATE)),
    (_is_naive_timestamp, DATE, _there_and_back(DATE)),
    (pa.types.is_time, TIME, _there_and_back(TIME)),
    (pa.types.is_date, TIMESTAMP, _safely(TIMESTAMP)),
    (_is_naive_timestamp, TIMESTAMP, _there_and_back(TIMESTAMP)),
    (_is_zoned_timestamp, TIMESTAMP_UTC, _there_and_back(TIMESTAMP_UTC)),
)
