"""The rows of one stream -> its tables in the warehouse, in the transaction that also writes ledger and state.

A replaced table's rows are deleted, not truncated: readers see the old rows until the commit, and never wait.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from fabric_assets.errors import DestinationError
from fabric_assets.quoting import quote, quote_match, quote_text
from fabric_assets.rows.batches import Reject, StreamPlan
from fabric_assets.rows.column_names import is_of_family
from fabric_assets.rows.reports import LoadRecord
from fabric_assets.rows.stream_names import StreamNames
from fabric_assets.warehouse.dlt_tables.bookkeeping import TableChange
from fabric_assets.warehouse.dlt_tables.stored_schema import TableHints
from fabric_assets.warehouse.duplicates import check_key, delete_duplicates, drop_duplicates
from fabric_assets.warehouse.platform_tables import ledger, rejected_rows
from fabric_assets.warehouse.refresh import replace_tables
from fabric_assets.warehouse.session import Columns, Datasets, Session, Table
from fabric_assets.warehouse.source_keys import SourceKeysTable
from fabric_assets.warehouse.stream_table import StreamTable
from fabric_assets.warehouse.written import FollowedDeletes, Written

ROW_ID, LOAD_ID, ROOT_ID = "_dlt_id", "_dlt_load_id", "_dlt_root_id"


class StreamWriter:
    """The writer of one stream's rows in a transaction; used by one thread.

    Args:
        layouts: the tables of the raw dataset.
        names: the columns of the stream's fields; those that the YAML renames are renamed in the table.
        state: the stream's state when the load began.
        counts_exactly: the stream's table has objects that act on its rows, so its rows are counted before and after.
    """

    def __init__(
        self,
        session: Session,
        plan: StreamPlan,
        datasets: Datasets,
        *,
        source: str,
        layouts: Mapping[str, Columns],
        names: StreamNames,
        state: ledger.StreamState,
        full_refresh: bool,
        counts_exactly: bool = False,
    ) -> None:
        self._session, self._plan, self._datasets, self._source = session, plan, datasets, source
        self.state, self._full_refresh, self._counts_exactly = state, full_refresh, counts_exactly
        self._names, kept = names, {} if full_refresh else names.layout
        self._family = {name: kept.get(name, columns) for name, columns in layouts.items() if is_of_family(name, plan.name)}
        self._former = self._family.get(plan.name, {})
        self._key = tuple(map(names.find_column, plan.key))
        self._replaced_by = names.find_column(plan.replaced_by) if plan.replaced_by else None
        self._tables: dict[str, StreamTable] = {}
        self._replaced: set[str] = set()
        self._replayed: set[str] = set()
        self._copies: Counter[str] = Counter()
        # Counts of rows: received by this load, less those that the source has lost; left out as duplicates; removed; in the table at the beginning.
        self._handed = self._duplicates = self._removed = self._held = 0
        self._kept_key: tuple[str, ...] | None = None
        self._keys: SourceKeysTable | None = None
        self._begun = self._waits = self._has_rejects = False
        self._merges = plan.disposition == "merge" or (plan.deduplicates and bool(plan.key))

    def write(self, tables: Mapping[str, pa.Table], rejects: Sequence[Reject] = ()) -> None:
        """Write rows, columns by their names in the warehouse; missing tables and columns are made."""
        self._begin()
        for name, rows in sorted(tables.items()):
            self._find(name).write(self._prepare_root(rows) if name == self._plan.name else rows)
        if rejects:
            rejected_rows.stage(self._session, rejects, self._copies, source=self._source, stream=self._plan.name, is_first=not self._has_rejects)
            self._has_rejects = True

    def replace_rows_of(self, value: str) -> None:
        """Delete the table's rows with this value of the plan's `replaced_by`, but not rows of this load."""
        self._begin()
        self._delete_values([value])

    def write_keys(self, keys: pa.Table) -> None:
        """Write primary keys that the source holds, typed and named as in the warehouse."""
        self._begin()
        self._keys = self._keys or SourceKeysTable(self._session, {field.name: field.type for field in keys.schema})
        self._keys.write(keys)

    def mark_replayed(self, row_ids: Iterable[str]) -> None:
        """Delete these rejected rows of earlier loads at the commit: this load has written them."""
        self._replayed.update(row_ids)

    def finish(self, *, follows_deletes: bool = False, misfits: int = 0) -> Written:
        """Write the remaining rows, merge, and check the number of rows.

        Args:
            follows_deletes: the keys are those of all rows that the source holds.
            misfits: keys of the source that have no value in the table's columns.

        Raises:
            DestinationError: the table does not hold the expected number of rows.
        """
        self._begin()
        keeps_columns = self._full_refresh and bool(self._former) and self._plan.name not in self._tables
        if keeps_columns:
            # No rows were read: the table becomes empty, but stays.
            self._find(self._plan.name).write(pa.schema(list(self._former.items())).empty_table())
        for table in self._tables.values():
            table.flush()
        if self._merges and self._plan.name in self._tables:
            self._merge()
        for name, table in self._tables.items():
            table.insert_staged()
            if table.is_new and name != self._plan.name and ROOT_ID in table.columns:
                self._session.find_faster_by(table.table, ROOT_ID)
        deletes = self._follow_deletes(misfits) if follows_deletes else None
        root = self._tables.get(self._plan.name)
        total, columns = self._session.read_table(Table(self._target, self._plan.name), made=root.columns if root and root.is_new else None)
        expected = self._handed - self._duplicates + (0 if self._is_alone else self._held - self._removed)
        if (self._is_alone or self._counts_exactly) and total != expected:
            raise DestinationError(f"{self._where}: the table holds {total} rows where it should hold {expected}; nothing was kept")
        return Written(total, columns, self._duplicates, keeps_columns, self._count_missing(total), deletes)

    def _follow_deletes(self, misfits: int) -> FollowedDeletes:
        if self._keys is None:
            return FollowedDeletes()
        root, made = Table(self._target, self._plan.name), self._tables.get(self._plan.name)
        children = [(child, f"c.{ROOT_ID} = t.{ROW_ID}") for child in self._list_children()]
        found = self._keys.follow_deletes(root, made.columns if made else dict(self._former), self._plan.deletes, children, misfits=misfits)
        self._handed -= found.rows if self._plan.deletes.mode == "hard" else 0
        return found

    def _count_missing(self, total: int) -> int:
        """Compute the missing rows from what this load has added and deleted: to count before the load would read the table once more."""
        if self._full_refresh or not self._former or self.state.rows_total is None:
            return 0
        before = total - (self._handed - self._duplicates) + self._removed
        return max(0, self.state.rows_total - before)

    def prepare_commit(self, record: LoadRecord) -> None:
        """Run the last statements of the transaction: replace refreshed tables, write the rejected rows."""
        session, platform = self._session, self._datasets.platform
        if self._is_aside:  # at the very end: from here on readers may have to wait for the commit
            replace_tables(session, self._tables, self._family, schema=self._datasets.raw, counts_exactly=self._counts_exactly)
        if self.state.has_rejects:
            if self._full_refresh or self._plan.disposition == "replace" or self._plan.reads_all:
                rejected_rows.forget_all(session, platform, record)
            else:
                rejected_rows.forget(session, platform, record, origins=self._replaced, row_ids=self._replayed, of_failed_loads=not self._plan.yields)
        if self._has_rejects:
            rejected_rows.write(session, platform, record)

    def describe_change(self) -> TableChange:
        """Describe the stream's tables as they are after the commit."""
        made = {name: table.columns for name, table in self._tables.items()}
        # `replace_tables` keeps an old table that lacks no column, and adds the new columns to it.
        former = self._family if self._is_aside else {}
        after = {name: {**former.get(name, {}), **columns} if former.get(name, {}).items() <= columns.items() else columns for name, columns in made.items()}
        hints = None if self._plan.yields else TableHints(self._plan.disposition, frozenset(self._key))
        return TableChange(self._plan.name, after if self._is_aside else {**self._family, **after}, hints)

    # --- tables

    @property
    def _newest_by(self) -> str | None:
        """The column of `newest_by`; known once a row has had the field."""
        return self._names.find_column(self._plan.newest_by) if self._plan.newest_by else None

    @property
    def _where(self) -> str:
        return f"{self._session.where}, {self._datasets.raw}.{self._plan.name}"

    @property
    def _is_aside(self) -> bool:
        """Whether new tables are made while readers still see the old ones."""
        return self._full_refresh and bool(self._family) and self._datasets.staging is not None

    @property
    def _target(self) -> str:
        """The schema that the rows are written to."""
        return self._datasets.staging if self._is_aside and self._datasets.staging else self._datasets.raw

    @property
    def _is_alone(self) -> bool:
        """Whether the table will hold only this load's rows."""
        return self._full_refresh or self._plan.disposition == "replace" or not self._family

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        raw, root = self._datasets.raw, self._plan.name
        if self._counts_exactly and self._former and not self._is_alone:
            ((self._held,),) = self._session.ask(f"select count(*) from {Table(raw, root)}")
        if self._full_refresh:
            if self._is_aside and self._datasets.staging:
                self._session.create_schema(self._datasets.staging)
            if not self._is_aside:
                for name in self._family:
                    self._session.execute(f"drop table if exists {Table(raw, name)} cascade")
                self._family = {}
        elif self._names.renamed and root in self._family:
            self._session.rename_columns(Table(raw, root), self._names.renamed)
        if not self._full_refresh and self._plan.disposition == "replace":
            for name in self._family:
                self._removed += self._session.delete(Table(raw, name)) * (name == root)
        if self._merges and root in self._family:
            self._kept_key = self._session.find_kept_key(Table(raw, root))
            # Rows go directly into an empty table, which is faster.
            self._waits = self._kept_key is not None or self._session.ask(f"select exists (select 1 from {Table(raw, root)})") == [(True,)]

    def _find(self, name: str) -> StreamTable:
        if name not in self._tables:
            columns = {} if self._is_aside else self._family.get(name, {})
            table, grows = Table(self._target, name), self._merges and not self._waits
            self._tables[name] = StreamTable(self._session, table, columns, waits=self._waits, grows=grows, gathers=not self._merges)
        return self._tables[name]

    def _prepare_root(self, rows: pa.Table) -> pa.Table:
        self._handed += rows.num_rows
        if self._replaced_by is not None and self._replaced_by in rows.column_names:
            values = rows.column(self._replaced_by).unique().to_pylist()
            self._delete_values([str(value) for value in values if value is not None])
        if not self._merges or not rows.num_rows:
            return rows
        kept = drop_duplicates(rows, self._key, self._newest_by)
        self._duplicates += rows.num_rows - kept.num_rows
        return kept

    def _delete_values(self, values: Iterable[str]) -> None:
        """Delete the rows of earlier loads with these values, and their child rows."""
        new = [value for value in values if value not in self._replaced]
        self._replaced.update(new)
        columns = {} if self._full_refresh else self._family.get(self._plan.name, {})
        if not new or self._replaced_by is None or self._replaced_by not in columns:
            return
        chosen = f"{quote(self._replaced_by)} in ({', '.join(map(quote_text, new))})"
        root = Table(self._datasets.raw, self._plan.name)
        for child in self._list_children():
            self._session.delete(child, f"t.{ROOT_ID} = r.{ROW_ID} and r.{chosen}", using=f"{root} as r")
        self._removed += self._session.delete(root, f"t.{chosen}")

    # --- merge

    def _merge(self) -> None:
        root = self._tables[self._plan.name]
        newest_by = self._newest_by if self._newest_by in root.filled_columns else None
        duplicates = self._delete_duplicates(root, newest_by)
        root.count_deleted(duplicates)
        self._duplicates += duplicates + self._yield(root, newest_by)
        if self._duplicates:
            for name, table in self._tables.items():
                if name != self._plan.name:
                    table.delete_staged(f"not exists (select 1 from {root.filled} as r where r.{ROW_ID} = t.{ROOT_ID})")
        if root.stage is None:
            return
        if self._plan.disposition == "merge":
            check_key(self._key, self._former, where=self._where)
        if self._kept_key not in {None, self._key}:  # the primary key in the YAML has changed
            self._session.forget_key(root.table)
        self._session.analyze(root.stage)
        if self._plan.yields or (self._plan.declares_columns and not self._plan.reads_all):
            root.keep_unread(self._key, mark_alone=self._plan.yields)
        for child in self._list_children():
            self._session.delete(child, f"t.{ROOT_ID} = r.{ROW_ID} and {quote_match(self._key, 'r', 's')}", using=f"{root.table} as r, {root.stage} as s")
        self._removed += self._session.delete(root.table, quote_match(self._key, "t", "s"), using=f"{root.stage} as s")

    def _delete_duplicates(self, root: StreamTable, newest_by: str | None) -> int:
        """Keep the newest row of each key of this load. In a new table a unique index keeps the keys unique from then on."""
        is_alone = root.stage is None
        if is_alone and self._session.keep_key(root.table, self._key):
            return 0
        duplicates = delete_duplicates(self._session, root.filled, self._key, newest_by)
        if duplicates and is_alone:
            self._session.keep_key(root.table, self._key)
        return duplicates

    def _yield(self, root: StreamTable, newest_by: str | None) -> int:
        """On a key conflict, keep the existing row unless the new one is newer; return the number of rows left out."""
        if not self._plan.yields or root.stage is None or not (self._newest_by or self._plan.read_by):
            return 0
        is_as_new = f"o.{LOAD_ID} >= {quote_text(self._plan.read_by)}" if self._plan.read_by else "true"
        if newest_by is not None and newest_by in root.columns:
            is_as_new = f"coalesce(o.{quote(newest_by)} >= t.{quote(newest_by)}, true)"
        left_out = self._session.delete_own(root.stage, f"exists (select 1 from {root.table} as o where {quote_match(self._key, 'o', 't')} and {is_as_new})")
        root.count_deleted(left_out)
        return left_out

    def _list_children(self) -> list[Table]:
        """List the child tables, of nested lists, that existed before this load."""
        children = [name for name in self._family if name != self._plan.name]
        for name in children:
            if ROOT_ID not in self._family[name]:
                raise DestinationError(f"{self._where}: rows of {name} do not say which row they belong to ({ROOT_ID})", remedy="load anew with --full-refresh")
        return [Table(self._datasets.raw, name) for name in children]
