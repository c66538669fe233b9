"""A source's Arrow types -> the few types that every destination stores without losing a value.

Values of any other type are written as JSON if they are nested, else as text.
"""

import json
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

import pyarrow as pa

MAX_PRECISION = 38

BOOL, BIGINT, DOUBLE, TEXT, BINARY = pa.bool_(), pa.int64(), pa.float64(), pa.string(), pa.binary()
DATE, TIME, TIMESTAMP, TIMESTAMP_UTC = pa.date32(), pa.time64("us"), pa.timestamp("us"), pa.timestamp("us", tz="UTC")

# JSON text, for the destination's own type; it differs from TEXT by its offsets only.
JSON = pa.large_string()
# The only spelling of a number that a numeric key accepts as text: 10.1, but not 10.10 or 1.01e1.
CANONICAL_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?"
# Whole numbers beyond 64 bits.
LARGE = pa.decimal128(MAX_PRECISION, 0)

# In microseconds and days since 1970. Postgres begins 4713 BC, DuckDB ends 294247 AD; both store infinity as a number beyond.
EARLIEST, LATEST = -210_866_803_200_000_000, 9_223_371_331_200_000_000
EARLIEST_DAY, LATEST_DAY = -2_440_588, 106_751_991
# Postgres counts from 2000: ADBC adds the difference, and a sum that is too large wraps around to the lowest numbers.
_POSTGRES_DAYS, _POSTGRES_MICROSECONDS = 10_957, 946_684_800_000_000
_INFINITE_DAYS = {
    2**31 - 1: "infinity",
    1 - 2**31: "-infinity",
    2**31 - 1 + _POSTGRES_DAYS - 2**32: "infinity",
    _POSTGRES_DAYS - 2**31: "-infinity",
}
_INFINITE_MICROSECONDS = {
    2**63 - 1: "infinity",
    1 - 2**63: "-infinity",
    2**63 - 1 + _POSTGRES_MICROSECONDS - 2**64: "infinity",
    _POSTGRES_MICROSECONDS - 2**63: "-infinity",
}
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_DAY = 86_400 * _NANOSECONDS["s"]

_WORDS = {
    BOOL: "bool",
    BIGINT: "bigint",
    DOUBLE: "double",
    TEXT: "text",
    BINARY: "binary",
    DATE: "date",
    TIME: "time",
    TIMESTAMP: "timestamp",
    TIMESTAMP_UTC: "timestamptz",
    JSON: "json",
}


def get_word(kind: pa.DataType) -> str:
    """Return the word for a type, as people read it."""
    if pa.types.is_list(kind):
        return f"{get_word(kind.value_type)}[]"
    return f"decimal({kind.precision},{kind.scale})" if pa.types.is_decimal(kind) else _WORDS.get(kind, str(kind))


def read_word(word: str) -> pa.DataType:
    """Return the type that `get_word` has given this word for."""
    if word.startswith("decimal("):
        precision, scale = word.removeprefix("decimal(").removesuffix(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return next(kind for kind, known in _WORDS.items() if known == word)


@lru_cache(maxsize=1_000)
def get_carried_type(kind: pa.DataType) -> pa.DataType | None:
    """Return the type that stores `kind`'s values; None if they are to be written as JSON text."""
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


def to_text(column: Any) -> Any:
    """Spell each value; nested ones as JSON."""
    kind = column.type
    if get_carried_type(kind) is None:
        return to_json_text(column)
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return column.cast(TEXT)
    if pa.types.is_time(kind):
        return spell_times(column)
    return pa.array([None if value is None else _spell(value) for value in to_python(column)], type=TEXT)


def spell_times(column: Any) -> pa.Array:
    """Spell times and durations by their numbers.

    Python has no times below zero, beyond a day or finer than microseconds; pyarrow converts some of these to wrong ones.
    """
    numbers = column.cast(pa.int32() if pa.types.is_time32(column.type) else pa.int64()).to_pylist()
    return pa.array([None if number is None else _spell_time(number * _NANOSECONDS[column.type.unit]) for number in numbers], type=TEXT)


def _spell_time(nanoseconds: int) -> str:
    seconds, rest = divmod(abs(nanoseconds), _NANOSECONDS["s"])
    fraction = f".{rest:09}" if rest % 1_000 else f".{rest // 1_000:06}" if rest else ""
    return f"{'-' if nanoseconds < 0 else ''}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{fraction}"


def to_json_text(column: Any) -> pa.Array:
    return pa.array([to_json(value) for value in to_python(column)], type=TEXT)


def to_python(column: Any) -> list[Any]:
    """List a column's values as Python objects; a time or text that Python cannot represent is spelt out."""
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [_to_python(value) for value in column]


def _to_python(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        if isinstance(value, pa.MapScalar):
            return [(_to_python(pair["key"]), _to_python(pair["value"])) for pair in value.values or ()]
        if isinstance(value, pa.StructScalar):
            # Two fields may have one name; then pairs keep both.
            pairs = [(field.name, _to_python(value[number])) for number, field in enumerate(value.type)]
            return dict(pairs) if len(dict(pairs)) == len(pairs) else pairs
        if pa.types.is_date(value.type) or pa.types.is_timestamp(value.type):
            return _spell_far(value)
        if pa.types.is_time(value.type) or pa.types.is_duration(value.type):
            return _spell_time(value.cast(pa.int64()).as_py() * _NANOSECONDS[value.type.unit])
        return [_to_python(item) for item in value.values] if hasattr(value, "values") else value.cast(BINARY).as_py().decode(errors="backslashreplace")


def _spell_far(value: Any) -> str:
    """Spell a date or timestamp that Python cannot represent; computed with the calendar's cycle of 400 years."""
    is_day = pa.types.is_date(value.type)
    number = value.cast(DATE).cast(pa.int32()).as_py() if is_day else value.cast(pa.int64()).as_py()
    unit = _DAY if is_day else _NANOSECONDS[value.type.unit]
    if is_day and number in _INFINITE_DAYS:
        return _INFINITE_DAYS[number]
    if not is_day and value.type.unit == "us":
        if number in _INFINITE_MICROSECONDS:
            return _INFINITE_MICROSECONDS[number]
        if number < _POSTGRES_MICROSECONDS - 2**63:
            number += 2**64
    cycles, rest = divmod(number * unit, 146_097 * _DAY)
    near = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=rest // 1_000)
    clock = "" if is_day else f" {near:%H:%M:%S}.{rest % 1_000_000_000:09}"
    return f"{near.year + 400 * cycles:04}{near:-%m-%d}{clock}" + ("+00:00" if not is_day and value.type.tz else "")


def _spell(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat(" ") if isinstance(value, datetime) else str(value)
