"""Checks whether the values of a cursor grow with the age of its rows.

New rows must have higher values than those that are loaded. A flag, an enum or a word does not grow with time: rows whose value comes
before the highest one would never be loaded. Texts are compared letter by letter. That is the order of their age only for dates, times
and numbers with leading zeros.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import re
from dataclasses import dataclass
from typing import Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import DataError
from fabric_assets.rows import arrow_types

# From 20 rows on, a column with at most one value per 20 rows is a category, whose values new rows share with old ones.
_ENOUGH_ROWS, _ROWS_PER_VALUE = 20, 20
# With more values than this a column is not a category, however many rows there are.
_MANY_VALUES = 1_000
_SHOWN = 40
_DATE = r"\d{4}(-\d{2}(-\d{2})?|/\d{2}(/\d{2})?|\.\d{2}(\.\d{2})?|-W\d{2}(-\d)?|-\d{3}|-Q[1-4])"
_CLOCK = r"\d{2}(:\d{2}(:\d{2}([.,]\d{1,9})?)?)"
_ZONE = r" ?(Z|UTC|[+-]\d{2}(:?\d{2})?)"
_MOMENT = rf"{_DATE}([T ]{_CLOCK}({_ZONE})?)?"
_COMPACT = r"\d{8}T\d{2,6}(\.\d{1,9})?Z?"
# Versions 6 and 7 of UUID begin with their time.
_TIMED_ID = r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[67][0-9a-fA-F]{3}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}"
_ORDERED = f"^(?:{_MOMENT}|{_CLOCK}({_ZONE})?|{_COMPACT}|{_TIMED_ID}) *$"
_ZONED = rf"^{_DATE.replace('(', '(?:')}[T ]{_CLOCK.replace('(', '(?:')}(?P<zone>(?:{_ZONE.replace('(', '(?:')})?) *$"
_NUMBER = r"^\d+(\.\d+)? *$"


@dataclass
class _Texts:
    """Facts about the texts of one load.

    Args:
        width: the digits before the point that all numbers have; None before the first number.
        is_padded: one of them begins with a zero, or all are days such as 20240131.
        zones: of times with a date, as they are written.
    """

    width: int | None = None
    is_padded: bool = False
    zones: frozenset[str] = frozenset()


class CursorProof:
    """A check of a cursor's values while a load reads them.

    Args:
        is_new: the stream has never been loaded, so its load may be refused.
        where: tenant, source and stream, for messages.
        warnings: collects the findings that do not end the load.
    """

    def __init__(self, field: str, kind: pa.DataType, *, is_new: bool, where: str, warnings: list[str]) -> None:
        self._field, self._kind, self._is_new, self._where, self._warnings = field, kind, is_new, where, warnings
        self._texts = _Texts()
        self._is_warned = False
        self._rows = 0
        # The values of the first load; None if there is nothing to count.
        self._values: set[Any] | None = None

    def begin(self, last: Any) -> None:
        """Note the position of earlier loads; None in the first load."""
        if last is None and self._kind != arrow_types.TEXT and not pa.types.is_temporal(self._kind):
            self._values = set()
        elif is_number(last):
            self._texts = _Texts(get_width(last), is_padded=True)

    def refuse_declared(self, declared: str) -> None:
        """Refuse a cursor because of its column's type.

        Raises:
            DataError: the stream is new.
        """
        self._object(f"has the type {declared}, whose values do not grow with time")

    def check(self, column: pa.ChunkedArray) -> None:
        """Check a batch's values.

        Raises:
            DataError: the order of the texts is not that of their age, and the stream is new.
        """
        if self._is_warned:
            return
        if self._kind == arrow_types.TEXT:
            self._check_texts(column)
        elif self._values is not None:
            self._rows += len(column) - column.null_count
            values = pc.unique(column.drop_null())
            self._values = None if len(values) > _MANY_VALUES else self._values | set(values.to_pylist())

    def finish(self) -> None:
        """Check all values of the load together.

        Raises:
            DataError: as `check`.
        """
        if self._is_warned:
            return
        if self._texts.width is not None and not self._texts.is_padded:
            self._object("holds numbers as text, none of which begins with a zero: with one digit more, a new one looks old")
        elif self._values is not None and self._rows >= _ENOUGH_ROWS and len(self._values) * _ROWS_PER_VALUE <= self._rows:
            self._warnings.append(
                f"the cursor {self._field} has {_count(len(self._values), 'value')} in {self._rows:,} rows. New rows with a lower value are never loaded. "
                "Choose a column that grows with each row, such as a number or a time of the last change"
            )

    def _check_texts(self, column: pa.ChunkedArray) -> None:
        texts = column.drop_null()
        others = texts.filter(pc.invert(pc.match_substring_regex(texts, _ORDERED)))
        numbers = others.filter(pc.match_substring_regex(others, _NUMBER))
        if len(numbers) < len(others):
            odd = others.filter(pc.invert(pc.match_substring_regex(others, _NUMBER)))[0].as_py()
            self._object(f"holds {odd[:_SHOWN]!r}, which is not a date, a time or a number with leading zeros")
            return
        zones = pc.unique(pc.struct_field(pc.extract_regex(texts, _ZONED), "zone").drop_null()).to_pylist()
        self._texts.zones |= frozenset(zone.strip() for zone in zones)
        if len(self._texts.zones) > 1:
            first, second = sorted(self._texts.zones)[:2]
            self._object(f"holds times as text with the zones {first or 'none'} and {second or 'none'}, whose order is not that of the moments")
            return
        if not len(numbers):
            return
        widths = pc.utf8_length(pc.replace_substring_regex(numbers, r"\D.*$", ""))
        low, high = pc.min_max(widths).as_py().values()
        if low != high or self._texts.width not in (None, low):
            self._object(
                f"holds numbers as text of {min(low, self._texts.width or low)} and of {max(high, self._texts.width or high)} digits: 10 comes before 9"
            )
            return
        self._texts.width = low
        self._texts.is_padded |= bool(pc.any(pc.starts_with(numbers, "0")).as_py()) or (
            low in (8, 14) and bool(pc.all(pc.match_substring_regex(numbers, r"^(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")).as_py())
        )

    def _object(self, why: str) -> None:
        what = f"the cursor {self._field} {why}"
        remedy = (
            "choose a number, date or timestamp that grows with each new or changed row, or use replace. If new rows always come after the old ones, "
            f"say so: cursor: {{field: {self._field}, trust: true}}"
        )
        if self._is_new:
            raise DataError(f"{self._where}: {what}: rows with a lower value than the highest one would never be loaded", remedy=remedy)
        self._is_warned = True
        self._warnings.append(f"{what}: new rows with a lower value are never loaded. From the next minor version on such a load is refused; {remedy}")


def get_width(number: str) -> int:
    """The digits before the point."""
    return len(re.split(r"\D", number, maxsplit=1)[0])


def is_number(text: Any) -> TypeGuard[str]:
    """Whether a cursor's value is a number as text."""
    return isinstance(text, str) and re.match(_NUMBER, text) is not None


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
