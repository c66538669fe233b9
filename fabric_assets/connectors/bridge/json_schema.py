"""A stream's JSON Schema -> the types of its columns, as far as the schema decides them.

Only fields of one value get a type. Lists become tables and objects become columns by their values, as in every JSON source. A value that does not fit the
type is kept as text in a variant column, or as `schema_contract` says.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from fabric_assets.rows.arrow_types import BIGINT, BOOL, DATE, DOUBLE, TEXT, TIME, TIMESTAMP_UTC

_MOST_DIGITS = 38
_FORMATS = {"date-time": TIMESTAMP_UTC, "date": DATE}
_SIMPLE = {"integer": BIGINT, "number": DOUBLE, "boolean": BOOL, "string": TEXT}


def read_types(schema: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """Read the types of the top-level fields; a field without a single type is left out."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        return {}
    found = {name: _read_type(declared) for name, declared in properties.items()}
    return {name: kind for name, kind in found.items() if kind is not None}


def _read_type(declared: Any) -> pa.DataType | None:
    if not isinstance(declared, Mapping):
        return None
    kinds = {found for each in _list_alternatives(declared) for found in _list_types(each)}
    # `anyOf: [{string, date-time}, {string}]` is the habit of many taps: the more exact one counts, and a variant column keeps the others.
    dated = kinds & {*_FORMATS.values(), TIME}
    if len(dated) == 1 and kinds - dated <= {TEXT}:
        return next(iter(dated))
    if kinds == {BIGINT, DOUBLE}:
        return DOUBLE
    return next(iter(kinds)) if len(kinds) == 1 else None


def _list_alternatives(declared: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for word in ("anyOf", "oneOf"):
        if isinstance(alternatives := declared.get(word), list):
            return [each for each in alternatives if isinstance(each, Mapping)]
    return [declared]


def _list_types(declared: Mapping[str, Any]) -> list[pa.DataType | None]:
    words = declared.get("type")
    words = [words] if isinstance(words, str) else words if isinstance(words, list) else []
    return [_get_type(word, declared) for word in words if word != "null"]


def _get_type(word: Any, declared: Mapping[str, Any]) -> pa.DataType | None:
    """Return the type for a word of `type`; None for objects, lists and unknown words."""
    if word == "string":
        if declared.get("airbyte_type") in ("timestamp_without_timezone", "time_without_timezone"):
            return TEXT
        return _FORMATS.get(declared.get("format", ""), TEXT)
    if word in ("number", "integer") and declared.get("airbyte_type") == "integer":
        return BIGINT
    if word == "number" and (decimal := _read_decimal(declared)) is not None:
        return decimal
    return _SIMPLE.get(word)


def _read_decimal(declared: Mapping[str, Any]) -> pa.DataType | None:
    """Read `multipleOf: 1e-10`, by which taps say how many digits a number has after its point; None if it says no such thing."""
    step = declared.get("multipleOf")
    if not isinstance(step, int | float | str) or isinstance(step, bool):
        return None
    try:
        sign, digits, exponent = Decimal(str(step)).normalize().as_tuple()
    except InvalidOperation:
        return None
    if sign or digits != (1,) or not isinstance(exponent, int) or not -_MOST_DIGITS < exponent < 0:
        return None
    return pa.decimal128(_MOST_DIGITS, -exponent)
