"""The built tables as the warehouse shows them, over one connection: columns, types, rows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fabric_assets.drivers.duckdb_files import open_file
from fabric_assets.quoting import quote_table, quote_text
from fabric_assets.security.postgres_login import complete_login
from fabric_assets.security.postgres_session import open_session

# Schema and name.
Table = tuple[str, str]
# Name and type, in the table's order.
TableColumns = list[tuple[str, str]]

_COLUMN_QUERIES = {
    "duckdb": """
        select schema_name, table_name, column_name, data_type
        from duckdb_columns()
        where database_name = current_database() and schema_name in ({})
        order by schema_name, table_name, column_index
    """,
    "postgres": """
        select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
        from pg_catalog.pg_attribute as a
        inner join pg_catalog.pg_class as c on c.oid = a.attrelid
        inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'v', 'm', 'p', 'f') and a.attnum > 0 and not a.attisdropped and n.nspname in ({})
        order by n.nspname, c.relname, a.attnum
    """,
}


class Warehouse:
    """An open connection to one tenant's data.

    Args:
        adapter: duckdb or postgres.
    """

    def __init__(self, adapter: str, connection: Any) -> None:
        self._adapter, self._cursor = adapter, connection.cursor()

    def get_columns(self, schemas: Iterable[str]) -> dict[Table, TableColumns]:
        """Read the columns of everything in the schemas."""
        names = sorted(set(schemas))
        if not names:
            return {}
        literals = ", ".join(map(quote_text, names))
        self._cursor.execute(_COLUMN_QUERIES[self._adapter].format(literals))
        tables: dict[Table, TableColumns] = {}
        for schema, table, column, kind in self._cursor.fetchall():
            tables.setdefault((schema, table), []).append((column, kind))
        return tables

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        self._cursor.execute(query)
        return self._cursor.fetchall()

    def ask_named(self, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Give the names of the columns, too."""
        rows = self.ask(query)
        return [column[0] for column in self._cursor.description], rows

    def count_rows(self, table: Table) -> int:
        """Count; of a view this runs its query, and raises the driver's own error where that fails."""
        self._cursor.execute(f"select count(*) from {quote_table(*table)}")
        return self._cursor.fetchone()[0]


def release_warehouse(destination: Mapping[str, Any]) -> None:
    """Let go of the DuckDB file, which dbt keeps open for writing until its process ends."""
    if destination["type"] == "duckdb":
        from dbt.adapters.duckdb.connections import DuckDBConnectionManager

        DuckDBConnectionManager.close_all_connections()


@contextmanager
def open_warehouse(destination: Mapping[str, Any], *, spill: Path) -> Iterator[Warehouse]:
    """Connect as the run's destination says, locked as it was for the models, whose views are counted; the connection is closed after the block."""
    if destination["type"] == "duckdb":
        connection: Any = open_file(destination["path"], read_only=True, spill=spill)
    else:
        login = {key: destination[key] for key in ("host", "port", "dbname", "user", "password")}
        connection = open_session(complete_login({**login, **destination["query"]}), {}, place="the destination (postgres)")
        connection.autocommit = True
    try:
        yield Warehouse(destination["type"], connection)
    finally:
        connection.close()
