"""What is read of a table, as SQL in the source's own dialect."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.mixed_columns import cast_texts
from fabric_assets.connectors.moments import Moment
from fabric_assets.connectors.sql_columns import SqlColumn, get_kind

# A batch is about so large, whatever the rows: small enough for memory, large enough to keep the cost of each batch away.
BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Query:
    """What to read.

    Args:
        columns: with their types decided, unless they are still in question.
        table: quoted.
        where: the YAML's own condition, in the source's dialect.
        bound: an expression with `{value}` in it and the value that it is compared with; None reads from the beginning.
        row_bytes: of the longest row, where every value is known to fit its column's type; None where neither is known.
        moment: of the source to read; None for the present.
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

    def build_sql(self, value: str = "", *, select: str | None = None) -> str:
        """Args:
        value: what stands for the bound value: a placeholder, or a literal that the driver has written.
        select: what to read instead of the columns.
        """
        conditions = []
        if self.where:
            # The line break keeps a trailing comment from swallowing the bracket.
            conditions.append(f"({self.where}\n)")
        if self.bound:
            conditions.append(f"({self.bound[0].replace('{value}', value)})")
        selected = ", ".join(column.sql for column in self.columns) if select is None else select
        return f"select {selected} from {self.table}" + (f" where {' and '.join(conditions)}" if conditions else "")


def carry(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast what the source wrote as text; where a value does not fit, its text stays beside the others."""
    if pa.types.is_timestamp(kind) and kind.tz:
        return cast_texts(text, kind, lambda part: part.cast(pa.timestamp("us")).cast(kind))
    return cast_texts(text, kind, lambda part: part.cast(kind))
