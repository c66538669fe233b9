"""Rows of one load that share their key -> the newest of each: highest in `newest_by`, then the one read last."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.quoting import quote, quote_all
from fabric_assets.warehouse.session import Session, Table

_ROW = "row"


def drop_repeats(rows: pa.Table, key: Sequence[str], newest_by: str | None) -> pa.Table:
    """Keep the newest row of each key; the rest stay in their order."""
    numbered = pa.table({f"key {number}": rows.column(name) for number, name in enumerate(key)})
    names = numbered.column_names
    # In this thread: Arrow's own wait forever for one that they cannot start, where memory has run out.
    if numbered.group_by(names, use_threads=False).aggregate([]).num_rows == rows.num_rows:
        return rows
    numbered = numbered.append_column(_ROW, pa.array(range(rows.num_rows), pa.int64()))
    if newest_by is not None and newest_by in rows.column_names:
        newest = rows.column(newest_by)
        # NULL is older than any value; by a column of its own, since pyarrow has changed how one says where NULLs go.
        order = pa.table({"is known": pc.is_valid(newest), "newest": newest, _ROW: numbered.column(_ROW)})
        numbered = numbered.take(pc.sort_indices(order, sort_keys=[(name, "ascending") for name in order.column_names]))
    kept = numbered.group_by(names, use_threads=False).aggregate([(_ROW, "last")])[f"{_ROW}_last"]
    return rows.take(kept.take(pc.sort_indices(kept)))


def delete_repeats(session: Session, table: Table, key: Sequence[str], newest_by: str | None) -> int:
    """Keep the newest row of each key in a table that this transaction has filled; the number of rows deleted.

    Each insert must have held a key only once: within one, a destination need not know which row came last.
    """
    names = quote_all(key)
    repeated = f"select {names} from {table} group by {names} having count(*) > 1"
    if not session.ask(f"select exists ({repeated})")[0][0]:
        return 0
    order = [f"t.{quote(newest_by)} desc nulls last"] if newest_by else []
    window = f"partition by {quote_all(key, table='t')} order by {', '.join([*order, f'{session.write_order} desc'])}"
    ranked = f"select {session.row} as place, row_number() over ({window}) as rank from {table} as t join ({repeated}) as repeated using ({names})"
    return session.delete_own(table, f"{session.row} in (select place from ({ranked}) as ranked where rank > 1)")
