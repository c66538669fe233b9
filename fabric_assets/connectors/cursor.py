"""A stream's `cursor:` -> where to begin reading, which rows are new, and what to remember for the next load.

The position is kept in the stream's state, which commits with the rows. `dlt.sources.incremental` is not used, because it loses
rows of three kinds. These are merged rows that change twice within one cursor value, equal rows that arrive later in an append, and rows with a
NULL cursor. Reading begins AT the last value. A merge can read its rows again; an append remembers the rows already loaded at that
value, each with its number of copies. If the state is lost, it is rebuilt from the warehouse's rows.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.sources.streams import CursorConfig
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.cursor_proof import CursorProof
from fabric_assets.connectors.cursor_values import can_follow, decode, describe_if_ahead, encode, find_usable, is_ordered
from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.rows.batches import StreamMemory
from fabric_assets.rows.mixed_columns import split
from fabric_assets.rows.row_digests import digest_rows

MAX_TIES = 200_000


class Cursor:
    """The cursor of one load of a stream: filters its rows, and keeps the position.

    Args:
        kind: the cursor column's Arrow type.
        append: rows are appended, so those at the boundary must not be loaded twice.
        key: the primary key, which identifies a row in an append; empty: the whole row identifies it.
        columns: all columns that are read.
        memory: only `commit` changes its state.
        where: tenant, source and stream, for messages.
        proof: checks the values; None if the YAML declares `trust`.
    """

    def __init__(
        self,
        config: CursorConfig,
        *,
        kind: pa.DataType,
        append: bool,
        key: Sequence[str],
        columns: Sequence[str],
        memory: StreamMemory,
        where: str,
        proof: CursorProof | None = None,
    ) -> None:
        self._config, self._field, self._kind, self._append, self._key = config, config.field, kind, append, tuple(key)
        self._memory, self._where = memory, where
        if not is_ordered(kind):
            raise ConfigurationError(
                f"{where}: the cursor {config.field} has the type {kind}, which has no order to follow",
                remedy="choose a number, date, timestamp or text column",
            )
        self._proof = proof
        self._check_lag(config.lag)
        self._last: Any = None
        # The number of copies of each row at the highest value so far. `_seen` are those of earlier loads that have not come again yet.
        self._ties: Counter[str] = Counter()
        self._tie_columns: tuple[str, ...] = ()
        if "value" in memory.state:
            self._restore(memory.state, columns)
        else:
            self._rebuild(columns)
        self.start = self._step_back(self._last, config.lag) if self._last is not None else self._parse_initial(config.initial)
        if proof is not None:
            proof.begin(self._last)
        self._highest, self._seen, self._met = self._last, Counter(self._ties), False
        # Whether the load also reads rows from before the start, because no earlier load could see them.
        self.reads_late = False
        self._note_start()

    @property
    def may_have_gone_back(self) -> bool:
        """Whether not even the last row of the earlier load has come again."""
        return self._last is not None and not self._met

    def filter(self, table: pa.Table) -> pa.Table:
        """Keep the new rows, and note their highest value.

        Raises:
            DataError: a row of an append has no usable cursor, so whether it was loaded before is not known.
        """
        column = table[self._field]
        if column.type != self._kind:
            raise DataError(
                f"{self._where}: the cursor {self._field} holds a value that its type {self._kind} cannot carry",
                remedy="correct it at the source, or leave its row out on purpose by the stream's where",
            )
        if self._proof is not None:
            self._proof.check(column)
        usable = find_usable(column)
        useless = table.num_rows - (pc.sum(usable).as_py() or 0)
        if self._append and useless:
            raise DataError(
                f"{self._where}: {useless} rows have no {self._field}, so an append cannot tell whether it has loaded them before",
                remedy=f"use merge with a primary_key, which reads them in each load, or leave them out on purpose: where: {self._field} is not null",
            )
        start = self._parse_initial(self._config.initial) if self.reads_late else self.start
        if start is not None:
            after = pc.fill_null(pc.greater_equal(column, pa.scalar(start, self._kind)), False)
            keep = pc.or_(after, pc.invert(usable))
            if pc.sum(keep).as_py() != table.num_rows:
                table, usable = table.filter(keep), pc.filter(usable, keep)
        known = table if not useless else table.filter(usable)
        # Rows within the lag alone do not show that the source still has the newest one.
        self._met = self._met or (self._last is not None and known.num_rows > 0 and pc.max(known[self._field]).as_py() >= self._last)
        if self._append and self._last is not None and self._seen:
            table = known = self._drop_seen(table)
        if self._append and self._last is not None and (self.reads_late or self._config.lag is not None):
            table = known = self._drop_known(table)
        self._observe(known)
        return table

    def find_highest(self, table: pa.Table) -> Any:
        """The highest usable value of a table; None if it has none."""
        column = split(table[self._field])[0]
        return pc.max(pc.filter(column, find_usable(column))).as_py()

    def begin_again(self, highest: Any, *, context: SourceContext) -> bool:
        """Whether the source's highest value went back, so that all rows must be read again.

        Args:
            highest: at the source now. None (no rows), or a value before `initial`, does not count as going back.

        Raises:
            DataError: it went back in an append, which cannot tell which of the rows it has loaded.
        """
        initial = self._parse_initial(self._config.initial)
        if highest is None or highest >= self._last or (initial is not None and highest < initial):
            return False
        what = f"{self._where}: the cursor {self._field} went back from {encode(self._last)} to {encode(highest)}: the source looks restored"
        if self._append:
            raise DataError(
                f"{what}, and an append cannot tell which rows it has loaded", remedy="look at the source, then load the stream with --full-refresh"
            )
        context.report(f"{what}; all of its rows are read again")
        self.start, self._last, self._highest = initial, None, None
        self._note_start()
        return True

    def commit(self, *, context: SourceContext) -> None:
        """Save the load's position, where the next load begins.

        Raises:
            DataError: the cursor does not grow with the age of its rows.
        """
        if self._proof is not None:
            self._proof.finish()
        if self._highest is None:
            return
        state = self._memory.state
        state["value"], state["kind"], state["field"] = encode(self._highest), str(self._kind), self._field
        self._memory.window.end = state["value"]
        if ahead := describe_if_ahead(self._highest):
            context.report(f"{self._where}: the cursor {self._field} has come to {ahead}")
        if self._append:
            if self._ties.total() > MAX_TIES:
                raise DataError(
                    f"{self._where}: more than {MAX_TIES} rows share the newest {self._field}, too many to remember",
                    remedy="use a finer cursor, or merge with a primary_key",
                )
            state["ties"], state["tie_columns"] = dict(self._ties), list(self._tie_columns)
        else:
            state.pop("ties", None)

    def _note_start(self) -> None:
        self._memory.window.start = None if self.start is None else encode(self.start)

    def _restore(self, state: dict[str, Any], columns: Sequence[str]) -> None:
        """Continue from the state of the last load."""
        if state.get("field", self._field) != self._field:
            if self._append:
                raise DataError(
                    f"{self._where}: the cursor was {state['field']} and is now {self._field}, and an append cannot tell which rows it has loaded",
                    remedy="load the stream anew with --full-refresh",
                )
            return
        if not can_follow(state["kind"], self._kind):
            raise self._build_kind_error(state["kind"])
        if self._append and "ties" not in state:
            # The stream was merged until now, and a merge remembers no rows.
            self._rebuild(columns)
            return
        self._last = decode(state["value"], self._kind)
        self._ties, self._tie_columns = Counter(state.get("ties", {})), tuple(state.get("tie_columns", ()))

    def _rebuild(self, columns: Sequence[str]) -> None:
        """Continue from the warehouse's rows: the state is lost, or the cursor is new."""
        highest = self._memory.get_highest(self._field)
        if highest is None:
            return
        try:
            self._last = decode(encode(highest), self._kind)
        except (ValueError, InvalidOperation):
            raise self._build_kind_error(str(self._memory.get_type(self._field))) from None
        if self._append:
            rows = self._memory.get_rows_at(self._field, highest)
            self._tie_columns = tuple(name for name in self._key or columns if self._memory.get_column(name) in rows.column_names)
            self._ties = Counter(digest_rows(rows, list(map(self._memory.get_column, self._tie_columns))))

    def _observe(self, table: pa.Table) -> None:
        highest = pc.max(table[self._field]).as_py() if table.num_rows else None
        if highest is None:
            return
        if self._highest is None or highest > self._highest:
            self._highest, self._ties, self._tie_columns = highest, Counter(), ()
        elif highest < self._highest:
            return
        # More than MAX_TIES are refused by `commit`, and need not be counted.
        if self._append and self._ties.total() <= MAX_TIES:
            at_highest = table.filter(pc.equal(table[self._field], pa.scalar(highest, self._kind)))
            self._tie_columns = self._tie_columns or self._key or tuple(table.schema.names)
            self._ties.update(digest_rows(at_highest, self._tie_columns))

    def _drop_seen(self, table: pa.Table) -> pa.Table:
        """Leave out the rows at the boundary that an earlier load has brought."""
        boundary = pc.equal(table[self._field], pa.scalar(self._last, self._kind))
        at_boundary = table.filter(boundary)
        if not at_boundary.num_rows:
            return table
        missing = [name for name in self._tie_columns if name not in table.schema.names]
        if missing:
            raise DataError(
                f"{self._where}: column {missing[0]} is gone, by which an append identified the rows of the newest {self._field} that it has loaded",
                remedy="declare a primary_key, or load the stream anew with --full-refresh",
            )
        keep = []
        for digest in digest_rows(at_boundary, self._tie_columns):
            keep.append(self._seen[digest] <= 0)
            self._seen[digest] -= 1
        fresh = at_boundary.filter(pa.array(keep, type=pa.bool_()))
        return pa.concat_tables([table.filter(pc.invert(boundary)), fresh])

    def _drop_known(self, table: pa.Table) -> pa.Table:
        """Leave out rows below the boundary that the warehouse has; key and cursor value identify a row's version."""
        older = pc.less(table[self._field], pa.scalar(self._last, self._kind))
        rows = table.filter(older)
        if not rows.num_rows:
            return table
        names = list(dict.fromkeys((*self._key, self._field)))
        return pa.concat_tables([table.filter(pc.invert(older)), rows.filter(pc.invert(self._memory.find_known(rows.select(names))))])

    def _check_lag(self, lag: timedelta | int | None) -> None:
        """Refuse a lag that does not match the cursor's type, at the first load already."""
        if lag is None:
            return
        what = f"{self._where}: the cursor {self._field} has the type {self._kind}"
        if pa.types.is_string(self._kind) or pa.types.is_large_string(self._kind):
            raise ConfigurationError(f"{what}, and a lag needs a timestamp, date or number", remedy="leave out cursor.lag, or choose another cursor")
        temporal = pa.types.is_temporal(self._kind)
        if temporal != isinstance(lag, timedelta):
            raise ConfigurationError(f"{what}; its lag must be {'a duration such as 5m' if temporal else 'a number'}", remedy="correct cursor.lag")

    def _step_back(self, last: Any, lag: timedelta | int | None) -> Any:
        if lag is None:
            return last
        if isinstance(lag, timedelta) and not isinstance(last, datetime):
            return last - timedelta(days=math.ceil(lag / timedelta(days=1)))
        return last - lag  # pyright: ignore[reportOperatorIssue] - the two kinds match: see above

    def _parse_initial(self, initial: str | int | None) -> Any:
        if initial is None:
            return None
        try:
            return decode(str(initial), self._kind)
        except (ValueError, InvalidOperation):
            raise ConfigurationError(
                f"{self._where}: cursor.initial does not read as {self._kind}, the type of {self._field}",
                remedy="write it as the column does: 2024-01-31, 2024-01-31T12:00:00Z or a number",
            ) from None

    def _build_kind_error(self, before: str) -> DataError:
        return DataError(f"{self._where}: the cursor {self._field} was {before} and is now {self._kind}", remedy="load the stream anew with --full-refresh")
