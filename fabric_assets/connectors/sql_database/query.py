"""A query on one table of a source, in the source's own SQL dialect."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.sql_database.columns import SqlColumn, get_kind
from fabric_assets.connectors.sql_database.moments import Moment

# The approximate size of a batch: small enough for memory, large enough that the cost per batch does not matter.
BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Query:
    """The rows and columns to read.

    Args:
        columns: their types are decided, unless the query is used to decide them.
        table: quoted.
        where: the YAML's own condition, in the source's dialect.
        bound: an expression with `{value}` in it and the value that it is compared with; None reads from the beginning.
        row_bytes: of the longest row, if every value is known to fit its column's type; None if that is not known.
        moment: the source's moment to read at; None for the present.
    """

    columns: tuple[SqlColumn, ...]
    table: str
    where: str | None = None
    bound: tuple[str, Any] | None = None
    row_bytes: int | None = None
    moment: Moment | None = None

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, get_kind(column)) for column in self.columns])

    @property
    def beside(self) -> list[str]:
        """The expressions that are read after the columns, in the order of the columns that have one."""
        return [column.beside for column in self.columns if column.beside]

    def build_sql(self, value: str = "", *, select: str | None = None) -> str:
        """Build the statement.

        Args:
            value: the SQL of the bound value: a placeholder, or a literal that the driver has written.
            select: what to read instead of the columns.
        """
        conditions = []
        if self.where:
            # The line break keeps a trailing comment from swallowing the bracket.
            conditions.append(f"({self.where}\n)")
        if self.bound:
            conditions.append(f"({self.bound[0].replace('{value}', value)})")
        selected = ", ".join([column.sql for column in self.columns] + self.beside) if select is None else select
        return f"select {selected} from {self.table}" + (f" where {' and '.join(conditions)}" if conditions else "")
