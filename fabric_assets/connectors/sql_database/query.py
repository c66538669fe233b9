"""A query on one table of a source, in the source's own SQL dialect."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.connectors.sql_database.columns import SqlColumn, get_kind
from fabric_assets.connectors.sql_database.moments import Moment
from fabric_assets.rows import arrow_types
from fabric_assets.rows.mixed_columns import ARROW_MISFITS, cast_texts, convert_in_halves, mix_texts
from fabric_assets.rows.nested_types import SOURCE_JSON, map_lists, mark_json

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


def carry_lists(lists: pa.Array, kind: Any) -> pa.Array:
    """Cast the values of lists; a list with a value that does not fit stays beside the others, as JSON text."""

    def cast(part: pa.Array) -> pa.Array:
        return map_lists(part, lambda values: _cast(values, kind.value_type))

    try:
        return cast(lists)
    except ARROW_MISFITS:
        return mix_texts(convert_in_halves(lists, kind, cast), arrow_types.to_json_text(lists))


def carry(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Cast what the source wrote as text; where a value does not fit, its text stays beside the others."""
    if kind == SOURCE_JSON:
        return mark_json(text)
    return cast_texts(text, kind, lambda part: _cast(part, kind))


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) and kind.tz and values.type == arrow_types.TEXT:
        return values.cast(pa.timestamp("us")).cast(kind)
    if kind == arrow_types.LARGE and values.type == arrow_types.TEXT and pc.any(pc.invert(pc.match_substring_regex(values, r"^-?[0-9]{1,38}$"))).as_py():
        # Arrow silently changes numbers from 2^127 on.
        raise pa.ArrowInvalid("more than 38 digits")
    return values.cast(kind)
