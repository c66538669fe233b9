"""A tenant's DuckDB file as the warehouse to delete. The file itself is deleted with the tenant's other files.

It is opened by its path and not by the tenant's YAML, which may be gone already.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from fabric_assets.drivers.duckdb_files import LockedConnection, build_open_error, open_file
from fabric_assets.offboarding.warehouses import Column, Relation, Warehouse
from fabric_assets.quoting import quote

_BATCH_ROWS = 10_000
_MEMORY = "256MB"
# Types that Arrow and Parquet both store exactly, also within lists, structs and maps.
_PLAIN = {
    *("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL", "VARCHAR", "BLOB"),
    *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "WITH", "ZONE", "STRUCT", "MAP"),
}
_FIELD_NAME = re.compile(r'"(?:[^"]|"")*"')


class DuckDbFile(Warehouse):
    """The warehouse of a tenant on DuckDB.

    Args:
        file: a file that exists.
    """

    has_catalog = False

    def __init__(self, tenant: str, file: Path) -> None:
        self.location, self._tenant, self._file = f"DuckDB file {file.name}", tenant, file

    def list_relations(self) -> list[Relation]:
        with self._open() as connection:
            found = connection.execute(
                "select schema_name, table_name, 'table' from duckdb_tables() where not internal and database_name = current_database()"
                " union all select schema_name, view_name, 'view' from duckdb_views() where not internal and database_name = current_database() order by 1, 2"
            ).fetchall()
            return [Relation(schema, name, kind, _count(connection, self._quote(schema, name)) if kind == "table" else None) for schema, name, kind in found]

    def find_left(self) -> list[str]:
        return [f"file {self._file}"] if self._file.exists() else []

    def get_columns(self, relation: Relation, *, as_text: bool) -> Sequence[Column]:
        with self._open() as connection:
            described = connection.execute(f"describe {self._quote(relation.schema, relation.name)}").fetchall()
        return [_build_column(name, declared, as_text=as_text) for name, declared, *_ in described]

    @contextmanager
    def read(self, relation: Relation, columns: Sequence[Column]) -> Iterator[tuple[int, pa.RecordBatchReader]]:
        table = self._quote(relation.schema, relation.name)
        with self._open() as connection:
            connection.begin()
            rows = _count(connection, table)
            result = connection.execute(f"select {', '.join(column.sql for column in columns)} from {table}")
            open_reader = getattr(result, "to_arrow_reader", None) or result.fetch_record_batch  # the name before DuckDB 1.5
            # If a failure left it half read and open, it would keep the file, and the next connection in this process would wait forever.
            with open_reader(_BATCH_ROWS) as batches:
                yield rows, batches

    def find_fault(self, relation: Relation) -> str | None:
        with self._open() as connection:
            try:
                connection.execute(f"explain analyze select * from {self._quote(relation.schema, relation.name)}")
            except (duckdb.DataError, duckdb.NotSupportedError, duckdb.ProgrammingError) as error:
                return type(error).__name__
        return None

    def describe(self) -> dict[str, list[str]]:
        return {}

    def delete(self) -> None:
        pass

    def _quote(self, schema: str, name: str) -> str:
        """With the file's name as the catalog: DuckDB itself has a schema `main`, too."""
        return f"{quote(self._file.stem)}.{quote(schema)}.{quote(name)}"

    @contextmanager
    def _open(self) -> Iterator[LockedConnection]:
        try:
            connection = open_file(self._file, read_only=True, memory=_MEMORY, threads=1)
        except duckdb.Error as error:
            raise build_open_error(error, f"tenant {self._tenant}: {self._file.name}") from None
        try:
            yield connection
        finally:
            connection.close()


def _count(connection: LockedConnection, table: str) -> int:
    (rows,) = connection.execute(f"select count(*) from {table}").fetchone() or (0,)
    return rows


def _build_column(name: str, declared: str, *, as_text: bool) -> Column:
    words = set(re.findall(r"[A-Z_]+", _FIELD_NAME.sub("", declared)))
    quoted = quote(name)
    if declared in ("HUGEINT", "UHUGEINT") and not as_text:
        return Column(name, f"{quoted}::varchar", declared, pa.decimal256(39, 0))
    # A time with a zone shares its words with the timestamp.
    if words <= _PLAIN and not declared.startswith("TIME WITH") and "TIME WITH" not in declared.replace("TIMESTAMP WITH", ""):
        return Column(name, quoted, declared)
    if declared.endswith("]") or declared.startswith(("STRUCT", "MAP", "UNION")):
        return Column(name, f"to_json({quoted})::varchar", declared)
    return Column(name, f"{quoted}::varchar", declared)
