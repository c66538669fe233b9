"""Readings of a database's tables, as the load engine makes them, with a memory that tests can look into."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from fabric_assets.config.sources.models import SqlDatabaseSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.sql_database.source import open_source
from fabric_assets.rows.batches import SourceReader, Window
from fabric_assets.rows.column_names import normalize_column
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.settings import Settings
from tests.support.shop import SourceDatabase


class Memory:
    """What a stream knows of earlier loads, without a warehouse.

    Args:
        rows: that it holds, in the warehouse's spelling.
    """

    def __init__(self, rows: pa.Table | None = None) -> None:
        self.state: dict[str, Any] = {}
        self.window, self.warnings = Window(), list[str]()
        self.value_forms, self.older_forms = CURRENT, dict[str, str]()
        self.rows = pa.table({}) if rows is None else rows

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
        return max((value for value in self.rows[column].to_pylist() if value is not None), default=None) if self.rows.num_rows else None

    def get_rows_at(self, column: str, value: Any) -> pa.Table:
        return self.rows.filter([other == value for other in self.rows[column].to_pylist()])

    def find_known(self, rows: pa.Table) -> pa.Array:
        held = {tuple(row[name] for name in rows.column_names) for row in self.rows.to_pylist()} if self.rows.num_rows else set()
        return pa.array([tuple(row.values()) in held for row in rows.to_pylist()], pa.bool_())

    def get_files(self) -> list[ImportedFile]:
        return []

    def record_file(self, file: ImportedFile) -> None:
        raise AssertionError("nobody drops a table's rows")

    def replace_rows_of(self, value: str) -> None:
        raise AssertionError("a table's rows have no file")


class Reading:
    """Readings of one source, each as a load of its own.

    Args:
        streams: the YAML's `streams:` block.
        options: the rest of the source's block.
    """

    def __init__(self, database: SourceDatabase, settings: Settings, *, options: Mapping[str, Any] | None = None, **streams: dict[str, Any]) -> None:
        self.config = SqlDatabaseSource.model_validate({**database.build_source(**streams), **(options or {})})
        self.settings, self.messages, self.memories = settings, list[str](), {name: Memory() for name in streams}

    def open(self) -> SourceReader:
        return open_source(SourceContext("acme", "shop", self.config, tuple(self.config.streams), self.settings, report=self.messages.append))

    def read(self, stream: str | None = None) -> list[pa.Table]:
        """The batches of a stream; of the only one where none is named."""
        name = stream or next(iter(self.config.streams))
        reader = self.open()
        try:
            (group,) = [group for group in reader.groups if group.streams[0].name == name]
            return [batch.rows for batch in group.read({name: self.memories[name]})]  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]
        finally:
            reader.close()

    def read_rows(self, stream: str | None = None) -> list[dict[str, Any]]:
        return [row for table in self.read(stream) for row in table.to_pylist()]
