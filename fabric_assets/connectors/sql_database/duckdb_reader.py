"""A DuckDB file as a source: its tables and columns, and a query -> Arrow tables by DuckDB itself. It needs no SQLAlchemy dialect."""

import contextlib
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import duckdb
import pyarrow as pa

from fabric_assets.connectors.sql_database.columns import SqlColumn, get_kind
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import BATCH_BYTES, Query
from fabric_assets.drivers.duckdb_files import LockedConnection, open_file
from fabric_assets.errors import FabricError
from fabric_assets.quoting import quote
from fabric_assets.rows import arrow_types
from fabric_assets.rows.nested_types import SOURCE_JSON
from fabric_assets.rows.source_values import carry, carry_lists
from fabric_assets.suggestions import build_missing_error

_MEMORY, _MOST_ROWS, _FIRST_WIDE_ROWS, _ROW_BYTES = "128MB", 100_000, 2, 100
_TYPES: Mapping[str, pa.DataType] = {
    "BOOLEAN": arrow_types.BOOL,
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"), arrow_types.BIGINT),
    "UBIGINT": pa.decimal128(20, 0),
    "FLOAT": arrow_types.DOUBLE,
    "DOUBLE": arrow_types.DOUBLE,
    "VARCHAR": arrow_types.TEXT,
    "BLOB": arrow_types.BINARY,
    "DATE": arrow_types.DATE,
    "TIME": arrow_types.TIME,
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"), arrow_types.TIMESTAMP),
    "TIMESTAMP WITH TIME ZONE": arrow_types.TIMESTAMP_UTC,
}
# Read as text, so that values that do not fit are noticed: integers of 39 digits, and nanoseconds.
_TYPES_OF_TEXT: Mapping[str, pa.DataType] = {
    "HUGEINT": pa.decimal128(38, 0),
    "UHUGEINT": pa.decimal128(38, 0),
    "TIMESTAMP_NS": arrow_types.TIMESTAMP,
}
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
# Of values that are plain: a comma, a bracket or a second pair of brackets is in none of their names, but in a decimal's.
_LIST = re.compile(r"([A-Z_ 0-9]+|DECIMAL\(\d+,\d+\)|ENUM\(.*\))\[\d*\]", re.DOTALL)
_NESTED = re.compile(r"STRUCT\(|MAP\(|UNION\(|.*\[\d*\]$", re.DOTALL)


def _build_new(name: str, declared: str, quoted: str) -> SqlColumn | None:
    """Lists, JSON and times of nanoseconds; None of any other type."""
    if match := _LIST.fullmatch(declared):
        kind, cast = _choose_list(match[1])
        # A fixed length is the table's own business.
        return SqlColumn(name, f"{quoted}{cast or f'::{match[1]}[]'}", declared, pa.list_(kind))
    if _NESTED.match(declared):
        return SqlColumn(name, f"to_json({quoted})::text", declared, SOURCE_JSON)
    if declared == "JSON":
        return SqlColumn(name, f"{quoted}::text", declared, SOURCE_JSON)
    return SqlColumn(name, f"{quoted}::text", declared, arrow_types.TIME) if declared == "TIME_NS" else None


def _choose_list(value: str) -> tuple[pa.DataType, str]:
    """The type that carries a list's values, and how they are read."""
    if match := _DECIMAL.fullmatch(value):
        return pa.decimal128(int(match[1]), int(match[2])), ""
    if value in _TYPES:
        return _TYPES[value], ""
    return _TYPES_OF_TEXT.get(value, arrow_types.TEXT), "::varchar[]"


@dataclass(frozen=True)
class DuckDatabase(Database):
    """A database in a DuckDB file, which is asked directly instead of through SQLAlchemy."""

    @cached_property
    def connection(self) -> LockedConnection:
        try:
            # The YAML's condition is SQL, and would else read any file of this machine.
            return open_file(self.url.database or "", read_only=True, memory=_MEMORY)
        except duckdb.Error as error:
            raise self.explain(error, label=self.label) from None

    def build_column(self, name: str, declared: Any, *, label: str, value_forms: int) -> SqlColumn:
        quoted = self.quote(name)
        if value_forms >= 2 and (column := _build_new(name, declared, quoted)):
            return column
        if match := _DECIMAL.fullmatch(declared):
            return SqlColumn(name, quoted, declared, pa.decimal128(int(match[1]), int(match[2])))
        if declared in _TYPES:
            return SqlColumn(name, quoted, declared, _TYPES[declared])
        if _NESTED.match(declared):
            return SqlColumn(name, f"to_json({quoted})::text", declared, arrow_types.TEXT)
        return SqlColumn(name, f"{quoted}::text", declared, _TYPES_OF_TEXT.get(declared, arrow_types.TEXT))

    def quote(self, name: str) -> str:
        return quote(name)

    def reflect(self, tables: Collection[str]) -> Mapping[str, Mapping[str, Any]]:
        with self.begin(self.label) as cursor:
            if self.schema:
                schemas = [name for (name,) in cursor.execute("select schema_name from duckdb_schemas() where database_name = current_database()").fetchall()]
                if self.schema not in schemas:
                    raise build_missing_error(self.label, kind="schema", name=self.schema, known=schemas, remedy="correct the source's schema")
            rows = cursor.execute(
                "select table_name, column_name, data_type from duckdb_columns() where database_name = current_database()"
                " and schema_name = coalesce($1, 'main') and list_contains($2, table_name) order by table_name, column_index",
                [self.schema, sorted(tables)],
            ).fetchall()
        found: dict[str, dict[str, Any]] = {}
        for table, column, declared in rows:
            found.setdefault(table, {})[column] = declared
        return found

    def get_table_names(self) -> Collection[str]:
        listing = "select distinct table_name from duckdb_columns() where database_name = current_database() and schema_name = coalesce($1, 'main')"
        with self.begin(self.label) as cursor:
            return [name for (name,) in cursor.execute(listing, [self.schema]).fetchall()]

    @contextmanager
    def begin(self, label: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a cursor for one thread; it is interrupted when the load's time is up."""
        cursor = self.connection.cursor()
        timer = threading.Timer(max(0.0, self.remaining_seconds), cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        except (duckdb.Error, pa.ArrowException) as error:
            raise self.explain(error, label=label) from None
        finally:
            timer.cancel()
            with suppress(duckdb.Error):
                cursor.close()

    def find_objection(self, sql: str) -> str | None:
        try:
            with contextlib.closing(self.connection.cursor()) as cursor:
                cursor.execute(sql)
        except duckdb.Error as error:
            return " ".join(str(error).split())
        return None

    def build_missing_table_error(self, table: str, *, label: str) -> FabricError:
        return build_missing_error(
            label, kind="table", name=table, known=self.get_table_names(), remedy="correct the stream's table (default: the stream's name)"
        )

    def close(self) -> None:
        self.connection.close()


def read(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    assert isinstance(database, DuckDatabase)
    parameters = [query.bound[1]] if query.bound and query.bound[1] is not None else []
    with database.begin(label) as cursor:
        try:
            rows = max(1, min(_MOST_ROWS, BATCH_BYTES // (_find_longest(cursor, query, parameters) + _ROW_BYTES)))
        except duckdb.OutOfMemoryException:
            yield from _read_pages(cursor, query, parameters)
            return
        yield from _read(cursor, query, parameters, rows)


def _find_longest(cursor: duckdb.DuckDBPyConnection, query: Query, parameters: list[Any]) -> int:
    """The bytes of the longest row's texts."""
    wide = [f"coalesce({size}, 0)" for column in query.columns if (size := _measure(column))]
    (longest,) = cursor.execute(query.build_sql("$1", select=f"max({' + '.join(wide)})"), parameters).fetchone() or (0,) if wide else (0,)
    return longest or 0


def _measure(column: SqlColumn) -> str | None:
    kind = get_kind(column)
    if kind in (arrow_types.TEXT, SOURCE_JSON):
        return f"strlen({column.sql})"
    if pa.types.is_list(kind):
        return f"strlen({column.sql}::varchar)"
    return f"octet_length({column.sql})" if kind == arrow_types.BINARY else None


def _read(cursor: duckdb.DuckDBPyConnection, query: Query, parameters: list[Any], rows: int) -> Iterator[pa.Table]:
    result = cursor.execute(query.build_sql("$1"), parameters)
    open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # the name before DuckDB 1.5
    for batch in open_reader(rows):
        arrays = [_carry(values, kind) for values, kind in zip(batch.columns, query.schema.types, strict=True)]
        yield pa.table(arrays, names=query.names)


def _read_pages(cursor: duckdb.DuckDBPyConnection, query: Query, parameters: list[Any]) -> Iterator[pa.Table]:
    """Read a few rows at a time, by row number: DuckDB reads 2,048 at once, which is too much for rows of megabytes."""
    (last,) = cursor.execute(f"select max(rowid) from {query.table}").fetchone() or (None,)
    start, rows = 0, _FIRST_WIDE_ROWS
    while last is not None and start <= last:
        where = f"rowid between {start} and {start + rows - 1}" + (f" and ({query.where}\n)" if query.where else "")
        start, size = start + rows, 0
        for table in _read(cursor, replace(query, where=where), parameters, rows):
            size += table.nbytes
            yield table
        rows = max(1, min(_MOST_ROWS, rows * 2, rows * BATCH_BYTES // max(size, 1)))


def _carry(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if values.type == kind:
        return values
    if pa.types.is_list(kind):
        return carry_lists(values, kind)
    return carry(values, kind) if values.type in (arrow_types.TEXT, pa.large_string()) else values.cast(kind)
