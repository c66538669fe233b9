"""The start of a cursor -> a SQL condition for the source's database, which never selects fewer rows than the exact comparison in Arrow."""

import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.cursor_proof import is_number
from fabric_assets.connectors.cursor_values import encode
from fabric_assets.connectors.sql_database.columns import SqlColumn, get_kind
from fabric_assets.rows import arrow_types

Bound = tuple[str, Any]
_POSTGRES_CASTS: dict[pa.DataType, str] = {
    arrow_types.TIMESTAMP: "timestamp",
    arrow_types.TIMESTAMP_UTC: "timestamptz",
    arrow_types.DATE: "date",
    arrow_types.DOUBLE: "float8",
}


def build_not_null(column: SqlColumn) -> Bound:
    return f"{column.sql} is not null", None


def build_bound(column: SqlColumn, start: Any, dialect: str, *, any_width: bool = False) -> Bound | None:
    """Build the condition of the rows from a start on.

    Args:
        start: where the cursor begins; None reads from the beginning.
        any_width: if the start is a number as text, also read those with another number of digits, whose order differs.

    Returns:
        a condition that contains `{value}`, and the value; it also selects rows without a usable cursor value.
    """
    if start is None:
        return None
    condition, value = _build_from(column, start, dialect)
    odd = f" or length({column.sql}) <> {len(start.rstrip())}" if any_width and is_number(start) and start.rstrip().isdigit() and dialect in _EXACT else ""
    return f"{condition}{_build_before_all(column, dialect)}{odd} or {column.sql} is null", value


def build_bound_again(column: SqlColumn, start: Any, dialect: str) -> Bound:
    """Build the condition of the rows from a start on; rows without a usable value have been read before."""
    return build_not_null(column) if start is None else _build_from(column, start, dialect)


def _build_from(column: SqlColumn, start: Any, dialect: str) -> Bound:
    return _BUILDERS.get(dialect, _build_plain)(column, start, get_kind(column) == arrow_types.TEXT)


def _build_before_all(column: SqlColumn, dialect: str) -> str:
    """The condition of values below all that a cursor can remember: minus infinity, years before 1, and invalid dates of some databases."""
    kind = get_kind(column)
    if dialect not in _EXACT:
        return ""
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return f" or {column.sql} < '0001-01-01'"
    return f" or {column.sql} < {-sys.float_info.max!r}" if kind == arrow_types.DOUBLE else ""


def _build_plain(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    return f"{column.sql if is_text else column.sql.removesuffix('::text')} >= {{value}}", start


def _build_postgres(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if is_text:
        # A char(n) loses its padding when it is compared with a text, but the remembered value has it.
        return f'{column.sql} collate "C" >= {{value}}', encode(start).rstrip(" ")
    return f"{column.sql.removesuffix('::text')} >= {{value}}::{_POSTGRES_CASTS.get(get_kind(column), 'numeric')}", encode(start)


def _build_mysql(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if isinstance(start, datetime) and start.tzinfo:
        start = start.astimezone(UTC).replace(tzinfo=None)
    # Bytes of the connection's charset, whatever the column's own.
    return f"binary convert({column.sql} using utf8mb4) >= binary {{value}}" if is_text else f"{column.sql} >= {{value}}", start


def _build_sqlite(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if isinstance(start, date):
        # The stored text may spell the same moment in several ways; all of them begin with the date.
        day = start.astimezone(UTC).date() - timedelta(days=1) if isinstance(start, datetime) and start.tzinfo else start
        start, is_text = day.isoformat()[:10], True
    elif not isinstance(start, int | str):
        start = float(start)
    return f"{column.sql} collate binary >= {{value}}" if is_text else f"{column.sql} >= {{value}}", start


_EXACT = {"postgresql", "mysql", "sqlite", "duckdb"}
_BUILDERS = {"postgresql": _build_postgres, "mysql": _build_mysql, "sqlite": _build_sqlite}
