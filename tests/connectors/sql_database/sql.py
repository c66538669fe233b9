"""Readings of a database's tables, as the load engine makes them, with a memory that tests can look into."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from fabric_assets.config.sources.models import SqlDatabaseSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.sql_database.source import open_source
from fabric_assets.rows.batches import SourceReader
from fabric_assets.settings import Settings
from tests.support.memory import Memory
from tests.support.shop import SourceDatabase


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
