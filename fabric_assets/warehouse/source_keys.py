"""The keys that a source holds, in a temporary table -> rows of a stream's table that are deleted or marked.

Everything happens in the transaction that also writes the stream's rows: a load that is killed has deleted nothing.
"""

from collections.abc import Sequence

import pyarrow as pa

from fabric_assets.config.sources.deletes import DeletesConfig
from fabric_assets.quoting import quote, quote_match
from fabric_assets.rows.arrow_types import TIMESTAMP_UTC
from fabric_assets.warehouse.platform_tables.ledger import write_time
from fabric_assets.warehouse.session import Columns, Session, Table
from fabric_assets.warehouse.written import FollowedDeletes

# Since when the source lacks the row; NULL while it has the row.
MARK = "_fabric_deleted_at"


class SourceKeysTable:
    """The temporary table of a load's keys.

    Args:
        columns: of the primary key, by their names and types in the warehouse.
    """

    def __init__(self, session: Session, columns: Columns) -> None:
        self._session, self._table, self._key = session, Table(session.temporary_schema, "_fabric_keys"), tuple(columns)
        session.create(self._table, columns)

    def write(self, keys: pa.Table) -> None:
        if keys.num_rows:
            self._session.insert(self._table, keys)

    def follow_deletes(
        self, root: Table, columns: dict[str, pa.DataType], deletes: DeletesConfig, children: Sequence[tuple[Table, str]], *, misfits: int
    ) -> FollowedDeletes:
        """Delete or mark the rows whose keys the source no longer has.

        Args:
            columns: of the root table; a column of marks that is made here is added.
            misfits: keys of the source that have no value in the table's columns.
            children: the tables of nested lists, each with the condition that joins it, as c, to a row of the root table, as t.
        """
        if deletes.mode == "soft" and MARK not in columns:
            self._session.add_columns(root, {MARK: TIMESTAMP_UTC})
            columns[MARK] = TIMESTAMP_UTC
        is_marked = MARK in columns
        self._session.analyze(self._table)
        is_there = f"exists (select 1 from {self._table} as k where {quote_match(self._key, 'k', 't')})"
        is_live = f"t.{quote(MARK)} is null" if is_marked else "true"
        ((live, gone),) = self._session.ask(
            f"select (select count(*) from {root} as t where {is_live}), (select count(*) from {root} as t where {is_live} and not {is_there})"
        )
        problem = ""
        if 0 < gone <= misfits:
            problem = (
                f"{gone:,} rows are not in the source any more, and {misfits:,} of its keys do not fit the table's key."
                " They may be the same rows, so nothing was deleted"
            )
        elif deletes.is_exceeded(live, gone):
            problem = f"{gone:,} of {live:,} rows are not in the source any more, and deletes.max allows {deletes.max}: nothing was deleted"
        returned = 0
        if is_marked:
            returned = self._session.execute(f"update {root} as t set {quote(MARK)} = null where not {is_live} and {is_there}")
        rows = 0 if problem else self._remove(root, deletes, is_there, is_live, children)
        self._session.execute(f"drop table {self._table}")
        return FollowedDeletes(rows, returned, problem)

    def _remove(self, root: Table, deletes: DeletesConfig, is_there: str, is_live: str, children: Sequence[tuple[Table, str]]) -> int:
        if deletes.mode == "soft":
            return self._session.execute(f"update {root} as t set {quote(MARK)} = {write_time()} where {is_live} and not {is_there}")
        for child, joined in children:
            self._session.execute(f"delete from {child} as c using {root} as t where {joined} and not {is_there}")
        return self._session.delete(root, f"not {is_there}")
