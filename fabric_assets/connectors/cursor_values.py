"""A cursor's values: which ones can be compared and remembered, how they are written, and which ones lie in the future."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows import arrow_types

# The range of Python's datetime and date. A value beyond it, such as Postgres's infinity, is not usable.
_TIMESTAMPS = (-62_135_596_800_000_000, 253_402_300_799_999_999)
_DAYS = (-719_162, 2_932_896)


def encode(value: Any) -> str:
    """Write a cursor value so that `decode` reads the same one."""
    return value.isoformat() if isinstance(value, date) else repr(value) if isinstance(value, float) else str(value)


def decode(text: str, kind: pa.DataType) -> Any:
    """Read a cursor value.

    Raises:
        ValueError, InvalidOperation: the text is not of that type.
    """
    if pa.types.is_timestamp(kind):
        value = datetime.fromisoformat(text)
        if kind.tz:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if pa.types.is_date(kind):
        return datetime.fromisoformat(text).date()
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_floating(kind):
        return float(text)
    return int(text) if pa.types.is_integer(kind) else text


def is_ordered(kind: pa.DataType) -> bool:
    return (
        kind == arrow_types.TEXT
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_decimal(kind)
        or kind in (arrow_types.BIGINT, arrow_types.DOUBLE)
    )


def can_follow(before: str, now: pa.DataType) -> bool:
    """Whether a value of the earlier type can be read as this type: the same type, or a wider number."""
    return before == str(now) or (pa.types.is_decimal(now) and (before == str(arrow_types.BIGINT) or before.startswith("decimal")))


def find_usable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """True where a value can be compared and remembered: not NULL, NaN or infinite."""
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.fill_null(pc.is_finite(column), False)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        lowest, highest = _DAYS if pa.types.is_date(kind) else _TIMESTAMPS
        raw = column.cast(pa.int32() if pa.types.is_date(kind) else pa.int64())
        return pc.fill_null(pc.and_(pc.greater_equal(raw, lowest), pc.less_equal(raw, highest)), False)
    return pc.is_valid(column)


def describe_if_ahead(value: Any) -> str | None:
    """Describe what a cursor value in the future does; None for other values. Tomorrow may be today in another zone."""
    day = value.date() if isinstance(value, datetime) else value
    if not isinstance(day, date) or day <= (datetime.now(UTC) + timedelta(days=1)).date():
        return None
    remedy = "correct it at the source, or leave its row out, then load with --full-refresh"
    return f"{encode(value)}, which lies in the future: until then no row with an earlier value is loaded; {remedy}"
