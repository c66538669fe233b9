"""Texts -> values of a type, a column at a time. Texts that are not spelt plainly are read by `csv_import/values.py`, once per distinct text."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.imports import NUMBERS, ImportColumn
from fabric_assets.connectors.csv_import.values import (
    BadCell,
    Number,
    as_bigint,
    as_date,
    as_decimal,
    as_double,
    as_timestamp,
    parse_bool,
    parse_moment,
    parse_number,
    quote,
)

_ISO = "%Y-%m-%d"
_FIRST_DAY, _DAY = -719_162, 86_400_000_000
# In RE2's syntax, which matches in linear time. Digits with or without groups of three.
_PLAIN = {
    ".": r"\A[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:,[0-9]{3})+)(?:\.[0-9]*)?\z",
    ",": r"\A[+-]?(?:[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3})+)(?:,[0-9]*)?\z",
}
# A workbook's whole number that a float cannot hold, as the worker spells it; its last digits are lost.
_ROUNDED = r"\A-?[0-9.]+(?:e\+[0-9]+|\.0)\z"
# What a spreadsheet writes into a CSV for a number that does not fit its narrow column: 4.90123E+12.
_MANGLED = r"\A\s*[+-]?[0-9](?:[.,][0-9]+)?E\+[0-9]{2,3}\s*\z"
_DROPPED_DIGITS = BadCell("too_many_digits", "a spreadsheet wrote the number with an exponent and without its last digits: store it as text")
_TOO_MANY_DIGITS = BadCell("too_many_digits", "the number has more digits than a spreadsheet keeps: store it as text in the workbook")


@dataclass
class Reading:
    """The values of a batch; null for an empty or bad cell.

    Args:
        faults: row -> why its cell is bad.
        percents: rows whose number was a percentage.
        currencies: row -> the sign beside its number.
    """

    values: pa.Array
    faults: dict[int, BadCell] = field(default_factory=dict)
    percents: set[int] = field(default_factory=set)
    currencies: dict[int, str] = field(default_factory=dict)


def read_column(texts: pa.Array, natives: pa.Array | None, column: ImportColumn, kind: pa.DataType, mark: str | None, *, is_key: bool = False) -> Reading:
    """Read a column.

    Args:
        is_key: its values identify rows, so that a value without its last digits would be another row's.
        natives: which cells were numbers or dates in a workbook: their decimal mark is a dot, and their dates are ISO dates.
        mark: the decimal mark of the other cells; None if it is not known.
    """
    if natives is not None and column.type in ("text", "bigint"):
        rounded = pc.fill_null(pc.and_(natives, pc.match_substring_regex(texts, _ROUNDED)), False)
        if pc.any(rounded).as_py():
            kept = read_column(pc.if_else(rounded, None, texts), natives, column, kind, mark)
            return replace(kept, faults=kept.faults | dict.fromkeys(pc.indices_nonzero(rounded).to_pylist(), _TOO_MANY_DIGITS))
    if is_key or column.type == "bigint":
        mangled = pc.fill_null(pc.match_substring_regex(texts, _MANGLED), False)
        if pc.any(mangled).as_py():
            kept = read_column(pc.if_else(mangled, None, texts), natives, column, kind, mark)
            return replace(kept, faults=kept.faults | dict.fromkeys(pc.indices_nonzero(mangled).to_pylist(), _DROPPED_DIGITS))
    if column.type == "text":
        return Reading(texts)
    if natives is None or not pc.any(natives).as_py():
        return _read(texts, column, kind, mark, native=False)
    one = _read(pc.if_else(natives, None, texts), column, kind, mark, native=False)
    other = _read(pc.if_else(natives, texts, None), column.model_copy(update={"formats": ()}), kind, ".", native=True)
    values = pc.coalesce(one.values, other.values)
    return Reading(values, one.faults | other.faults, one.percents | other.percents, one.currencies | other.currencies)


def _read(texts: pa.Array, column: ImportColumn, kind: pa.DataType, mark: str | None, *, native: bool) -> Reading:
    values = None if native and column.type == "decimal" else _cast_all(texts, column, kind, mark)
    if values is not None:
        return Reading(values)
    values, rest = pa.nulls(len(texts), kind), pc.is_valid(texts)
    if column.type in NUMBERS and mark and not native:
        plain = _cast_plain(texts, kind, mark)
        if plain is not None:
            values, rest = plain, pc.and_(rest, pc.is_null(plain))
    return _read_rest(values, texts, rest, _build_parser(column, mark, native=native))


def _cast_all(texts: pa.Array, column: ImportColumn, kind: pa.DataType, mark: str | None) -> pa.Array | None:
    """Cast all texts at once; None unless each is the plain spelling of a value."""
    if column.type in NUMBERS:
        if column.type == "bigint" and _has(texts, "x", ignore_case=True):
            return None
        if column.type != "bigint" and mark != "." and _has(texts, "."):
            return None
        values = _try_cast(texts, kind)
        if values is not None and column.type == "double" and not pc.all(pc.is_finite(values)).as_py() and len(values) > values.null_count:
            return None
        return values
    if column.type == "date" and (not column.formats or (_ISO in column.formats and not any(each.startswith("%Y-%d") for each in column.formats))):
        return _try_cast(texts, kind)
    if column.type == "timestamp" and not column.formats:
        if column.timezone is None:
            return _try_cast(texts, kind)
        values = _try_cast(texts, pa.timestamp("us"))
        return None if values is None else _localize(values, column.timezone)
    return None


def _has(texts: pa.Array, part: str, *, ignore_case: bool = False) -> bool:
    return bool(pc.any(pc.match_substring(texts, part, ignore_case=ignore_case)).as_py())


def _try_cast(texts: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        values = texts.cast(kind)
    except pa.ArrowInvalid:
        return None
    if pa.types.is_temporal(kind):
        # Arrow has a year 0, unlike Python and the calendar.
        first = pc.min(values.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())).as_py()
        if first is not None and first < _FIRST_DAY * (1 if pa.types.is_date32(kind) else _DAY):
            return None
    return values


def _localize(values: pa.Array, zone: str) -> pa.Array | None:
    try:
        return pc.assume_timezone(values, zone, ambiguous="raise", nonexistent="raise").cast(pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        return None


def _cast_plain(texts: pa.Array, kind: pa.DataType, mark: str) -> pa.Array | None:
    plain = pc.if_else(pc.match_substring_regex(texts, _PLAIN[mark]), texts, None)
    plain = pc.replace_substring(plain, "." if mark == "," else ",", "")
    plain = pc.replace_substring(plain, mark, ".")
    if pa.types.is_integer(kind):
        plain = pc.replace_substring_regex(plain, r"\A\+|\.0*\z", "")
    values = _try_cast(plain, kind)
    if values is not None and pa.types.is_floating(kind) and not pc.all(pc.is_finite(values)).as_py():
        return None
    return values


Parser = Callable[[str], tuple[Any, Number | None]]


def _build_parser(column: ImportColumn, mark: str | None, *, native: bool) -> Parser:
    scale = 9 if column.scale is None else column.scale
    if column.type == "bool":
        return lambda text: (parse_bool(text), None)
    if column.type == "date":
        return lambda text: (as_date(parse_moment(text, column.formats, kind="date"), text), None)
    if column.type == "timestamp":
        return lambda text: (as_timestamp(parse_moment(text, column.formats, kind="timestamp"), text, column.timezone), None)

    def parse(text: str) -> tuple[Any, Number | None]:
        if native and column.type == "decimal" and not text.lstrip("-").isdigit():
            # A workbook shows 15 digits; further ones come from binary fractions. Whole numbers are spelt as the workbook has them.
            try:
                text = f"{float(text):.15g}"
            except ValueError:
                raise BadCell("bad_number", f"{quote(text)} is a date, a time or a truth value in the workbook, and not a number") from None
        number = parse_number(text, mark)
        convert: dict[str, Callable[[Decimal], Any]] = {"bigint": as_bigint, "decimal": lambda value: as_decimal(value, scale), "double": as_double}
        return convert[column.type](number.value), number

    return parse


def _read_rest(values: pa.Array, texts: pa.Array, rest: pa.Array, parse: Parser) -> Reading:
    """Read the texts where `rest` is true, and insert them into the values."""
    reading = Reading(values)
    if not pc.any(rest).as_py():
        return reading
    encoded = texts.filter(rest).dictionary_encode()
    known: list[Any] = []
    odd: dict[int, BadCell | Number] = {}
    for index, text in enumerate(encoded.dictionary.to_pylist()):
        value = None
        try:
            value, number = parse(text)
            if number is not None and (number.percent or number.currency):
                odd[index] = number
        except BadCell as error:
            odd[index] = error
        known.append(value)
    found = pa.array(known, values.type).take(encoded.indices)
    reading.values = found if len(found) == len(values) else pc.replace_with_mask(values, rest, found)
    if odd:
        _note_odd(reading, odd, encoded.indices.to_pylist(), pc.indices_nonzero(rest).to_pylist())
    return reading


def _note_odd(reading: Reading, odd: dict[int, BadCell | Number], indices: list[int], rows: list[int]) -> None:
    for row, index in zip(rows, indices, strict=True):
        what = odd.get(index)
        if isinstance(what, BadCell):
            reading.faults[row] = what
        elif what is not None:
            if what.percent:
                reading.percents.add(row)
            if what.currency:
                reading.currencies[row] = what.currency
