"""One stream's batches -> its transaction in the warehouse and its outcome.

One transaction commits a stream's rows, rejected rows, reader's state and row of the ledger: a process that dies leaves all of them or none.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.connectors.context import SourceContext
from fabric_assets.errors import DataError, InternalError, RetriableError
from fabric_assets.loading.drift import describe_drift, describe_duplicates, describe_missing_rows
from fabric_assets.loading.failures import build_error, report_unrecorded
from fabric_assets.loading.job import Job
from fabric_assets.loading.memory import WarehouseDropMemory, WarehouseMemory
from fabric_assets.loading.older_forms.migration import describe_older_forms
from fabric_assets.loading.source_deletes import STATE_KEY, SourceDeletes
from fabric_assets.loading.stream_tables import RootTable, StreamTables, TableOwners
from fabric_assets.rows.batches import Batch, Item, KeysRead, Reject, SourceKeys, StreamPlan
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord, LoadRequest, StreamFailure, StreamReport
from fabric_assets.warehouse.platform_tables import imported_files as import_ledger
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Table
from fabric_assets.warehouse.transaction import StreamCommit, Transaction
from fabric_assets.warehouse.warehouse import Warehouse

_PROGRESS_SECONDS = 5.0
# A batch of a larger table is sixteen times as large.
_SMALL_BYTES = 1_000_000
# Rejected rows that are kept if a load fails on its limit: enough to see what is wrong.
_KEPT_REJECTS = 1_000
Layouts = Mapping[str, Mapping[str, pa.DataType]]


@dataclass(frozen=True)
class LoadContext:
    """What the streams of one load share.

    Args:
        layouts: table -> column -> type, of the source's raw dataset.
        owners: the tables that streams have named.
        database: first part of a fully qualified table name.
    """

    request: LoadRequest
    source: SourceContext
    warehouse: Warehouse
    layouts: Layouts
    states: Mapping[str, StreamState]
    owners: TableOwners
    records: Mapping[str, LoadRecord]
    database: str
    job: Job


class StreamLoad:
    """The load of one stream, used by one thread at a time.

    Write its batches, `finish` it, commit what `build_commit` returns, then call `after_commit`; or `fail` it.
    """

    def __init__(self, plan: StreamPlan, context: LoadContext, after_commit: Callable[[str], None]) -> None:
        self._plan, self._context, self._after_commit = plan, context, after_commit
        self._request, self.job = context.request, context.job
        self._where = context.source.describe(plan.name)
        self._record = context.records[plan.name]
        self._started = self._reported = time.monotonic()
        self._state = context.states.get(plan.name, StreamState(0, {}))
        self._rejects: list[Reject] = []
        # Values of `replaced_by` to delete: the reading thread adds them, the writing thread removes them.
        self._forgotten: deque[str] = deque()
        self._files = import_ledger.FileNotes()
        self._known_files: list[ImportedFile] = []
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}  # (name, content) of a file -> rows loaded and rejected
        # A few rows, which wait in memory until all are there.
        self._few: list[tuple[RootTable, Mapping[str, pa.Table]]] = []
        self._transaction: Transaction | None = None
        self._commit: StreamCommit | None = None
        self._report: StreamReport | None = None
        self.is_over = False
        self._tables = StreamTables(
            plan,
            tenant=self._request.tenant,
            layouts=context.layouts,
            state=self._state,
            owners=context.owners,
            load_id=self._record.load_id,
            where=self._where,
            full_refresh=self._request.full_refresh,
        )
        self._names, self._is_new, committed = self._tables.own.names, self._tables.is_new, self._tables.build_committed_names()
        # Without its table nothing is loaded, whatever the state says.
        state = {} if self._is_new else dict(self._state.state)
        self._deletes = SourceDeletes(plan, state.get(STATE_KEY), is_new=self._is_new, where=self._where)
        self._dataset = naming.raw_dataset(self._request.tenant.tenant, self._request.source)
        remember = partial(WarehouseDropMemory, read_files=self._read_files, keep_file=self._files.add) if plan.drops_files else WarehouseMemory
        self.memory = remember(
            table=str(Table(self._dataset, plan.name)),
            columns=committed.layout.get(plan.name, {}),
            names=committed,
            state=state,
            query=context.warehouse.query,
            forget_value=self._forgotten.append,
            has_loaded=self._state.version > 0,
            value_forms=self._tables.value_forms,
            needs_keys=self._deletes.needs_keys,
        )

    def write_keys(self, item: SourceKeys | KeysRead) -> None:
        """Write a part of the source's keys, or note their end."""
        if isinstance(item, KeysRead):
            self._deletes.end(item)
        elif (keys := self._deletes.convert(item, self._tables.own)) is not None:
            self.open()
            self._tables.writer.write_keys(keys)

    def write_batch(self, batch: Batch) -> None:
        """Shape a batch and write it; nothing is visible yet."""
        table, shaped = self._tables.shape(batch)
        table.names.older.note_read(shaped.tables)
        self._forget()
        size = sum(rows.nbytes for rows in shaped.tables.values())
        if self.may_share and not shaped.rejects and self._record.bytes + size < _SMALL_BYTES:
            self._few.append((table, shaped.tables))
        else:
            self.open()
            self._tables.write(table, shaped.tables, shaped.rejects)
        self._rejects += shaped.rejects[: _KEPT_REJECTS - len(self._rejects)]
        file = batch.origin, batch.content
        loaded, rejected = self._counts.get(file, (0, 0))
        self._counts[file] = loaded + shaped.loaded, rejected + len(shaped.rejects)
        self._record = replace(
            self._record,
            rows_read=self._record.rows_read + shaped.read,
            rows_loaded=self._record.rows_loaded + shaped.loaded,
            rows_rejected=self._record.rows_rejected + len(shaped.rejects),
            bytes=self._record.bytes + size,
        )
        self._report_progress()

    @property
    def may_share(self) -> bool:
        """Whether the stream may share a transaction with others. Where a transaction may wait for a lock, it would delay the others."""
        return self._context.warehouse.never_waits and not (self.is_over or self._transaction or self._forgotten)

    def open(self, transaction: Transaction | None = None) -> Transaction:
        """Begin to write, in a transaction of its own if none is given."""
        self.job.check()
        if self._transaction is None:
            self._transaction = transaction or self._context.warehouse.begin()
            self._tables.open(self._transaction)
            for table, rows in self._few:
                self._tables.write(table, rows)
        return self._transaction

    def finish(self) -> StreamReport:
        """Write the remaining rows, so that the stream can be committed.

        Returns:
            the stream's outcome, valid once it is committed.

        Raises:
            DataError: more rows were rejected than the stream allows.
        """
        self._forget()
        self.open()
        record = self._finish_record()
        if record.rows_read != record.rows_loaded + record.rows_rejected:
            raise InternalError(
                f"{self._where}: a fault of ETL Fabric: {record.rows_read} rows, {record.rows_loaded} loaded, {record.rows_rejected} rejected; none is kept"
            )
        if not self._plan.is_judged and self._plan.rejects.is_exceeded(record.rows_read, record.rows_rejected):
            raise self._build_limit_error(record)
        written = self._tables.finish(follows_deletes=self._deletes.may_follow, misfits=self._deletes.misfits)
        deletes = self._deletes.finish(written.deletes, self.memory.state)
        self._names.older.note_forms(self.memory.older_forms, self._names.find_column)
        record = replace(
            record,
            status="success",
            rows_total=written.rows_total,
            rows_deleted=deletes.rows if deletes else None,
            deletes_kept=(deletes and deletes.problem) or None,
            source_rows=self.memory.source_rows,
            seconds=time.monotonic() - self._started,
            value_forms=self._state.value_forms if written.keeps_columns else self.memory.value_forms,
            column_names=self._tables.find_new_names(keeps_columns=written.keeps_columns),
        )
        reads_all = self._plan.reads_all or self._plan.disposition == "replace"
        files = import_ledger.count_rows(self._files.get_all(), self._counts)
        self._report = StreamReport(
            record=record,
            table_name=f"{self._context.database}.{self._dataset}.{self._plan.name}",
            columns=written.columns,
            destination=self._request.tenant.destination.type,
            dataset=self._dataset,
            first_run=self._is_new,
            files=tuple(files),
            warnings=(
                *self.memory.warnings,
                *self._context.warehouse.describe_foreign(self._tables.roots, self._context.owners.tables),
                *describe_older_forms(self._names, self._request.tenant.tenant),
                *describe_drift(record.schema_changes, self._plan.contract, tables=self._tables.layout, reads_all=reads_all),
                *describe_duplicates(written.duplicates, self._plan.key),
                *self._deletes.describe(),
                *describe_missing_rows(written.missing, self._state.rows_total, reads_all=reads_all),
            ),
            rows_missing=written.missing,
        )
        self._commit = StreamCommit(self._tables.writer, record, self.memory.state, files, self._known_files, self._tables.named_writers)
        return self._report

    def build_commit(self) -> StreamCommit:
        """Return what is to be committed; its time is now."""
        assert self._commit
        return replace(self._commit, record=replace(self._commit.record, loaded_at=datetime.now(UTC)))

    def after_commit(self) -> None:
        """Run the reader's after-commit hook and log rejected rows and warnings."""
        self._after_commit(self._plan.name)
        self._report_rows()

    def fail(self, error: BaseException, *, writing: bool = False) -> None:
        """Abort the stream. Only its row of the ledger is kept, and its rejected rows until a load succeeds."""
        if self.is_over:
            return
        self.is_over = True
        self.close()
        ours = build_error(error, tenant=self._request.tenant, settings=self._request.settings, where=self._where, writing=writing)
        ours = self._context.warehouse.explain_refusal(ours, self._tables.roots, report=self.job.report)
        record = replace(self._finish_record(), status="failed", rows_loaded=0, error=str(ours), loaded_at=datetime.now(UTC))
        record = replace(record, retriable=isinstance(ours, RetriableError))
        outcome: StreamReport | StreamFailure = StreamFailure(self._plan.name, ours)
        try:
            # If the answer to a commit was lost, the ledger shows whether it happened.
            if not self._context.warehouse.record_failure(record, self._rejects) and self._report:
                outcome = self._report
        except Exception as second:  # noqa: BLE001 - without an outcome the load would wait until its time is up
            report_unrecorded(second, error, tenant=self._request.tenant, settings=self._request.settings, where=self._where, report=self.job.report)
        self.job.finish(outcome)

    def close(self) -> None:
        """Roll back what is not committed, and release the connection."""
        if self._transaction is not None:
            transaction, self._transaction = self._transaction, None
            transaction.abort()

    def _read_files(self) -> list[ImportedFile]:
        self._known_files = self._context.warehouse.read_files(self._request.tenant.tenant, self._plan.name)
        return self._known_files

    def _forget(self) -> None:
        while self._forgotten:
            self.open()
            self._tables.writer.replace_rows_of(self._forgotten.popleft())

    def _finish_record(self) -> LoadRecord:
        window = self.memory.window
        return replace(
            self._record,
            window_start=window.start,
            window_end=window.end,
            schema_changes=tuple(self._tables.changes),
            seconds=time.monotonic() - self._started,
        )

    def _build_limit_error(self, record: LoadRecord) -> DataError:
        first = f"; the first: {self._rejects[0].message}" if self._rejects else ""
        return DataError(
            f"{self._where}: {record.rows_rejected} of {record.rows_read} rows cannot be loaded, more than rejects.max allows{first}",
            remedy=f"see them with: fabric rejects list {self._request.tenant.tenant}; correct them at the source, or raise the stream's rejects.max",
        )

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now - self._reported < _PROGRESS_SECONDS:
            return
        self._reported = now
        self.job.report(f"{self._where}: {self._record.rows_read:,} rows, {self._record.bytes / 1e6:,.0f} MB in {now - self._started:,.0f} s so far")

    def _report_rows(self) -> None:
        if self._record.rows_rejected:
            rejected = "1 row is" if self._record.rows_rejected == 1 else f"{self._record.rows_rejected:,} rows are"
            self.job.report(f"{self._where}: {rejected} rejected; see: fabric rejects list {self._request.tenant.tenant}")
        if summary := self._deletes.summarise():
            self.job.report(f"{self._where}: {summary}")
        for warning in self._report.warnings if self._report else ():
            self.job.report(f"{self._where}: warning: {warning}")


def is_small(item: Item) -> bool:
    """Whether an item is a small table. A page of JSON rows is not: more pages may follow."""
    return isinstance(item, Batch) and not (isinstance(item.rows, list) or item.is_json) and item.rows.nbytes < _SMALL_BYTES
