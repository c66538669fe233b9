"""The warehouse's columns, types and rows of the built tables, read over one connection."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fabric_assets.drivers.asking import Rows, build_ask
from fabric_assets.quoting import quote_table, quote_text
from fabric_assets.transform.worker.adapters.adapter import Login, get_adapter

# Schema and name.
Table = tuple[str, str]
# Name and type, in the table's order.
TableColumns = list[tuple[str, str]]


class Warehouse:
    """An open connection to one tenant's data.

    Args:
        columns_query: see `Adapter`.
    """

    def __init__(self, connection: Any, columns_query: str) -> None:
        self._connection, self._columns_query, self.ask = connection, columns_query, build_ask(connection)

    def get_columns(self, schemas: Iterable[str]) -> dict[Table, TableColumns]:
        """Read the columns of all relations in the schemas."""
        names = sorted(set(schemas))
        if not names:
            return {}
        literals = ", ".join(map(quote_text, names))
        tables: dict[Table, TableColumns] = {}
        for schema, table, column, kind in self.ask(self._columns_query.format(literals)):
            tables.setdefault((schema, table), []).append((column, kind))
        return tables

    def ask_named(self, query: str) -> tuple[list[str], Rows]:
        """Run a query, and give the names of its columns and its rows."""
        with closing(self._connection.cursor()) as cursor:
            cursor.execute(query)
            return [column[0] for column in cursor.description], cursor.fetchall()

    def execute(self, *statements: str) -> None:
        """Run the statements in one transaction."""
        with closing(self._connection.cursor()) as cursor:
            for statement in ("begin", *statements, "commit"):
                cursor.execute(statement)

    def count_rows(self, table: Table) -> int:
        """Count a relation's rows. For a view this runs its query, and raises the driver's error if it fails."""
        return self.ask(f"select count(*) from {quote_table(*table)}")[0][0]


@contextmanager
def open_warehouse(destination: Login, *, spill: Path, read_only: bool = True) -> Iterator[Warehouse]:
    """Connect to the run's destination, with the same lock as for the models, whose views are counted. The connection is closed after the block."""
    adapter = get_adapter(destination["type"])
    connection = adapter.connect(destination, spill=spill, read_only=read_only)
    try:
        yield Warehouse(connection, adapter.columns_query)
    finally:
        connection.close()
