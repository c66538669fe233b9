"""Rejected rows -> their stream's table; the same transaction writes the ledger and deletes the rejected rows."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.loading.shaping.shaper import Shaper
from fabric_assets.rows.batches import Batch, Reject, StreamPlan
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Columns
from fabric_assets.warehouse.transaction import StreamCommit
from fabric_assets.warehouse.warehouse import Warehouse


class StreamReplay:
    """The replay of one stream, which the ledger records as a load. Always close it."""

    def __init__(self, tenant: TenantConfig, warehouse: Warehouse, source: str, plan: StreamPlan) -> None:
        stream, layouts, now = plan.name, warehouse.read_layouts(), datetime.now(UTC)
        self._state = warehouse.read_states().get(stream, StreamState(0, {}))
        self.record = LoadRecord(f"{time.time():.6f}", "", source, stream, plan.disposition, now)
        self.family = {name: columns for name, columns in layouts.items() if name == stream or name.startswith(f"{stream}__")}
        self._value_forms = self._state.value_forms if self.family else CURRENT
        kept = self._state.column_names if self._state.value_forms == self._value_forms else None
        self.names = StreamNames(
            stream,
            layout=self.family,
            kept=kept,
            value_forms=self._value_forms,
            rename=plan.rename,
            reserved=get_kind(tenant).reserved_columns,
            where=describe(tenant, source, stream),
        )
        self._shaper = Shaper(
            plan,
            names=self.names,
            refuse_nul=not get_kind(tenant).takes_nul_in_text,
            load_id=self.record.load_id,
            where=describe(tenant, source, stream),
            value_forms=self._value_forms,
        )
        self._transaction = warehouse.begin()
        self._writer = self._transaction.open_writer(plan, layouts=layouts, names=self.names, state=self._state, full_refresh=False)
        self._started = time.monotonic()

    @property
    def has_cursor(self) -> bool:
        """Whether the stream's last load has saved a cursor."""
        return bool(self._state.state)

    @property
    def columns(self) -> Columns:
        """The columns of the stream's table; empty if there is no table."""
        return self.names.layout.get(self.record.stream, {})

    def write(self, rows: Any, row_ids: Sequence[str]) -> dict[int, Reject]:
        """Write rows; return those that are rejected again, by their index in `rows`.

        Args:
            row_ids: the ids of the rejected rows.
        """
        shaped = self._shaper.shape(Batch(self.record.stream, rows, first_row=0))
        again = {reject.row_number: reject for reject in shaped.rejects if reject.row_number is not None}
        self._writer.write(shaped.tables)
        self._writer.mark_replayed(row_id for index, row_id in enumerate(row_ids) if index not in again)
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
        written = self._writer.finish()
        ended = replace(self.record, status="success", loaded_at=datetime.now(UTC), rows_total=written.rows_total, seconds=time.monotonic() - self._started)
        names = self._state.find_new_names(self._shaper.export_names())
        record = replace(ended, schema_changes=tuple(self._shaper.changes), value_forms=self._value_forms, column_names=names)
        self._transaction.commit([StreamCommit(self._writer, record, self._state.state, files, known_files)])
        return written.duplicates

    def close(self) -> None:
        """Roll back what is not committed."""
        self._transaction.abort()


def describe(tenant: TenantConfig, source: str, stream: str) -> str:
    """Name the stream for messages."""
    return f"tenant {tenant.tenant}, source {source}, stream {stream}"
