"""A stream's table and state -> what its connector may ask about earlier loads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fabric_assets.connectors.arrow_types import TEXT
from fabric_assets.connectors.batches import Window
from fabric_assets.connectors.imported_file import ImportedFile
from fabric_assets.connectors.value_forms import CURRENT
from fabric_assets.loading.stream_names import StreamNames


@dataclass
class WarehouseMemory:
    """Implements `batches.StreamMemory`.

    Args:
        table: quoted and qualified.
        columns: of the table; empty where the stream is loaded anew.
        names: the columns of the stream's fields, as committed.
        state: the reader's own, changed in place; saved with the rows.
        query: asks the warehouse, outside of the load's transaction: what earlier loads have committed.
        forget_value: takes a value of `replaced_by` whose rows go.
        read_files: asks for the dropped files that earlier loads have dealt with.
        keep_file: takes what became of one in this load.
    """

    table: str
    columns: Mapping[str, pa.DataType]
    names: StreamNames
    state: dict[str, Any]
    query: Callable[[str], pa.Table]
    forget_value: Callable[[str], None]
    read_files: Callable[[], Sequence[ImportedFile]]
    keep_file: Callable[[ImportedFile], None]
    window: Window = field(default_factory=Window)
    value_forms: int = CURRENT
    warnings: list[str] = field(default_factory=list)

    def get_column(self, field: str) -> str:
        return self.names.find_column(field)

    def get_type(self, column: str) -> pa.DataType | None:
        return self.columns.get(self.get_column(column))

    def get_highest(self, column: str) -> Any:
        name = self.get_column(column)
        if name not in self.columns:
            return None
        # Text in the order in which cursors compare it, not in the database's language.
        subject = f'"{name}"' + (' collate "C"' if self.columns[name] == TEXT else "")
        return self.query(f"select max({subject}) as highest from {self.table}")["highest"][0].as_py()

    def get_rows_at(self, column: str, value: Any) -> pa.Table:
        name = self.get_column(column)
        # Compared as text: a literal of every type, without a placeholder of either driver. Only a few rows share a cursor's highest value.
        literal = str(value).replace("'", "''")
        return self.query(f"select * from {self.table} where \"{name}\" = cast('{literal}' as {_name_type(self.columns[name])})")

    def get_files(self) -> Sequence[ImportedFile]:
        return self.read_files()

    def record_file(self, file: ImportedFile) -> None:
        self.keep_file(file)

    def replace_rows_of(self, value: str) -> None:
        self.forget_value(value)


def _name_type(kind: pa.DataType) -> str:
    return f"decimal({kind.precision}, {kind.scale})" if pa.types.is_decimal(kind) else _NAMES.get(kind, "text")


_NAMES = {
    pa.int64(): "bigint",
    pa.float64(): "double precision",
    pa.date32(): "date",
    pa.timestamp("us"): "timestamp",
    pa.timestamp("us", tz="UTC"): "timestamp with time zone",
}
