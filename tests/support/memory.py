"""What a stream knows of earlier loads, without a warehouse: for tests of readers alone."""

from typing import Any

import pyarrow as pa

from fabric_assets.rows.batches import Window
from fabric_assets.rows.column_names import normalize_column
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.value_forms import CURRENT


class Memory:
    """A stream's memory that a test can look into.

    Args:
        rows: that the table holds, in the warehouse's spelling.
        table: the same as an Arrow table.
    """

    def __init__(self, *rows: dict[str, Any], table: pa.Table | None = None, value_forms: int = CURRENT) -> None:
        self.state: dict[str, Any] = {}
        self.window, self.warnings = Window(), list[str]()
        self.needs_keys = False
        self.source_rows: int | None = None
        self.value_forms, self.older_forms = value_forms, dict[str, str]()
        self.rows = pa.Table.from_pylist(list(rows)) if table is None else table

    @property
    def has_loaded(self) -> bool:
        return bool(self.state)

    def note_older_form(self, field: str, form: str) -> None:
        self.older_forms[field] = form

    def get_column(self, field: str) -> str:
        return normalize_column(field)

    def get_type(self, column: str) -> pa.DataType | None:
        return self.rows.schema.field(column).type if column in self.rows.column_names else None

    def get_highest(self, column: str) -> Any:
        values = self.rows[column].to_pylist() if column in self.rows.column_names else []
        return max((value for value in values if value is not None), default=None)

    def get_rows_at(self, column: str, value: Any) -> pa.Table:
        return self.rows.filter([other == value for other in self.rows[column].to_pylist()])

    def find_known(self, rows: pa.Table) -> pa.Array:
        held = {tuple(row[name] for name in rows.column_names) for row in self.rows.to_pylist()} if self.rows.num_rows else set()
        return pa.array([tuple(row.values()) in held for row in rows.to_pylist()], pa.bool_())

    def get_files(self) -> list[ImportedFile]:
        return []

    def record_file(self, file: ImportedFile) -> None:
        raise AssertionError("only a source of dropped files records any")

    def replace_rows_of(self, value: str) -> None:
        raise AssertionError("only a source of files replaces the rows of one")
