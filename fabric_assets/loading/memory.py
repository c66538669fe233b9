"""A stream's table and state -> the answers to its connector's questions about earlier loads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fabric_assets.errors import DataError
from fabric_assets.loading.shaping.fitting import fit, plain
from fabric_assets.quoting import quote, quote_text
from fabric_assets.rows.arrow_types import BINARY, TEXT
from fabric_assets.rows.batches import Window
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT

# Rows that one statement compares.
_COMPARED_ROWS = 2_000


@dataclass
class WarehouseMemory:
    """A `batches.StreamMemory` that reads the stream's table.

    Args:
        table: quoted and qualified.
        columns: of the table; empty if the stream is loaded anew.
        names: the columns of the stream's fields, as committed.
        state: the reader's state, changed in place; saved with the rows.
        query: asks the warehouse outside of the load's transaction, and so sees what earlier loads have committed.
        forget_value: called with a value of `replaced_by` whose rows are to be deleted.
    """

    table: str
    columns: Mapping[str, pa.DataType]
    names: StreamNames
    state: dict[str, Any]
    query: Callable[[str], pa.Table]
    forget_value: Callable[[str], None]
    window: Window = field(default_factory=Window)
    value_forms: int = CURRENT
    older_forms: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    has_loaded: bool = False
    needs_keys: bool = False
    source_rows: int | None = None

    def note_older_form(self, field: str, form: str) -> None:
        self.older_forms[field] = form

    def get_column(self, field: str) -> str:
        return self.names.find_column(field)

    def get_type(self, column: str) -> pa.DataType | None:
        return self.columns.get(self.get_column(column))

    def get_highest(self, column: str) -> Any:
        name = self.get_column(column)
        if name not in self.columns:
            return None
        # Texts are compared as cursors compare them, not in the order of the database's language.
        subject = quote(name) + (' collate "C"' if self.columns[name] == TEXT else "")
        return self.query(f"select max({subject}) as highest from {self.table}")["highest"][0].as_py()

    def get_rows_at(self, column: str, value: Any) -> pa.Table:
        name = self.get_column(column)
        # A literal instead of a placeholder, which the drivers write differently. Only a few rows share a cursor's highest value.
        return self.query(f"select * from {self.table} where {quote(name)} = {_quote_value(value, self.columns[name])}")

    def find_known(self, rows: pa.Table) -> pa.Array:
        names = [self.get_column(name) for name in rows.column_names]
        if rows.num_rows == 0 or any(name not in self.columns for name in names):
            return pa.array([False] * rows.num_rows, pa.bool_())
        for name in names:
            if self.columns[name] == BINARY:
                raise DataError(f"{self.table}: rows of an append are recognised by {name}, which is binary", remedy="use merge, or leave out cursor.lag")
        kinds = [self.columns[name] for name in names]
        columns = [fit(plain(column), kind)[0].to_pylist() for column, kind in zip(rows.columns, kinds, strict=True)]
        known: set[int] = set()
        for first in range(0, rows.num_rows, _COMPARED_ROWS):
            values = list(zip(*(column[first : first + _COMPARED_ROWS] for column in columns), strict=True))
            known.update(first + number for number in self._find_values(names, kinds, values))
        return pa.array([number in known for number in range(rows.num_rows)], pa.bool_())

    def _find_values(self, names: Sequence[str], kinds: Sequence[pa.DataType], rows: Sequence[Sequence[Any]]) -> list[int]:
        """Return the numbers of the rows that the table has. They are compared as literals of its types, which both destinations write alike."""
        listed = ", ".join(
            f"({number}, {', '.join(_quote_value(value, kind) for value, kind in zip(row, kinds, strict=True))})" for number, row in enumerate(rows)
        )
        columns = ", ".join(["n", *(f"c{index}" for index in range(len(names)))])
        same = " and ".join(f't."{name}" = v.c{index}' for index, name in enumerate(names))
        return self.query(f"select v.n from (values {listed}) as v({columns}) where exists (select 1 from {self.table} as t where {same})")["n"].to_pylist()

    def replace_rows_of(self, value: str) -> None:
        self.forget_value(value)


@dataclass(kw_only=True)
class WarehouseDropMemory(WarehouseMemory):
    """A `batches.DropMemory` that reads the stream's table and the ledger of dropped files.

    Args:
        read_files: returns the dropped files that earlier loads have dealt with.
        keep_file: called with a file that this load has dealt with.
    """

    read_files: Callable[[], Sequence[ImportedFile]]
    keep_file: Callable[[ImportedFile], None]

    def get_files(self) -> Sequence[ImportedFile]:
        return self.read_files()

    def record_file(self, file: ImportedFile) -> None:
        self.keep_file(file)


def _quote_value(value: Any, kind: pa.DataType) -> str:
    if value is None:
        return f"cast(null as {_name_type(kind)})"
    return f"cast({quote_text(str(value))} as {_name_type(kind)})"


def _name_type(kind: pa.DataType) -> str:
    return f"decimal({kind.precision}, {kind.scale})" if pa.types.is_decimal(kind) else _NAMES.get(kind, "text")


_NAMES = {
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.date32(): "date",
    pa.bool_(): "boolean",
    pa.time64("us"): "time",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
}
