"""A connection to a warehouse and its transaction -> the few operations that a load needs, the same for every destination.

One thread at a time uses a session. Any thread may abort it: a load whose time is up must not wait for a dead server.
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

# The longest time that an abort waits for the statement that it has cancelled.
_CANCEL_SECONDS = 5.0
Columns = Mapping[str, pa.DataType]


class WriteConflict(DestinationUnavailable):
    """Raised when another transaction has changed the same rows."""


class KeyConflict(WriteConflict):
    """Raised when a unique index refuses a row. Another transaction has written the key, or the index is not ours."""


@dataclass(frozen=True)
class Datasets:
    """The schemas of a source.

    Args:
        staging: the schema in which a full refresh makes its tables while readers still see the old ones; None where it needs none.
    """

    raw: str
    platform: str
    staging: str | None = None


@dataclass(frozen=True)
class Table:
    """A table's name in SQL.

    Args:
        schema: with its catalog before a dot if another catalog may have a schema of that name; datasets' names have no dot.
    """

    schema: str
    name: str

    def __str__(self) -> str:
        return quote_table(*self.schema.split("."), self.name)


class Session(ABC):
    """A connection with one transaction, which begins with the first statement.

    Args:
        where: tenant and destination, for messages.
    """

    # SQL for a table called t: what identifies a row, and what grows with each insert of this transaction.
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
        """Run a statement; return the number of rows that it changed."""

    def defer(self, sql: str) -> None:
        """Run a statement in the same call of the driver as the next one. Its number of rows is not known."""
        self._deferred.append(sql)

    @abstractmethod
    def query(self, sql: str) -> pa.Table: ...

    def ask(self, sql: str) -> Rows:
        return list(zip(*(column.to_pylist() for column in self.query(sql).columns), strict=True))

    @abstractmethod
    def insert(self, table: Table, rows: pa.Table) -> int:
        """Insert rows of exactly the table's types, columns by their names; return the number that the database has inserted."""

    def delete(self, table: Table, condition: str = "", *, using: str = "") -> int:
        """Delete rows; return their number.

        Args:
            condition: empty for all rows.
            using: other tables that the condition names, with their aliases; the table itself is then t.
        """
        return self.execute(f"delete from {table} as t{f' using {using}' if using else ''}{f' where {condition}' if condition else ''}")

    def delete_own(self, table: Table, condition: str) -> int:
        """Delete rows of a table that holds only rows of this transaction; return their number.

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
            key: a primary key, if it helps the destination.
        """

    @abstractmethod
    def add_columns(self, table: Table, columns: Columns) -> None: ...

    def rename_columns(self, table: Table, names: Mapping[str, str]) -> None:
        """Rename columns, old name -> new name; two columns may swap names. The transaction must not have changed the table before."""
        # Via temporary names, so that a new name never meets an old one.
        between = {old: f"_fabric_renamed_{number}" for number, old in enumerate(names)}
        for old, new in [*between.items(), *((between[old], new) for old, new in names.items())]:
            self.execute(f"alter table {table} rename column {quote(old)} to {quote(new)}")

    def rewrite_columns(self, table: Table, columns: Mapping[str, tuple[str, str]]) -> None:
        """Change the type and values of columns: name -> the destination's type, the SQL of the values."""
        for name, (kind, sql) in columns.items():
            self.execute(f"alter table {table} alter column {quote(name)} type {kind} using {sql}")

    def find_views(self, table: Table, columns: Collection[str]) -> Mapping[str, str]:
        """Find the views that prevent a change of columns' types: name in SQL -> the word that drops it."""
        return {}

    def replace_texts(self, table: Table, column: str, lists: Table, *, list_type: str, variant: str | None) -> None:
        """Replace a column's texts by lists.

        Args:
            lists: a table with each text as `value`, its `list`, and `beside`, the text for the variant column.
            list_type: the destination's type.
            variant: the variant column to add; None if no text needs it.
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
        """Read each table of a schema, its columns in their order, and their types."""

    def read_table(self, table: Table, *, made: Columns | None = None) -> tuple[int, tuple[ColumnReport, ...]]:
        """Read a table's row count and columns; (0, ()) if it does not exist.

        Args:
            made: the columns, if this transaction has made the table: to read them would take longer than a small load.
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
        """Return the destination's name of a type."""

    def lock_definitions(self) -> None:  # noqa: B027 - nothing to do where one process at a time writes a database
        """Lock out other makers of the platform's schemas and tables until this transaction ends."""

    def find_kept_key(self, table: Table) -> tuple[str, ...] | None:
        """Find the unique key that `keep_key` has made; None if it has made no key."""
        return None

    def keep_key(self, table: Table, key: Sequence[str]) -> bool:
        """Make a unique index on the key; return False if rows share a key, or the database cannot do it."""
        return False

    def forget_key(self, table: Table) -> None:  # noqa: B027 - nothing to do where none is kept
        """Drop the unique index of `keep_key`."""

    def find_faster_by(self, table: Table, column: str) -> None:  # noqa: B027 - nothing to do where columns are found fast by themselves
        """Make an index on a column."""

    def analyze(self, table: Table) -> None:  # noqa: B027 - nothing to do where the planner counts for itself
        """Update the planner's statistics of a table that was just filled."""

    @abstractmethod
    def commit(self) -> None: ...

    @abstractmethod
    def rollback(self) -> None: ...

    def abort(self) -> None:
        """Roll back and close, from any thread; a running statement is cancelled."""
        self._given_up = True
        if not self._lock.acquire(blocking=False):
            self._cancel()
            if not self._lock.acquire(timeout=_CANCEL_SECONDS):
                # The thread that uses the session closes it when its call returns.
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
        """Turn a driver's exception into one of ours; None if it is to be raised as it is."""

    @abstractmethod
    def _cancel(self) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...
