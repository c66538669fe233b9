"""Rejected rows -> their stream's table; the same transaction writes the ledger and deletes the rejected rows."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.loading.source_deletes import STATE_KEY
from fabric_assets.loading.stream_tables import StreamTables, TableOwners
from fabric_assets.rows.batches import Batch, Reject, StreamPlan
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Columns
from fabric_assets.warehouse.transaction import StreamCommit
from fabric_assets.warehouse.warehouse import Warehouse


class StreamReplay:
    """The replay of one stream, which the ledger records as a load. Always close it."""

    def __init__(self, tenant: TenantConfig, warehouse: Warehouse, source: str, plan: StreamPlan) -> None:
        stream, states, now = plan.name, warehouse.read_states(), datetime.now(UTC)
        self._state = states.get(stream, StreamState(0, {}))
        self.record = LoadRecord(f"{time.time():.6f}", "", source, stream, plan.disposition, now)
        self._tables = StreamTables(
            plan,
            tenant=tenant,
            layouts=warehouse.read_layouts(),
            state=self._state,
            owners=TableOwners(tenant.sources[source].streams, states),
            load_id=self.record.load_id,
            where=describe(tenant, source, stream),
        )
        self._transaction = warehouse.begin()
        self._tables.open(self._transaction)
        self._started = time.monotonic()

    @property
    def has_cursor(self) -> bool:
        """Whether the stream's last load has saved a cursor."""
        return any(name != STATE_KEY for name in self._state.state)

    def get_names(self, table: str = "") -> StreamNames:
        """Return the names of a table's columns.

        Args:
            table: as `Batch.table` has it.
        """
        return self._tables.get(table).names

    def get_columns(self, table: str = "") -> Columns:
        """Return the columns of a table; empty if there is no table."""
        root = self._tables.get(table)
        return root.names.layout.get(root.plan.name, {})

    def write(self, rows: Any, row_ids: Sequence[str], table: str = "") -> dict[int, Reject]:
        """Write rows; return those that are rejected again, by their index in `rows`.

        Args:
            row_ids: the ids of the rejected rows.
            table: the table that they were meant for, as `Batch.table` has it.
        """
        root, shaped = self._tables.shape(Batch(self.record.stream, rows, first_row=0, table=table))
        again = {reject.row_number: reject for reject in shaped.rejects if reject.row_number is not None}
        self._tables.write(root, shaped.tables)
        self._tables.writer.mark_replayed(row_id for index, row_id in enumerate(row_ids) if index not in again)
        self.record = replace(
            self.record,
            rows_read=self.record.rows_read + shaped.read,
            rows_loaded=self.record.rows_loaded + shaped.loaded,
            rows_rejected=self.record.rows_rejected + len(again),
        )
        return again

    def commit(self, files: Sequence[ImportedFile] = (), known_files: Sequence[ImportedFile] = ()) -> int:
        """Commit, if there is a row to load; return the number of rows that were skipped because the table has newer ones.

        Args:
            files: the dropped files with their new counts.
            known_files: the same files as they were before.
        """
        if not self.record.rows_loaded:
            return 0
        written = self._tables.finish()
        ended = replace(self.record, status="success", loaded_at=datetime.now(UTC), rows_total=written.rows_total, seconds=time.monotonic() - self._started)
        names = self._tables.find_new_names()
        record = replace(ended, schema_changes=tuple(self._tables.changes), value_forms=self._tables.value_forms, column_names=names)
        self._transaction.commit([StreamCommit(self._tables.writer, record, self._state.state, files, known_files, self._tables.named_writers)])
        return written.duplicates

    def close(self) -> None:
        """Roll back what is not committed."""
        self._transaction.abort()


def describe(tenant: TenantConfig, source: str, stream: str) -> str:
    """Name the stream for messages."""
    return f"tenant {tenant.tenant}, source {source}, stream {stream}"
