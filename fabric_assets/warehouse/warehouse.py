"""A tenant's destination -> the service of a load: the state of earlier loads, and transactions for its streams."""

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module

import pyarrow as pa

from fabric_assets import naming
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.asking import Rows
from fabric_assets.drivers.destinations import Destination, get_destination
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import DestinationUnavailable, FabricError
from fabric_assets.own_faults import ReportFault, report_own_fault
from fabric_assets.rows.batches import Reject
from fabric_assets.rows.imported_file import ImportedFile
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.settings import Settings
from fabric_assets.warehouse.dlt_tables.bookkeeping import DLT_TABLES, DatasetNames, DltBookkeeping, Recorded, read_recorded
from fabric_assets.warehouse.dlt_tables.foreign_runs import ForeignRuns, find_foreign_runs
from fabric_assets.warehouse.planted import REFUSALS, Planted, describe_acting, explain_refusal, find_planted, list_of_tables, refuse_in_platform_tables
from fabric_assets.warehouse.platform_tables import imported_files as import_ledger
from fabric_assets.warehouse.platform_tables import ledger, rejected_rows
from fabric_assets.warehouse.platform_tables.ledger import StreamState
from fabric_assets.warehouse.session import Columns, Datasets, Session, Table
from fabric_assets.warehouse.transaction import Transaction


@contextmanager
def open_warehouse(tenant: TenantConfig, source: str, settings: Settings, *, destination: Destination | None = None) -> Iterator["Warehouse"]:
    """Connect to the tenant's destination for a load of one source.

    Args:
        destination: the tenant's, with its login already resolved; by default it is made here.

    Raises:
        DestinationError: the login is refused.
        DestinationUnavailable: no connection.
    """
    raw, platform = naming.raw_dataset(tenant.tenant, source), naming.platform_dataset(tenant.tenant)
    kind = get_kind(tenant)
    datasets = Datasets(raw, platform, *([naming.load_staging_dataset(tenant.tenant, source)] if kind.needs_staging_dataset else []))
    with ExitStack() as stack:
        report = partial(report_own_fault, data_dir=settings.data_dir, tenant=tenant.tenant)
        connect = stack.enter_context(import_module(kind.sessions).open_sessions(destination or get_destination(tenant, settings)))
        names = DatasetNames(naming.pipeline(tenant.tenant, source), source, raw, tenant.destination.type)
        warehouse = Warehouse(connect, source, datasets, names, close=stack.close, never_waits=not kind.waits_for_locks, report_fault=report)
        try:
            yield warehouse
        finally:
            warehouse.close()


class Warehouse:
    """The destination of one load, used by all its threads.

    Args:
        connect: opens a session.
        names: what dlt calls the dataset.
        close: ends what all sessions share.
        never_waits: no transaction waits for a lock of another one.
        report_fault: keeps the traceback of an internal error.
    """

    def __init__(
        self,
        connect: Callable[[], Session],
        source: str,
        datasets: Datasets,
        names: DatasetNames,
        *,
        close: Callable[[], None],
        never_waits: bool,
        report_fault: ReportFault,
    ) -> None:
        self.never_waits, self._report_fault = never_waits, report_fault
        self._connect, self._source, self._datasets, self._close = connect, source, datasets, close
        self._lock, self._closing = threading.Lock(), threading.Lock()
        self._free: list[Session] = []
        self._used: set[Session] = set()
        self._is_closed = False
        self._layouts: dict[str, dict[str, pa.DataType]] | None = None
        self._planted, self._foreign = list[Planted](), ForeignRuns()
        self._names, self._bookkeeping = names, DltBookkeeping(names, Recorded(), {})

    def prepare(self) -> None:
        """Make the schemas and the platform's tables, and mark loads of dead runs in the ledger as failed.

        Raises:
            DestinationError: somebody has put objects of another kind at the platform's tables.
        """
        with self._borrow() as session:
            self._planted = find_planted(session, [self._datasets.raw, self._datasets.platform])
            tables = {schema: tables.keys() for schema, tables in _list_platform_tables(self._datasets).items()}
            refuse_in_platform_tables(self._planted, tables, where=session.where)
            if self._find_missing(session):
                session.rollback()
                session.lock_definitions()
                # Read again: the process that held the lock may have made them.
                for schema, tables in self._find_missing(session).items():
                    session.create_schema(schema)
                    for name, (columns, key, is_new) in tables.items():
                        if is_new:
                            session.create(Table(schema, name), columns, key=key)
                        else:
                            session.add_columns(Table(schema, name), columns)
                session.commit()
            ledger.end_dead_loads(session, self._datasets.platform, self._source)
            layouts, recorded = self._layouts or {}, read_recorded(session, self._names)
            self._foreign = find_foreign_runs(session, self._names, recorded, layouts)
            self._bookkeeping = DltBookkeeping(self._names, recorded, layouts)
            session.commit()

    def read_layouts(self) -> dict[str, dict[str, pa.DataType]]:
        """Read each table's columns and their types. The first call returns what `prepare` has read: a destination lists its columns slowly."""
        layouts, self._layouts = self._layouts, None
        if layouts is None:
            with self._borrow() as session:
                layouts = _leave_dlts_out(session.read_columns(self._datasets.raw))
        return layouts

    def list_planted(self, roots: Collection[str]) -> list[Planted]:
        """List objects at a stream's tables that no load has made and that act on rows, as of `prepare`.

        Args:
            roots: the stream's tables; those of nested lists belong to them.
        """
        return list_of_tables(self._planted, self._datasets.raw, roots)

    def describe_foreign(self, roots: Collection[str], streams: Collection[str]) -> Iterator[str]:
        """Describe, for a stream's summary, what others have made or changed at its tables.

        Args:
            roots: the stream's tables.
            streams: the tables of all streams.
        """
        yield from describe_acting(self.list_planted(roots))
        yield from self._foreign.take_warnings(roots, streams)

    def explain_refusal(self, error: FabricError, roots: Sequence[str], *, report: Callable[[str], None]) -> FabricError:
        """Name what may be the reason why the destination refuses a stream's rows; the error itself where nothing is found.

        Args:
            roots: the stream's own table first.
            report: told where the destination does not answer.
        """
        if type(error) not in REFUSALS:
            return error
        try:
            with self._borrow() as session:
                return explain_refusal(error, session, self._datasets.raw, roots)
        except Exception as second:  # noqa: BLE001 - of a driver: the first error is the one to be told
            what = f"{self._source}.{roots[0]}: the destination could not be asked for objects that refuse rows"
            fault = self._report_fault(second, what)
            report(fault.message if fault else f"{what}: {type(second).__name__}: {second}")
            return error

    def read_states(self) -> dict[str, StreamState]:
        with self._borrow() as session:
            return ledger.read_states(session, self._datasets.platform, self._source)

    def read_files(self, tenant: str, stream: str) -> list[ImportedFile]:
        with self._borrow() as session:
            return import_ledger.read_files(session.ask, tenant, self._source, stream)

    def query(self, sql: str) -> pa.Table:
        """Ask outside of every stream's transaction: what is committed."""
        with self._borrow() as session:
            return session.query(sql)

    def ask(self, sql: str) -> Rows:
        with self._borrow() as session:
            return session.ask(sql)

    def run(self, work: Callable[[Session], None]) -> None:
        """Run a function in a transaction of its own: all of its work is committed, or nothing."""
        with self._borrow() as session:
            work(session)
            session.commit()

    def start(self, records: Sequence[LoadRecord]) -> None:
        """Write the ledger's rows of loads that begin, and states of streams that have no state."""
        with self._borrow() as session:
            ledger.start_states(session, self._datasets.platform, records)
            ledger.write_records(session, self._datasets.platform, records)
            session.commit()

    def record_failure(self, record: LoadRecord, rejects: Sequence[Reject]) -> bool:
        """Write a failed load's row of the ledger and its rejected rows; return False if the ledger says that it has succeeded."""
        with self._borrow() as session:
            has_failed = ledger.write_ends(session, self._datasets.platform, [record])
            if has_failed and rejects:
                rejected_rows.stage(session, rejects, Counter(), source=record.source, stream=record.stream, is_first=True)
                rejected_rows.write(session, self._datasets.platform, record)
            session.commit()
        return has_failed

    def begin(self) -> Transaction:
        """Begin a transaction, on a connection of its own."""
        return Transaction(self._acquire(), self._datasets, self._source, release=self._release, list_planted=self.list_planted, bookkeeping=self._bookkeeping)

    def close(self) -> None:
        """Close every session; what is not committed is rolled back. A second call waits until the first is done."""
        with self._closing:
            with self._lock:
                sessions = [*self._free, *self._used]
                self._free, self._used, self._is_closed = [], set(), True
            for session in sessions:
                session.abort()
            self._close()

    def _find_missing(self, session: Session) -> dict[str, dict[str, tuple[Columns, Sequence[str], bool]]]:
        """schema -> table -> missing columns, primary key, whether the table itself is missing."""
        missing = {}
        for schema, tables in _list_platform_tables(self._datasets).items():
            found = session.read_columns(schema)
            if schema == self._datasets.raw:
                self._layouts = _leave_dlts_out(found)
            lacking = {
                name: ({column: kind for column, kind in columns.items() if column not in found.get(name, {})}, key, name not in found)
                for name, (columns, key) in tables.items()
            }
            missing[schema] = {name: entry for name, entry in lacking.items() if entry[0]}
        if not any(missing.values()):
            return {}
        return {**missing, **({self._datasets.staging: {}} if self._datasets.staging else {})}

    @contextmanager
    def _borrow(self) -> Iterator[Session]:
        session = self._acquire()
        try:
            yield session
            session.rollback()
        except BaseException:
            session.abort()
            raise
        finally:
            self._release(session)

    def _acquire(self) -> Session:
        with self._lock:
            session = self._free.pop() if self._free else None
            is_closed = self._is_closed
        if not is_closed:
            session = session or self._connect()
            with self._lock:
                is_closed = self._is_closed
                if not is_closed:
                    self._used.add(session)
                    return session
            session.abort()
        # This thread was left behind: the lease is released, and another run may be loading.
        raise DestinationUnavailable(f"{self._source}: the load is over")

    def _release(self, session: Session) -> None:
        with self._lock:
            self._used.discard(session)
            if session.is_open:
                self._free.append(session)


def _leave_dlts_out(tables: dict[str, dict[str, pa.DataType]]) -> dict[str, dict[str, pa.DataType]]:
    return {name: columns for name, columns in tables.items() if not name.startswith("_dlt_")}


def _list_platform_tables(datasets: Datasets) -> dict[str, dict[str, tuple[Columns, Sequence[str]]]]:
    """schema -> table -> columns, primary key."""
    platform = {
        **ledger.TABLES,
        "rejected_rows": (rejected_rows.REJECTED_ROWS, ("row_id",)),
        "imported_files": (import_ledger.IMPORTED_FILES, ("file_id",)),
    }
    return {datasets.platform: platform, datasets.raw: {name: (columns, ()) for name, columns in DLT_TABLES.items()}}
