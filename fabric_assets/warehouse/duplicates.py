"""Duplicates, i.e. rows of one load with the same key -> the newest of each: highest in `newest_by`, then the one read last."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Container, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.errors import DataError
from fabric_assets.quoting import quote, quote_all
from fabric_assets.warehouse.session import Session, Table

_ROW = "row"


def check_key(key: Sequence[str], columns: Container[str], *, where: str) -> None:
    """Check that existing rows have all columns of the key: else they would stay beside the rows that replace them.

    Args:
        columns: of the existing table.

    Raises:
        DataError: a column of the key is new.
    """
    if new := [name for name in key if name not in columns]:
        raise DataError(
            f"{where}: the primary key has the column {new[0]}, which the table lacks, so the rows of earlier loads have no such key",
            remedy="load the stream anew with --full-refresh; or leave the column out of primary_key",
        )


def drop_duplicates(rows: pa.Table, key: Sequence[str], newest_by: str | None) -> pa.Table:
    """Return the newest row of each key, in the order of the rows."""
    numbered = pa.table({f"key {number}": rows.column(name) for number, name in enumerate(key)})
    names = numbered.column_names
    # In this thread: where memory has run out, Arrow waits forever for a thread that cannot start.
    if numbered.group_by(names, use_threads=False).aggregate([]).num_rows == rows.num_rows:
        return rows
    numbered = numbered.append_column(_ROW, pa.array(range(rows.num_rows), pa.int64()))
    if newest_by is not None and newest_by in rows.column_names:
        newest = rows.column(newest_by)
        # NULL is older than any value. A column of its own says so, because the argument for it differs between versions of pyarrow.
        order = pa.table({"is known": pc.is_valid(newest), "newest": newest, _ROW: numbered.column(_ROW)})
        numbered = numbered.take(pc.sort_indices(order, sort_keys=[(name, "ascending") for name in order.column_names]))
    kept = numbered.group_by(names, use_threads=False).aggregate([(_ROW, "last")])[f"{_ROW}_last"]
    return rows.take(kept.take(pc.sort_indices(kept)))


def delete_duplicates(session: Session, table: Table, key: Sequence[str], newest_by: str | None) -> int:
    """Delete all but the newest row of each key from a table that this transaction has filled; return the number deleted.

    No single insert may hold a key twice, because a destination need not know which row of an insert came last.
    """
    names = quote_all(key)
    repeated = f"select {names} from {table} group by {names} having count(*) > 1"
    if not session.ask(f"select exists ({repeated})")[0][0]:
        return 0
    order = [f"t.{quote(newest_by)} desc nulls last"] if newest_by else []
    window = f"partition by {quote_all(key, table='t')} order by {', '.join([*order, f'{session.write_order} desc'])}"
    ranked = f"select {session.row} as row_position, row_number() over ({window}) as rank from {table} as t join ({repeated}) as repeated using ({names})"
    return session.delete_own(table, f"{session.row} in (select row_position from ({ranked}) as ranked where rank > 1)")
