"""Where a cursor begins -> the condition that the source's database reads by: never narrower than the exact comparison in Arrow."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from fabric_assets.connectors import arrow_types
from fabric_assets.connectors.cursor import encode
from fabric_assets.connectors.sql_columns import SqlColumn, get_kind

Bound = tuple[str, Any]
_POSTGRES_CASTS: dict[pa.DataType, str] = {
    arrow_types.TIMESTAMP: "timestamp",
    arrow_types.TIMESTAMP_UTC: "timestamptz",
    arrow_types.DATE: "date",
    arrow_types.DOUBLE: "float8",
}


def build_not_null(column: SqlColumn) -> Bound:
    return f"{column.sql} is not null", None


def build_bound(column: SqlColumn, start: Any, dialect: str) -> Bound | None:
    """Args:
    start: where the cursor begins; None reads from the beginning.

    Returns:
        a condition with `{value}` in it, and the value; rows without a cursor value meet it as well.
    """
    if start is None:
        return None
    condition, value = _BUILDERS.get(dialect, _build_plain)(column, start, get_kind(column) == arrow_types.TEXT)
    return f"{condition} or {column.sql} is null", value


def _build_plain(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    return f"{column.sql if is_text else column.sql.removesuffix('::text')} >= {{value}}", start


def _build_postgres(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if is_text:
        return f'{column.sql} collate "C" >= {{value}}', encode(start)
    return f"{column.sql.removesuffix('::text')} >= {{value}}::{_POSTGRES_CASTS.get(get_kind(column), 'numeric')}", encode(start)


def _build_mysql(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if isinstance(start, datetime) and start.tzinfo:
        start = start.astimezone(UTC).replace(tzinfo=None)
    return f"binary {column.sql} >= binary {{value}}" if is_text else f"{column.sql} >= {{value}}", start


def _build_sqlite(column: SqlColumn, start: Any, is_text: bool) -> Bound:
    if isinstance(start, date):
        # The stored text may spell the same moment in several ways; all of them begin with the date.
        day = start.astimezone(UTC).date() - timedelta(days=1) if isinstance(start, datetime) and start.tzinfo else start
        start, is_text = day.isoformat()[:10], True
    elif not isinstance(start, int | str):
        start = float(start)
    return f"{column.sql} collate binary >= {{value}}" if is_text else f"{column.sql} >= {{value}}", start


_BUILDERS = {"postgresql": _build_postgres, "mysql": _build_mysql, "sqlite": _build_sqlite}
