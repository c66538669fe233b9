"""A stream's rows, batch by batch -> one of its tables, or a temporary table until the load is complete.

Rows are staged in a temporary table if they must be merged, or if they have a new column. To add a column locks the table against
readers, so it is done last.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote, quote_all, quote_match
from fabric_assets.rows.arrow_types import BIGINT, DOUBLE, LARGE
from fabric_assets.rows.variant_columns import is_variant
from fabric_assets.warehouse.session import Session, Table
from fabric_assets.warehouse.source_keys import MARK

# Types to which a new column of whole numbers may widen during the load; the names are the same in both destinations.
_WIDER = {DOUBLE: "double precision", LARGE: "decimal(38, 0)"}

# Small files or pages are gathered: a statement for each of them would take longer than its rows.
_ENOUGH_ROWS, _ENOUGH_BYTES = 10_000, 8 * 1024 * 1024


class StreamTable:
    """One table of a stream, during a load.

    Args:
        columns: the table's columns; empty if it does not exist.
        waits: the rows are staged, to be merged.
        grows: the table is empty, so add columns immediately: de-duplication needs all rows in one table.
        gathers: insert a few rows together with later ones. Not for a merge, in which the rows of a later statement are newer.
    """

    def __init__(
        self, session: Session, table: Table, columns: Mapping[str, pa.DataType], *, waits: bool = False, grows: bool = False, gathers: bool = False
    ) -> None:
        self._session, self.table, self._grows, self._gathers = session, table, grows, gathers
        self.columns, self._exists, self._waits = dict(columns), bool(columns), waits
        self._stage: Table | None = None
        self._stage_columns: dict[str, pa.DataType] = {}
        self._staged = 0
        # Rows with the same columns that are not inserted yet.
        self._gathered: list[pa.Table] = []
        self._rows = self._bytes = 0
        # Columns that this load has added. They may still widen: nobody reads them yet, and no view uses them.
        self._made: set[str] = set()

    @property
    def is_new(self) -> bool:
        return not self._exists

    @property
    def filled(self) -> Table:
        """The table that holds this load's rows now. It holds other rows too if the table existed and rows are not staged."""
        return self._stage or self.table

    @property
    def filled_columns(self) -> Mapping[str, pa.DataType]:
        return self._stage_columns if self._stage else self.columns

    @property
    def stage(self) -> Table | None:
        return self._stage

    def write(self, rows: pa.Table) -> None:
        """Write rows, or gather them until `flush`."""
        columns = {field.name: field.type for field in rows.schema}
        self._check(columns)
        if self._gathered and not rows.schema.equals(self._gathered[0].schema, check_metadata=True):
            self.flush()
        self._made |= columns.keys() - self.columns.keys()
        if self._stage is None and self._exists and (self._waits or (columns.keys() - self.columns.keys() and not self._grows)):
            self._stage = Table(self._session.temporary_schema, self.table.name)
        if self._stage is None:
            _fit(self._session, self.table, self.columns, columns)
        else:
            _fit(self._session, self._stage, self._stage_columns, columns)
        self._gathered.append(rows)
        self._rows, self._bytes = self._rows + rows.num_rows, self._bytes + rows.nbytes
        if not self._gathers or self._rows >= _ENOUGH_ROWS or self._bytes >= _ENOUGH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Insert the gathered rows."""
        if not self._gathered:
            return
        # As one chunk: DuckDB reserves memory for each of the hundreds of chunks of an insert.
        rows = self._gathered[0] if len(self._gathered) == 1 else pa.concat_tables(self._gathered).combine_chunks()
        self._gathered, self._rows, self._bytes = [], 0, 0
        self._insert(self.filled, rows)
        if self._stage is not None:
            self._staged += rows.num_rows

    def delete_staged(self, condition: str) -> None:
        """Delete rows of this load; the condition calls the table t."""
        self.count_deleted(self._session.delete_own(self.filled, condition))

    def count_deleted(self, rows: int) -> None:
        """Note that staged rows of this load have been deleted."""
        if self._stage is not None:
            self._staged -= rows

    def keep_unread(self, key: Sequence[str], *, mark_alone: bool = False) -> None:
        """Copy the table's values into the staged rows for the columns that this load has not read.

        Args:
            mark_alone: only the mark of a deleted row: a replay has not seen it at the source again.
        """
        unread = {name: kind for name, kind in self.columns.items() if name not in self._stage_columns and not is_variant(name, self._stage_columns)}
        # A row that the source has again is no longer marked as deleted.
        unread = {name: kind for name, kind in unread.items() if (name == MARK) is mark_alone}
        if self._stage is None or not unread:
            return
        _fit(self._session, self._stage, self._stage_columns, unread)
        values = ", ".join(f"{quote(name)} = t.{quote(name)}" for name in unread)
        same = quote_match(key, "s", "t")
        self._session.execute(f"update {self._stage} as s set {values} from {self.table} as t where {same}")

    def insert_staged(self) -> None:
        """Insert the staged rows into the table."""
        if self._stage is None:
            return
        _fit(self._session, self.table, self.columns, self._stage_columns)
        names = quote_all(self._stage_columns)
        moved = self._session.execute(f"insert into {self.table} ({names}) select {names} from {self._stage}")
        if moved != self._staged:
            raise build_count_error(self.table, self._staged, moved)
        self._session.execute(f"drop table {self._stage}")
        self._stage = None

    def _insert(self, table: Table, rows: pa.Table) -> None:
        if rows.num_rows:
            taken = self._session.insert(table, rows)
            if taken != rows.num_rows:
                raise build_count_error(self.table, rows.num_rows, taken)

    def _check(self, columns: Mapping[str, pa.DataType]) -> None:
        """Check types: a binary COPY would reinterpret the bytes of another type."""
        for name, kind in columns.items():
            known = self.columns.get(name) or self._stage_columns.get(name)
            if known is not None and known != kind and not (name in self._made and known == BIGINT and kind in _WIDER):
                raise DestinationError(f"{self.table}: the column {name} is {known} and rows came with {kind}", remedy="load anew with --full-refresh")


def _fit(session: Session, table: Table, known: dict[str, pa.DataType], columns: Mapping[str, pa.DataType]) -> None:
    """Make the table, or add the columns that it lacks."""
    missing = {name: kind for name, kind in columns.items() if name not in known}
    if not known:
        session.create(table, missing)
    elif missing:
        session.add_columns(table, missing)
    for name, kind in columns.items():
        if name in known and known[name] != kind:
            session.execute(f"alter table {table} alter column {quote(name)} type {_WIDER[kind]}")
    known.update(columns)


def build_count_error(table: Table, expected: int, found: int) -> DestinationError:
    return DestinationError(
        f"{table}: {expected} rows were sent to the destination and it has inserted {found}; nothing was kept",
        remedy="see whether a trigger or rule of the table removes rows",
    )
