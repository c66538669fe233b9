"""A stream's `cursor:` -> where to begin reading, which rows are new, and what to remember for the next load.

Kept in dlt's state, so that it commits with the rows. Not `dlt.sources.incremental`, for three cases in which that one
loses a row: a row of a merged stream that changes twice within one cursor value, an equal row that arrives later in an
appended stream, and a NULL cursor. Reading begins AT the last value: merging makes its rows harmless to read again, and for
append the rows already loaded at that value are remembered, each with its number of copies.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.config.streams import CursorConfig
from fabric_assets.connectors import arrow_types
from fabric_assets.errors import ConfigurationError, DataError

MAX_TIES = 200_000


class Cursor:
    """One load's way through a stream.

    Args:
        kind: the cursor column's Arrow type.
        append: rows are appended, so those at the boundary must not be loaded twice.
        key: the primary key; tells equal rows apart in an append. Empty: the whole row does.
        state: the stream's part of dlt's state; changed by `commit` alone.
    """

    def __init__(self, config: CursorConfig, *, kind: pa.DataType, append: bool, key: Sequence[str], state: MutableMapping[str, Any], place: str) -> None:
        self._field, self._kind, self._append, self._key, self._state, self._place = config.field, kind, append, tuple(key), state, place
        if not _is_ordered(kind):
            raise ConfigurationError(
                f"{place}: the cursor {config.field} has the type {kind}, which has no order to follow",
                remedy="choose a number, date, timestamp or text column",
            )
        last = decode(state["value"], kind) if "value" in state else None
        if "kind" in state and state["kind"] != str(kind):
            raise DataError(f"{place}: the cursor {config.field} was {state['kind']} and is now {kind}", remedy="load the stream anew with --full-refresh")
        self._check_lag(config.lag)
        self.start = self._step_back(last, config.lag) if last is not None else self._parse_initial(config.initial)
        self._last, self._highest = last, last
        # Copies of rows at the highest value so far; and those of earlier loads that this one has still to meet again.
        self._ties: Counter[str] = Counter(state.get("ties", {})) if last is not None else Counter()
        self._seen = Counter(self._ties)
        self._tie_columns: list[str] | None = state.get("tie_columns") if last is not None else None

    def filter(self, table: pa.Table) -> pa.Table:
        """Keep the rows that are new, and note how far they come.

        Raises:
            DataError: a NULL cursor in an append, which has no way to tell whether it was loaded before.
        """
        column = table[self._field]
        if self._append and column.null_count:
            raise DataError(
                f"{self._place}: {column.null_count} rows have no {self._field}, so an append cannot tell whether it has loaded them before",
                remedy=f"use merge with a primary_key, which takes them in each load, or leave them out on purpose: where: {self._field} is not null",
            )
        if self.start is not None:
            mask = pc.fill_null(pc.greater_equal(column, pa.scalar(self.start, self._kind)), True)
            table = table.filter(mask)
        if self._append and self._last is not None and self._seen:
            table = self._drop_seen(table)
        self._observe(table)
        return table

    def commit(self) -> None:
        """Remember how far the load came; the next one begins there."""
        if self._highest is None:
            return
        self._state["value"], self._state["kind"] = encode(self._highest), str(self._kind)
        if self._append:
            if sum(self._ties.values()) > MAX_TIES:
                raise DataError(
                    f"{self._place}: more than {MAX_TIES} rows share the newest {self._field}, too many to remember",
                    remedy="use a finer cursor, or merge with a primary_key",
                )
            self._state["ties"], self._state["tie_columns"] = dict(self._ties), self._tie_columns

    def _observe(self, table: pa.Table) -> None:
        highest = pc.max(table[self._field]).as_py() if table.num_rows else None
        if highest is None or (isinstance(highest, float) and math.isnan(highest)):
            return
        if self._highest is None or highest > self._highest:
            self._highest, self._ties, self._tie_columns = highest, Counter(), None
        elif highest < self._highest:
            return
        if self._append:
            at_highest = table.filter(pc.equal(table[self._field], pa.scalar(highest, self._kind)))
            self._tie_columns = self._tie_columns or list(self._key or table.schema.names)
            self._ties.update(self._digest(at_highest))

    def _drop_seen(self, table: pa.Table) -> pa.Table:
        """Leave out the copies of boundary rows that an earlier load has brought."""
        boundary = pc.equal(table[self._field], pa.scalar(self._last, self._kind))
        at_boundary = table.filter(boundary)
        if not at_boundary.num_rows:
            return table
        missing = [name for name in self._tie_columns or () if name not in table.schema.names]
        if missing:
            raise DataError(
                f"{self._place}: column {missing[0]} is gone, and by it an append knew which rows of the newest {self._field} it had loaded",
                remedy="declare a primary_key, or load the stream anew with --full-refresh",
            )
        keep = []
        for digest in self._digest(at_boundary):
            keep.append(self._seen[digest] <= 0)
            self._seen[digest] -= 1
        fresh = at_boundary.filter(pa.array(keep, type=pa.bool_()))
        return pa.concat_tables([table.filter(pc.invert(boundary)), fresh])

    def _digest(self, table: pa.Table) -> Iterator[str]:
        for row in table.select(self._tie_columns or table.schema.names).to_pylist():
            text = json.dumps([_write(value) for value in row.values()], ensure_ascii=False)
            yield hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()

    def _check_lag(self, lag: timedelta | int | None) -> None:
        """Refuse a lag that does not go with the cursor's type at the first load, not at the first one that needs it."""
        if lag is None:
            return
        place = f"{self._place}: the cursor {self._field} has the type {self._kind}"
        if pa.types.is_string(self._kind) or pa.types.is_large_string(self._kind):
            raise ConfigurationError(f"{place}, and a lag needs a timestamp, date or number", remedy="leave out cursor.lag, or choose another cursor")
        temporal = pa.types.is_temporal(self._kind)
        if temporal != isinstance(lag, timedelta):
            raise ConfigurationError(f"{place}; its lag must be {'a duration such as 5m' if temporal else 'a number'}", remedy="correct cursor.lag")

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
                f"{self._place}: cursor.initial does not read as {self._kind}, the type of {self._field}",
                remedy="write it as the column does: 2024-01-31, 2024-01-31T12:00:00Z or a number",
            ) from None


def encode(value: Any) -> str:
    """Write a cursor value so that `decode` reads the same one."""
    return value.isoformat() if isinstance(value, date) else repr(value) if isinstance(value, float) else str(value)


def decode(text: str, kind: pa.DataType) -> Any:
    """Read a cursor value.

    Raises:
        ValueError, InvalidOperation: the text is none of that type.
    """
    if pa.types.is_timestamp(kind):
        value = datetime.fromisoformat(text)
        if kind.tz:
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if pa.types.is_date(kind):
        return datetime.fromisoformat(text).date()
    if pa.types.is_decimal(kind):
        return Decimal(text)
    if pa.types.is_floating(kind):
        return float(text)
    return int(text) if pa.types.is_integer(kind) else text


def _is_ordered(kind: pa.DataType) -> bool:
    return (
        kind == arrow_types.TEXT
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_decimal(kind)
        or kind in (arrow_types.BIGINT, arrow_types.DOUBLE)
    )


def _write(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int) else repr(value)
