"""A tenant's DuckDB file -> sessions, i.e. cursors of the only instance that a process may have of it.

Uncommitted rows are written to the file as they come, compressed, so a load of any size needs little memory.
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
from fabric_assets.warehouse import leftovers_sql
from fabric_assets.warehouse.planted_sql import DUCKDB
from fabric_assets.warehouse.session import Columns, Session, Table, WriteConflict

# With Python and one batch a process then stays below 700 MB. An insert holds two blocks per column, for values and NULLs, and sometimes a third.
_MEMORY_MB, _MEMORY_BASE_MB, _BLOCKS_PER_COLUMN = 192, 128, 3
# DuckDB holds 2,048 rows in memory, of any size, and a commit takes several times their bytes. Within these limits a process stays below 700 MB.
_VECTOR_ROWS, _LONG_ROW_BYTES, _MOST_LONG_BYTES = 2_048, 64 * 1024, 135 * 1000**2
# After long rows DuckDB rewrites rows of earlier loads. With too little memory it ends the connection, in each later load as well.
_MEMORY_OF_LONG_ROWS_MB = 4_096
# Rows that one statement deletes by a join.
_PART = 1_000_000
# DuckDB's unit of work: fewer rows are faster in a single thread.
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
    """Open the tenant's file, which is made private if it is new; yield the function that opens a session."""
    file = destination.file
    has_log = file.with_name(f"{file.name}.wal").exists()
    connection = destination.connect()
    try:
        if has_log:
            # The last process has not moved its commits from the log into the file: it was killed, or had too little memory for long rows.
            with contextlib.suppress(duckdb.TransactionException):
                connection.execute("checkpoint")
        instance = _Instance(connection)
        yield lambda: DuckDbSession(connection.cursor(), instance, f"tenant {destination.tenant.tenant}: the destination (duckdb)")
    finally:
        connection.close()


LEFTOVERS = leftovers_sql.DUCKDB


class _Instance:
    """The DuckDB instance that the sessions share, with its memory limit (wide tables raise it) and threads (one until more are useful)."""

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
            # As a stream: DuckDB would scan a table with Arrow's threads, and keep it in memory until the commit.
            self._cursor.register("fabric_rows", rows.__arrow_c_stream__())
            (taken,) = self._cursor.execute(self._in_transaction(f"insert into {table} ({names}) select {names} from temp.main.fabric_rows")).fetchone()
            return taken

    def delete_own(self, table: Table, condition: str) -> int:
        if table.schema == self.temporary_schema:
            return self._delete_in_parts(table, condition)
        # The table is made anew: DuckDB commits a table with deleted uncommitted rows row by row, all of it in memory.
        ((found,),) = self.ask(f"select count(*) from {table} as t where {condition}")
        if found:
            self.execute(f"create or replace table {table} as select t.* from {table} as t where not coalesce({condition}, false)")
        return found

    def _count_long(self, rows: pa.Table) -> None:
        """Raise a DestinationError if the transaction has too many long rows for a process's memory."""
        if rows.nbytes > rows.num_rows * _LONG_ROW_BYTES:
            self._long_rows, self._long_bytes = self._long_rows + rows.num_rows, self._long_bytes + rows.nbytes
            if (held := self._long_bytes * min(1, _VECTOR_ROWS / self._long_rows)) > _MOST_LONG_BYTES:
                raise DestinationError(
                    f"{self.where}: rows of {self._long_bytes // self._long_rows:,} bytes on average are too long for one load of a DuckDB file. It holds"
                    f" {_VECTOR_ROWS:,} rows in memory at a time, {held / 1000**2:,.0f} MB of these, and a load has room for {_MOST_LONG_BYTES // 1000**2} MB",
                    remedy="load fewer of them at a time, leave their long columns out, or load the tenant into Postgres",
                )

    def create_schema(self, name: str) -> None:
        self.execute(f"create schema if not exists {quote(name)}")

    def create(self, table: Table, columns: Columns, *, key: Sequence[str] = ()) -> None:
        # Without the key: its index would let transactions conflict that change different rows.
        defined = ", ".join(f"{quote(name)} {self.name_type(kind)}" for name, kind in columns.items())
        # DuckDB needs both the word and the schema for a temporary table.
        kind = "temporary table" if table.schema == self.temporary_schema else "table"
        self.defer(f"create {kind} {table} ({defined})")

    def delete(self, table: Table, condition: str = "", *, using: str = "") -> int:
        self._thinned.add(table)
        if not using:
            return super().delete(table, condition)
        # DuckDB scans the whole table, however few rows are to be deleted.
        self._instance.use_all_threads()
        return self._delete_in_parts(table, f"exists (select 1 from {using} where {condition})")

    def _delete_in_parts(self, table: Table, condition: str) -> int:
        """Find the rows first, then delete them in parts: the join of a single statement would hold all rows in memory."""
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
            # The table is made anew: DuckDB cannot commit a table that was altered after rows were deleted.
            added = ", ".join(f"cast(null as {self.name_type(kind)}) as {quote(name)}" for name, kind in columns.items())
            self.execute(f"create or replace table {table} as select t.*, {added} from {table} as t")
            return
        for name, kind in columns.items():
            self.execute(f"alter table {table} add column {quote(name)} {self.name_type(kind)}")

    def rewrite_columns(self, table: Table, columns: Mapping[str, tuple[str, str]]) -> None:
        # The table is made anew: DuckDB alters a table only once in a transaction, and a column may have been renamed.
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
        """Read one table's description: DuckDB's information_schema lists every column of the file, which takes 12 ms at 200 tables."""
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
        """Join a statement with the deferred ones and the beginning of the transaction: each further call would wait for Python's lock."""
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
    """Return a column's Arrow type; a type that no load makes counts as text."""
    if name.endswith("[]"):
        # A list of lists counts as JSON.
        inner = name.removesuffix("[]")
        return pa.list_(get_type(inner)) if inner in _KINDS or _DECIMAL.fullmatch(inner) else TEXT
    if name.startswith("DECIMAL("):
        precision, scale = name.removeprefix("DECIMAL(").removesuffix(")").split(",")
        return pa.decimal128(int(precision), int(scale))
    return _KINDS.get(name, TEXT)


def _unwrap(table: pa.Table) -> pa.Table:
    """Convert JSON columns to text: few functions of pyarrow accept the extension type."""
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            table = table.set_column(number, field.name, table.column(number).cast(field.type.storage_type).cast(JSON))
    return table
