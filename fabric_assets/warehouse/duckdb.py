"""A tenant's DuckDB file -> sessions: cursors of the one instance that a process may have of it.

Rows that are not committed yet are written to the file as they come, compressed, so a load of any size needs little memory.
"""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from fabric_assets.drivers.duckdb_destination import DuckDb
from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote, quote_all, quote_text
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC
from fabric_assets.rows.reports import ColumnReport
from fabric_assets.warehouse.planted_sql import DUCKDB
from fabric_assets.warehouse.session import Columns, Session, Table, WriteConflict

# With Python and a batch on its way a process then stays below 700 MB. An insert holds a block of each column, one of its NULLs, and sometimes one more.
_MEMORY_MB, _MEMORY_BASE_MB, _BLOCKS_PER_COLUMN = 192, 128, 3
# DuckDB holds so many rows at a time, whatever their size. To commit them takes several times their bytes: a process stays below 700 MB with so many.
_VECTOR_ROWS, _LONG_ROW_BYTES, _MOST_LONG_BYTES = 2_048, 64 * 1024, 135 * 1000**2
# After long rows DuckDB writes those of earlier loads anew. It ends the connection where it may not take the memory for it, and so did each load that followed.
_MEMORY_OF_LONG_ROWS_MB = 4_096
# Rows that are deleted in one statement where a join says which.
_PART = 1_000_000
# DuckDB's unit of work: fewer rows occupy one thread, and to hand them to another takes longer than to do it.
_ROW_GROUP = 122_880
_NAMES = {
    BOOL: "BOOLEAN",
    BIGINT: "BIGINT",
    DOUBLE: "DOUBLE",
    TEXT: "VARCHAR",
    JSON: "JSON",
    BINARY: "BLOB",
    DATE: "DATE",
    TIME: "TIME",
    TIMESTAMP: "TIMESTAMP",
    TIMESTAMP_UTC: "TIMESTAMP WITH TIME ZONE",
}
_DECIMAL = re.compile(r"DECIMAL\(\d+,\d+\)")
_KINDS = {name: kind for kind, name in _NAMES.items()} | {"INTEGER": BIGINT, "SMALLINT": BIGINT, "TINYINT": BIGINT, "FLOAT": DOUBLE}


@contextmanager
def open_sessions(destination: DuckDb) -> Iterator[Callable[[], Session]]:
    """Open the tenant's file, made private where it is new; gives what opens a session."""
    file = destination.file
    has_log = file.with_name(f"{file.name}.wal").exists()
    connection = destination.connect()
    try:
        if has_log:
            # The last process did not bring its commits into the file itself: it was killed, or its memory did not do for long rows.
            with contextlib.suppress(duckdb.TransactionException):
                connection.execute("checkpoint")
        instance = _Instance(connection)
        yield lambda: DuckDbSession(connection.cursor(), instance, f"tenant {destination.tenant.tenant}: the destination (duckdb)")
    finally:
        connection.close()


class _Instance:
    """What the sessions share: the limit of memory, which very wide tables raise, and the threads, one until there is work for more."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._lock, self._columns, self._limit = connection, threading.Lock(), 0, _MEMORY_MB
        sizes = connection.execute("select block_size from system.main.pragma_database_size()").fetchall()  # of older files it is larger
        self._column_mb = _BLOCKS_PER_COLUMN * max(int(size) for (size,) in sizes) / 1024**2
        connection.execute(f"set memory_limit = '{_MEMORY_MB}MB'; set threads = 1")
        self._has_all_threads = False

    def use_all_threads(self) -> None:
        with self._lock:
            if not self._has_all_threads:
                self._connection.execute("reset threads")
                self._has_all_threads = True

    def make_room_for_long_rows(self) -> None:
        with self._lock:
            if self._limit < _MEMORY_OF_LONG_ROWS_MB:
                self._limit = _MEMORY_OF_LONG_ROWS_MB
                self._connection.execute(f"set memory_limit = '{_MEMORY_OF_LONG_ROWS_MB}MB'")

    @contextmanager
    def reserve(self, columns: int) -> Iterator[None]:
        """Make room for an insert."""
        with self._lock:
            self._columns += columns
            if (needed := int(_MEMORY_BASE_MB + self._column_mb * self._columns)) > self._limit:
                self._limit = needed
                self._connection.execute(f"set memory_limit = '{needed}MB'")
        try:
            yield
        finally:
            with self._lock:
                self._columns -= columns


class DuckDbSession(Session):
    row, write_order, temporary_schema = "t.rowid", "t.rowid", "temp.main"
    planted_sql = DUCKDB

    def __init__(self, cursor: Any, instance: _Instance, where: str) -> None:
        super().__init__(where)
        self._cursor, self._instance, self._begun, self._inserted = cursor, instance, False, 0
        self._long_rows = self._long_bytes = 0
        self._thinned: set[Table] = set()

    def execute(self, sql: str) -> int:
        with self._use():
            return self._run(sql)

    def query(self, sql: str) -> pa.Table:
        with self._use():
            return _unwrap(self._cursor.execute(self._in_transaction(sql)).to_arrow_table())

    def insert(self, table: Table, rows: pa.Table) -> int:
        names = quote_all(rows.column_names)
        self._inserted += rows.num_rows
        self._count_long(rows)
        if self._inserted > _ROW_GROUP:
            self._instance.use_all_threads()
        with self._use(), self._instance.reserve(rows.num_columns):
            # As a stream: a table it would have scanned by Arrow's own threads, and kept in memory until the commit, as an old version of the name.
            self._cursor.register("fabric_rows", rows.__arrow_c_stream__())
            (taken,) = self._cursor.execute(self._in_transaction(f"insert into {table} ({names}) select {names} from temp.main.fabric_rows")).fetchone()
            return taken

    def delete_own(self, table: Table, condition: str) -> int:
        if table.schema == self.temporary_schema:
            return self._delete_in_parts(table, condition)
        # A table with deleted rows that were never committed is written row by row at the commit, all of it in memory: so it is made anew.
        ((found,),) = self.ask(f"select count(*) from {table} as t where {condition}")
        if found:
            self.execute(f"create or replace table {table} as select t.* from {table} as t where not coalesce({condition}, false)")
        return found

    def _count_long(self, rows: pa.Table) -> None:
        """Raises:
        DestinationError: the transaction's long rows are too many for a process's memory.
        """
        if rows.nbytes > rows.num_rows * _LONG_ROW_BYTES:
            self._long_rows, self._long_bytes = self._long_rows + rows.num_rows, self._long_bytes + rows.nbytes
            if (held := self._long_bytes * min(1, _VECTOR_ROWS / self._long_rows)) > _MOST_LONG_BYTES:
                raise DestinationError(
                    f"{self.where}: rows of {self._long_bytes // self._long_rows:,} bytes on average are too long for one load of a DuckDB file: it holds"
                    f" {_VECTOR_ROWS:,} rows in memory at a time, {held / 1000**2:,.0f} MB of these, and a load has room for {_MOST_LONG_BYTES // 1000**2} MB",
                    remedy="load fewer of them at a time, leave their long columns out, or load the tenant into Postgres",
                )

    def create_schema(self, name: str) -> None:
        self.execute(f"create schema if not exists {quote(name)}")

    def create(self, table: Table, columns: Columns, *, key: Sequence[str] = ()) -> None:
        # Without the key: two transactions that change different rows would be in each other's way by its index.
        defined = ", ".join(f"{quote(name)} {self.name_type(kind)}" for name, kind in columns.items())
        # DuckDB wants to be told twice that a table is temporary.
        kind = "temporary table" if table.schema == self.temporary_schema else "table"
        self.defer(f"create {kind} {table} ({defined})")

    def delete(self, table: Table, condition: str = "", *, using: str = "") -> int:
        self._thinned.add(table)
        if not using:
            return super().delete(table, condition)
        # However few rows say which ones, it is the whole table that is searched.
        self._instance.use_all_threads()
        return self._delete_in_parts(table, f"exists (select 1 from {using} where {condition})")

    def _delete_in_parts(self, table: Table, condition: str) -> int:
        """Find the rows, then delete them some at a time: the join of one statement for both cannot move to disk, however many rows it finds."""
        chosen = Table(self.temporary_schema, "_fabric_chosen")
        self.execute(f"create temporary table {chosen} as select t.rowid as row_id from {table} as t where {condition}")
        deleted = 0
        for first in map(int, self.query(f"select distinct row_id // {_PART} * {_PART} as first from {chosen}")["first"].to_pylist()):
            part = f"between {first} and {first + _PART - 1}"
            deleted += super().delete(table, f"t.rowid {part} and t.rowid in (select row_id from {chosen} where row_id {part})")
        self.execute(f"drop table {chosen}")
        return deleted

    def add_columns(self, table: Table, columns: Columns) -> None:
        if table in self._thinned and columns:
            # DuckDB commits no table that was altered after rows of it had been deleted: so it is made anew.
            added = ", ".join(f"cast(null as {self.name_type(kind)}) as {quote(name)}" for name, kind in columns.items())
            self.execute(f"create or replace table {table} as select t.*, {added} from {table} as t")
            return
        for name, kind in columns.items():
            self.execute(f"alter table {table} add column {quote(name)} {self.name_type(kind)}")

    def rewrite_columns(self, table: Table, columns: Mapping[str, tuple[str, str]]) -> None:
        # DuckDB changes a table once in a transaction, and it may have been renamed: so it is made anew.
        if columns:
            replaced = ", ".join(f"cast({sql} as {kind}) as {quote(name)}" for name, (kind, sql) in columns.items())
            self.execute(f"create or replace table {table} as select * replace ({replaced}) from {table}")

    def replace_texts(self, table: Table, column: str, lists: Table, *, list_type: str, variant: str | None) -> None:
        beside = f", l.beside as {quote(variant)}" if variant else ""
        joined = f"{table} as t left join {lists} as l on t.{quote(column)} = l.value"
        self.execute(f"create or replace table {table} as select t.* replace (l.list as {quote(column)}){beside} from {joined}")

    @staticmethod
    def name_type(kind: pa.DataType) -> str:
        if pa.types.is_list(kind):
            return f"{DuckDbSession.name_type(kind.value_type)}[]"
        return f"DECIMAL({kind.precision},{kind.scale})" if pa.types.is_decimal(kind) else _NAMES[kind]

    def read_columns(self, schema: str) -> dict[str, dict[str, pa.DataType]]:
        found = self.query(
            "select c.table_name, c.column_name, c.data_type from duckdb_columns() as c join duckdb_tables() as t using (table_oid, database_oid)"
            f" where c.schema_name = {quote_text(schema)} and c.database_name = current_database() order by c.table_name, c.column_index"
        )
        tables: dict[str, dict[str, pa.DataType]] = {}
        for table, column, kind in zip(*(part.to_pylist() for part in found.columns), strict=True):
            tables.setdefault(table, {})[column] = get_type(kind)
        return tables

    def _read_table(self, table: Table) -> tuple[int, tuple[ColumnReport, ...]]:
        """By the table's own description: DuckDB's information_schema lists every column of the file for each question, 12 ms at 200 tables."""
        try:
            found = self.query(f'select column_name, column_type, "null", (select count(*) from {table}) as rows from (describe {table})').to_pylist()
        except duckdb.CatalogException:
            return 0, ()
        columns = (ColumnReport(row["column_name"], row["column_type"].lower(), row["null"] == "YES") for row in found)
        return found[0]["rows"], tuple(column for column in columns if not column.name.startswith("_dlt_"))

    def commit(self) -> None:
        with self._use():
            if self._deferred:
                self._run()
            if self._begun:
                if self._long_rows:
                    self._instance.make_room_for_long_rows()
                self._cursor.commit()
                self._end()

    def rollback(self) -> None:
        with self._use():
            self._deferred = []
            if self._begun:
                self._cursor.rollback()
                self._end()

    def _in_transaction(self, *sql: str) -> str:
        """A statement, and before it what waits for one, the transaction's beginning too: calls of their own would wait for Python's lock once more each."""
        joined = self._join_deferred(*sql)
        begin, self._begun = "" if self._begun else "begin transaction; ", True
        return begin + joined

    def _end(self) -> None:
        self._begun, self._thinned, self._inserted = False, set(), 0
        self._long_rows = self._long_bytes = 0

    def _run(self, *sql: str) -> int:
        row = self._cursor.execute(self._in_transaction(*sql)).fetchone()
        return row[0] if row and isinstance(row[0], int) else 0

    def _translate(self, error: Exception) -> Exception | None:
        if isinstance(error, duckdb.TransactionException) and "onflict" in str(error):
            return WriteConflict(f"{self.where}: another transaction has changed the same rows or tables: {error}", remedy="try again")
        return None

    def _cancel(self) -> None:
        self._cursor.interrupt()

    def _close(self) -> None:
        if self._begun:
            with contextlib.suppress(duckdb.Error):
                self._cursor.rollback()
        self._cursor.close()


def get_type(name: str) -> pa.DataType:
    """A column's type as Arrow carries it; what no load has made is text."""
    if name.endswith("[]"):
        # A list of lists is JSON to us.
        inner = name.removesuffix("[]")
        return pa.list_(get_type(inner)) if inner in _KINDS or _DECIMAL.fullmatch(inner) else TEXT
    if name.startswith("DECIMAL("):
        precision, scale = name.removeprefix("DECIMAL(").removesuffix(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return _KINDS.get(name, TEXT)


def _unwrap(table: pa.Table) -> pa.Table:
    """JSON comes as an extension type, which little of pyarrow can compute with."""
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            table = table.set_column(number, field.name, table.column(number).cast(field.type.storage_type).cast(JSON))
    return table
