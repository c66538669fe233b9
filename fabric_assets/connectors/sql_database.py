"""A `sql_database` source's config -> a dlt source with one Arrow resource per stream.

Tables and columns are looked up while the source is built, so that a wrong name ends the load before a row is read, in words
that name the nearest right one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dlt
import pyarrow as pa
from dlt.extract import DltResource, DltSource

from fabric_assets.config.sources import SqlDatabaseSource, SqlStream
from fabric_assets.connectors import arrow_types, sql_columns, sql_readers
from fabric_assets.connectors.arrow_hints import mark_naive
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.cursor import Cursor, encode
from fabric_assets.connectors.sql_databases import Database, parse_url
from fabric_assets.connectors.stream_state import get_stream_state
from fabric_assets.connectors.suggestions import build_missing_error
from fabric_assets.errors import DataError

_POSTGRES_CASTS = {arrow_types.TIMESTAMP: "timestamp", arrow_types.TIMESTAMP_UTC: "timestamptz", arrow_types.DATE: "date", arrow_types.DOUBLE: "float8"}


def build_source(context: SourceContext) -> DltSource:
    """Build the dlt source of the context's streams.

    Raises:
        ConfigurationError, SourceError, SourceUnavailable: the url, a table, a column or the connection.
    """
    config = context.config
    assert isinstance(config, SqlDatabaseSource)
    place = context.describe()
    url = parse_url(context.resolve(config.url), place=place, origin=config.url.describe())
    database = Database(url, config.schema_, place, config.timeout.total_seconds())
    resources = [_build_resource(context, name, config.streams[name], database) for name in context.streams]

    @dlt.source(name=context.name, max_table_nesting=0)
    def source() -> list[DltResource]:
        return resources

    return source()


def _build_resource(context: SourceContext, name: str, stream: SqlStream, database: Database) -> DltResource:
    place = context.describe(name)
    table = stream.table or name
    planned = _plan_columns(stream, table, database, place)
    key = stream.primary_key or ()

    def rows() -> Iterator[pa.Table]:
        state = get_stream_state(context, name)
        kept = {column: arrow_types.get_type(kind) for column, kind in state.get("types", {}).items()}
        query = _build_query(stream, table, planned, database, kept, place)
        kinds = {column.name: kept.get(column.name) or _get_kind(column) for column in query.columns}
        cursor = None
        if stream.cursor:
            cursor = Cursor(stream.cursor, kind=kinds[stream.cursor.field], append=stream.disposition == "append", key=key, state=state, place=place)
            query = replace(query, bound=_build_bound(stream, cursor, query, database))
        for batch in sql_readers.read(database, query, place=place):
            _check_key(batch, key, place)
            conformed = arrow_types.conform(batch, kinds, place=place)
            yield mark_naive(cursor.filter(conformed) if cursor else conformed)
        if cursor:
            cursor.commit()
        state["types"] = {column: str(kind) for column, kind in kinds.items()}

    columns: dict[str, Any] = {column: {"name": column, "nullable": False} for column in key}
    if stream.cursor and stream.disposition == "merge":
        # Should the source hold a key twice, its newest row wins.
        columns.setdefault(stream.cursor.field, {"name": stream.cursor.field})["dedup_sort"] = "desc"
    hints: dict[str, Any] = {"write_disposition": stream.disposition, "primary_key": list(key) or None, "columns": columns}
    return dlt.resource(rows, name=name, table_name=name, **hints)


def _plan_columns(stream: SqlStream, table: str, database: Database, place: str) -> tuple[sql_columns.SqlColumn, ...]:
    reflected = {column["name"]: column["type"] for column in database.get_columns(table, place=place)}
    named = [("column", name) for name in stream.columns or ()]
    named += [("cursor field", stream.cursor.field)] if stream.cursor else []
    named += [("primary_key column", name) for name in stream.primary_key or ()]
    for kind, name in named:
        if name not in reflected:
            raise build_missing_error(
                f"{place}: table {table}", kind=kind, name=name, known=reflected, remedy=f"correct the stream's {kind.split()[0]}, in the source's own spelling"
            )
    columns = []
    for name in stream.columns or reflected:
        quoted = database.quote(name)
        if database.dialect == "sqlite":
            columns.append(sql_columns.SqlColumn(name, quoted, sql_columns.describe_sqlite_type(reflected[name]), None))
        else:
            columns.append(sql_columns.build_column(name, reflected[name], quoted=quoted, dialect=database.dialect, place=place))
    return tuple(columns)


def _build_query(
    stream: SqlStream, table: str, columns: tuple[sql_columns.SqlColumn, ...], database: Database, known: Mapping[str, pa.DataType], place: str
) -> sql_readers.Query:
    """Decide the types that the declarations leave open: as in the loads before, else by what the table holds."""
    query = sql_readers.Query(columns, database.quote_table(table), stream.where)
    missing = replace(query, columns=tuple(column for column in columns if column.kind is None and column.name not in known))
    found = sql_readers.find_types(database, missing, place=place)
    decided = []
    for column in columns:
        kept, kind = known.get(column.name), column.kind or known.get(column.name) or found[column.name]
        if kept is not None and kind != kept and not _can_hold(kept, kind):
            raise DataError(
                f"{place}: column {column.name} was loaded as {kept} and is now {kind} ({column.declared}) at the source",
                remedy="load the stream anew with --full-refresh, or leave the column out",
            )
        decided.append(replace(column, kind=kind))
    return replace(query, columns=tuple(decided))


def _get_kind(column: sql_columns.SqlColumn) -> pa.DataType:
    assert column.kind is not None
    return column.kind


def _can_hold(kept: pa.DataType, now: pa.DataType) -> bool:
    """Whether the kept type may hold the new one's values; each value is checked as it is cast."""
    if kept == arrow_types.TEXT:
        return True
    return (pa.types.is_decimal(kept) or kept in (arrow_types.DOUBLE, arrow_types.BIGINT)) and (
        pa.types.is_decimal(now) or now in (arrow_types.DOUBLE, arrow_types.BIGINT)
    )


def _build_bound(stream: SqlStream, cursor: Cursor, query: sql_readers.Query, database: Database) -> tuple[str, Any] | None:
    """The SQL side of the cursor: never narrower than the exact comparison that follows in Arrow."""
    if cursor.start is None or stream.cursor is None:
        return None
    column = next(column for column in query.columns if column.name == stream.cursor.field)
    sql, value, text = column.sql, cursor.start, column.kind == arrow_types.TEXT
    if database.dialect == "postgresql":
        if column.kind != arrow_types.TEXT and sql.endswith("::text"):
            sql = sql.removesuffix("::text")
        condition = f'{sql} collate "C" >= {{value}}' if text else f"{sql} >= {{value}}::{_POSTGRES_CASTS.get(_get_kind(column), 'numeric')}"
        return f"{condition} or {sql} is null", encode(value)
    if database.dialect == "sqlite":
        if isinstance(value, date):
            # The stored text may spell the same moment in several ways; all of them begin with the date.
            day = value.astimezone(UTC).date() - timedelta(days=1) if isinstance(value, datetime) and value.tzinfo else value
            value, text = day.isoformat()[:10], True
        elif not isinstance(value, int | str):
            value = float(value)
        return f"{sql} collate binary >= {{value}} or {sql} is null" if text else f"{sql} >= {{value}} or {sql} is null", value
    if database.dialect == "mysql":
        if isinstance(value, datetime) and value.tzinfo:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return f"binary {sql} >= binary {{value}} or {sql} is null" if text else f"{sql} >= {{value}} or {sql} is null", value
    return f"{sql} >= {{value}} or {sql} is null", value


def _check_key(batch: pa.Table, key: tuple[str, ...], place: str) -> None:
    for name in key:
        if nulls := batch[name].null_count:
            raise DataError(
                f"{place}: the primary_key column {name} is NULL in {nulls} rows, so they cannot be told apart",
                remedy=f"choose another primary_key, or leave these rows out on purpose: where: {name} is not null",
            )
