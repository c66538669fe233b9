"""One connection to a warehouse and its transaction -> the few verbs that loading needs, alike for both destinations.

A session belongs to one thread at a time, but any thread may abort it: a load whose time is up must not wait for a destination
that does not answer.
"""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from fabric_assets.drivers.asking import Rows
from fabric_assets.errors import DestinationUnavailable
from fabric_assets.quoting import quote, quote_table
from fabric_assets.rows.reports import ColumnReport, read_table
from fabric_assets.warehouse.planted_sql import PlantedSql

# Longest that an abort waits for the statement that it has cancelled.
_CANCEL_SECONDS = 5.0
Columns = Mapping[str, pa.DataType]


class WriteConflict(DestinationUnavailable):
    """Another transaction has changed the same rows meanwhile."""


class KeyConflict(WriteConflict):
    """A unique index of the database refuses a row: another transaction has written one with its key, or the table has an index that no load has made."""


@dataclass(frozen=True)
class Table:
    """A table's name in SQL.

    Args:
        schema: with its catalog before a dot where a schema of that name may be in another catalog too; datasets' names have no dot.
    """

    schema: str
    name: str

    def __str__(self) -> str:
        return quote_table(*self.schema.split("."), self.name)


class Session(ABC):
    """The transaction begins by itself with the first statement.

    Args:
        where: tenant and destination, for messages.
    """

    # Of a table that is called t: what tells its rows apart, and what grows from each insert of this transaction to the next.
    row: ClassVar[str]
    write_order: ClassVar[str]
    temporary_schema: ClassVar[str]
    planted_sql: ClassVar[PlantedSql]

    def __init__(self, where: str) -> None:
        self.where = where
        self._lock, self._given_up, self._closed = threading.RLock(), False, False
        self._deferred = list[str]()

    @property
    def is_open(self) -> bool:
        return not (self._closed or self._given_up)

    @abstractmethod
    def execute(self, sql: str) -> int:
        """Run a statement; the number of rows that it changed."""

    def defer(self, sql: str) -> None:
        """Run a statement in one call of the driver with the next one: for what nobody asks a number of."""
        self._deferred.append(sql)

    @abstractmethod
    def query(self, sql: str) -> pa.Table: ...

    def ask(self, sql: str) -> Rows:
        return list(zip(*(column.to_pylist() for column in self.query(sql).columns), strict=True))

    @abstractmethod
    def insert(self, table: Table, rows: pa.Table) -> int:
        """Insert rows, columns by their names, of exactly the table's types; the number that the database has taken."""

    def delete(self, table: Table, condition: str = "", *, using: str = "") -> int:
        """Delete rows; the number of them.

        Args:
            condition: empty for all rows.
            using: other tables that the condition names, with their aliases; the table itself is then t.
        """
        return self.execute(f"delete from {table} as t{f' using {using}' if using else ''}{f' where {condition}' if condition else ''}")

    def delete_own(self, table: Table, condition: str) -> int:
        """Delete rows of a table that holds nothing but what this transaction has inserted; their number.

        Args:
            condition: calls the table t.
        """
        return self.delete(table, condition)

    @abstractmethod
    def create_schema(self, name: str) -> None:
        """Make a schema that does not exist yet."""

    @abstractmethod
    def create(self, table: Table, columns: Columns, *, key: Sequence[str] = ()) -> None:
        """Make a table.

        Args:
            key: a primary key, where the destination gains by it.
        """

    @abstractmethod
    def add_columns(self, table: Table, columns: Columns) -> None: ...

    def rename_columns(self, table: Table, names: Mapping[str, str]) -> None:
        """Rename columns, old name -> new name; two may exchange theirs. Nothing of the table may have been changed in this transaction."""
        # By way of names that no load makes, so that no new name meets an old one.
        between = {old: f"_fabric_renamed_{number}" for number, old in enumerate(names)}
        for old, new in [*between.items(), *((between[old], new) for old, new in names.items())]:
            self.execute(f"alter table {table} rename column {quote(old)} to {quote(new)}")

    def rewrite_columns(self, table: Table, columns: Mapping[str, tuple[str, str]]) -> None:
        """Compute columns anew: name -> the destination's type, the SQL of the values."""
        for name, (kind, sql) in columns.items():
            self.execute(f"alter table {table} alter column {quote(name)} type {kind} using {sql}")

    def find_views(self, table: Table, columns: Collection[str]) -> Mapping[str, str]:
        """The views that keep columns from getting another type: name in SQL -> the word that drops it."""
        return {}

    def replace_texts(self, table: Table, column: str, lists: Table, *, list_type: str, variant: str | None) -> None:
        """Put lists in the place of a column's texts.

        Args:
            lists: each text as value, its list, and what stands beside in place of the list.
            list_type: the destination's.
            variant: the column to make for what stands beside; None where nothing does.
        """
        former = "_fabric_former"
        self.execute(f"alter table {table} rename column {quote(column)} to {quote(former)}")
        added = f", add column {quote(variant)} {self.name_type(pa.string())}" if variant else ""
        self.execute(f"alter table {table} add column {quote(column)} {list_type}{added}")
        beside = f", {quote(variant)} = l.beside" if variant else ""
        self.execute(f"update {table} as t set {quote(column)} = l.list{beside} from {lists} as l where t.{quote(former)} = l.value")
        self.execute(f"alter table {table} drop column {quote(former)}")

    @abstractmethod
    def read_columns(self, schema: str) -> dict[str, dict[str, pa.DataType]]:
        """Each table of a schema, its columns in their order, and their types."""

    def read_table(self, table: Table, *, made: Columns | None = None) -> tuple[int, tuple[ColumnReport, ...]]:
        """A table's row count and columns; (0, ()) where it does not exist.

        Args:
            made: the columns with which this transaction has made it: to ask for them takes longer than a small load.
        """
        if made is None:
            return self._read_table(table)
        columns = (ColumnReport(name, self.name_type(kind).lower(), nullable=True) for name, kind in made.items() if not name.startswith("_dlt_"))
        return self.ask(f"select count(*) from {table}")[0][0], tuple(columns)

    def _read_table(self, table: Table) -> tuple[int, tuple[ColumnReport, ...]]:
        return read_table(self.ask, table.schema, table.name)

    @staticmethod
    @abstractmethod
    def name_type(kind: pa.DataType) -> str:
        """What the destination calls a type of ours."""

    def lock_definitions(self) -> None:  # noqa: B027 - nothing to do where one process at a time writes a database
        """Let nobody else make schemas or tables of the platform until this transaction ends."""

    def find_kept_key(self, table: Table) -> tuple[str, ...] | None:
        """The columns whose values the database itself lets no two rows of the table share, by `keep_key`."""
        return None

    def keep_key(self, table: Table, key: Sequence[str]) -> bool:
        """Let the database refuse a second row with the same key, and find rows by it; False where rows share one, or it has no such means."""
        return False

    def forget_key(self, table: Table) -> None:  # noqa: B027 - nothing to do where none is kept
        """Take `keep_key` back."""

    def find_faster_by(self, table: Table, column: str) -> None:  # noqa: B027 - nothing to do where columns are found fast by themselves
        """Let rows be found by a column without reading the table."""

    def analyze(self, table: Table) -> None:  # noqa: B027 - nothing to do where the planner counts for itself
        """Tell the planner what a table that was just filled holds."""

    @abstractmethod
    def commit(self) -> None: ...

    @abstractmethod
    def rollback(self) -> None: ...

    def abort(self) -> None:
        """Roll back and close, from whatever thread; what runs is cancelled."""
        self._given_up = True
        if not self._lock.acquire(blocking=False):
            self._cancel()
            if not self._lock.acquire(timeout=_CANCEL_SECONDS):
                # Whoever is in there closes it on the way out.
                return
        try:
            self._close_once()
        finally:
            self._lock.release()

    def _join_deferred(self, *sql: str) -> str:
        statements, self._deferred = [*self._deferred, *sql], []
        return "; ".join(statements)

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        """Hold the connection for a call to its driver."""
        with self._lock:
            if not self.is_open:
                raise DestinationUnavailable(f"{self.where}: the connection has been given up")
            try:
                yield
            except Exception as error:
                translated = self._translate(error)
                if translated is None:
                    raise
                raise translated from error
            finally:
                if self._given_up:
                    self._close_once()

    def _close_once(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(Exception):
                self._close()

    @abstractmethod
    def _translate(self, error: Exception) -> Exception | None:
        """Say in our words what the driver raised; None where its own words will do."""

    @abstractmethod
    def _cancel(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...
