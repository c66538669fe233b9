"""A session of the warehouse -> one transaction, of one stream or of several, with everything that belongs to them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fabric_assets.quoting import quote, quote_text
from fabric_assets.rows.batches import StreamPlan
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.warehouse.dlt_tables.bookkeeping import DltBookkeeping
from fabric_assets.warehouse.planted import Planted, refuse_other_kinds
from fabric_assets.warehouse.platform_tables import imported_files as import_ledger
from fabric_assets.warehouse.platform_tables import ledger
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Columns, Datasets, Session
from fabric_assets.warehouse.writing import StreamWriter


@dataclass(frozen=True)
class StreamCommit:
    """One stream's part of a transaction: its rows, and what is committed with them.

    Args:
        state: the stream's new state.
        files: the dropped files of the load, with their new status.
        known_files: the stream's files in the ledger when the load began.
        named: the writers of the tables that the stream's batches have named.
    """

    writer: StreamWriter
    record: LoadRecord
    state: Mapping[str, Any]
    files: Sequence[ImportedFile] = ()
    known_files: Sequence[ImportedFile] = ()
    named: Sequence[StreamWriter] = ()


class Transaction:
    """A transaction of one or several streams, used by one thread; any thread may call `abort`.

    Args:
        release: gives the session back.
        list_planted: lists objects at root tables that no load has made.
        bookkeeping: what dlt reads of the dataset.
    """

    def __init__(
        self,
        session: Session,
        datasets: Datasets,
        source: str,
        *,
        release: Callable[[Session], None],
        list_planted: Callable[[Collection[str]], list[Planted]],
        bookkeeping: DltBookkeeping,
    ) -> None:
        self._session, self._datasets, self._source, self._release, self._list_planted = session, datasets, source, release, list_planted
        self._bookkeeping = bookkeeping
        self._is_over = False

    def open_writer(self, plan: StreamPlan, *, layouts: Mapping[str, Columns], names: StreamNames, state: StreamState, full_refresh: bool) -> StreamWriter:
        """Open a writer for a stream.

        Raises:
            DestinationError: an object that is not a table has the name of one of the stream's tables.
        """
        planted = self._list_planted([plan.name])
        refuse_other_kinds(planted, where=f"{self._session.where}, source {self._source}, stream {plan.name}")
        return StreamWriter(
            self._session,
            plan,
            self._datasets,
            source=self._source,
            layouts=layouts,
            names=names,
            state=state,
            full_refresh=full_refresh,
            counts_exactly=bool(planted),
        )

    def commit(self, commits: Sequence[StreamCommit]) -> None:
        """Commit everything at once: rows, rejected rows, the streams' states and their rows of the ledger.

        Raises:
            LeaseHeld: another run has loaded a stream meanwhile; nothing is kept.
        """
        session, platform = self._session, self._datasets.platform
        for each in commits:
            for writer in (each.writer, *each.named):
                writer.prepare_commit(each.record)
        changes = [writer.describe_change() for each in commits for writer in (each.writer, *each.named)]
        load_ids = [each.record.load_id for each in commits]
        with self._bookkeeping.record(session, changes, load_ids):
            now = quote_text(datetime.now(UTC).isoformat())
            rows = ", ".join(f"({quote_text(load_id)}, {quote_text(self._source)}, 0, {now})" for load_id in load_ids)
            session.defer(f'insert into {quote(self._datasets.raw)}."_dlt_loads" (load_id, schema_name, status, inserted_at) values {rows}')
            ledger.write_ends(session, platform, [each.record for each in commits])
            ledger.write_states(session, platform, [(each.record, each.writer.state.version, each.state) for each in commits])
            for each in commits:
                import_ledger.write_files(session, platform, each.record, each.files, each.known_files)
            session.commit()
        self._is_over = True
        self._release(session)

    def abort(self) -> None:
        """Roll back what is not committed, and release the connection; may be called twice, and from another thread."""
        if not self._is_over:
            self._is_over = True
            self._session.abort()
            self._release(self._session)
