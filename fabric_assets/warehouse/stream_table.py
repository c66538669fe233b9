"""One table of a stream, and its rows batch by batch -> rows in it, or waiting beside it until the load is complete.

Rows wait in a temporary table where they must be merged, and where they bring a new column: to add it locks the table against
readers, which is left to the last moment.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote, quote_all, quote_match
from fabric_assets.rows.arrow_types import BIGINT, DOUBLE, LARGE
from fabric_assets.rows.variant_columns import is_variant
from fabric_assets.warehouse.session import Session, Table

# What a column of whole numbers may become while the load that makes it goes on, in words of both destinations.
_WIDER = {DOUBLE: "double precision", LARGE: "decimal(38, 0)"}

# A statement for each of thousands of small files or pages would take longer than their rows.
_ENOUGH_ROWS, _ENOUGH_BYTES = 10_000, 8 * 1024 * 1024


class StreamTable:
    """Args:
    columns: those that it has; empty where it does not exist.
    waits: its rows are to be merged.
    grows: it is empty, so a new column is added at once: rows of one merge must all be in one place to be told apart.
    gathers: a few rows wait for more; not those of a merge, where each statement's rows are newer than the one's before.
    """

    def __init__(
        self, session: Session, table: Table, columns: Mapping[str, pa.DataType], *, waits: bool = False, grows: bool = False, gathers: bool = False
    ) -> None:
        self._session, self.table, self._grows, self._gathers = session, table, grows, gathers
        self.columns, self._exists, self._waits = dict(columns), bool(columns), waits
        self._stage: Table | None = None
        self._stage_columns: dict[str, pa.DataType] = {}
        self._staged = 0
        # Rows of one shape that are not inserted yet.
        self._gathered: list[pa.Table] = []
        self._rows = self._bytes = 0
        # Columns of this load's own, which may still widen: nobody reads them yet, and no view stands on them.
        self._made: set[str] = set()

    @property
    def is_new(self) -> bool:
        return not self._exists

    @property
    def filled(self) -> Table:
        """Where this load's rows are now; another load's are there only if the table existed and its rows do not wait."""
        return self._stage or self.table

    @property
    def filled_columns(self) -> Mapping[str, pa.DataType]:
        return self._stage_columns if self._stage else self.columns

    @property
    def stage(self) -> Table | None:
        return self._stage

    def write(self, rows: pa.Table) -> None:
        """Take rows, which are in the table after `flush`."""
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
        """Insert what was gathered."""
        if not self._gathered:
            return
        # In one piece: DuckDB sets memory aside for each piece of an insert, and gathered are hundreds of them.
        rows = self._gathered[0] if len(self._gathered) == 1 else pa.concat_tables(self._gathered).combine_chunks()
        self._gathered, self._rows, self._bytes = [], 0, 0
        self._insert(self.filled, rows)
        if self._stage is not None:
            self._staged += rows.num_rows

    def delete_staged(self, condition: str) -> None:
        """Delete rows of this load; the condition calls the table t."""
        self.count_deleted(self._session.delete_own(self.filled, condition))

    def count_deleted(self, rows: int) -> None:
        """Take note of rows of this load that have been deleted where they were."""
        if self._stage is not None:
            self._staged -= rows

    def keep_unread(self, key: Sequence[str]) -> None:
        """Let rows that wait keep the table's values in the columns that this load has not read."""
        unread = {name: kind for name, kind in self.columns.items() if name not in self._stage_columns and not is_variant(name, self._stage_columns)}
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
        """A binary COPY takes the bytes as the column's type has it, whatever they were meant to be."""
        for name, kind in columns.items():
            known = self.columns.get(name) or self._stage_columns.get(name)
            if known is not None and known != kind and not (name in self._made and known == BIGINT and kind in _WIDER):
                raise DestinationError(f"{self.table}: the column {name} is {known} and rows came with {kind}", remedy="load anew with --full-refresh")


def _fit(session: Session, table: Table, known: dict[str, pa.DataType], columns: Mapping[str, pa.DataType]) -> None:
    """Make the table, or add what columns it lacks."""
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
        f"{table}: {expected} rows were handed to the destination and it has taken {found}; nothing was kept",
        remedy="see whether a trigger or rule of the table takes rows away",
    )
